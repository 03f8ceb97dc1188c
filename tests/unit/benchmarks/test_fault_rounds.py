"""Counts and kill times of `benchmarks/faults.py`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.bulk_faults import list_all_faults, list_fatal_faults, list_harmless_faults, list_retried_faults, list_search_faults
from support.servers.fault_proxy import Request, Response

ROOT = Path(__file__).parents[3]
BULK, SEARCH = (Request(method="POST", path=f"/i/{name}?x=1", headers={}, body=b"") for name in ("_bulk", "_search"))


@pytest.fixture(scope="module")
def load_module() -> Iterator[Callable[[str], ModuleType]]:
    """Gives modules of benchmarks/."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield importlib.import_module
    finally:
        sys.path.pop(0)


@pytest.mark.parametrize(
    ("documents", "counts"),
    [
        ([("a", "m"), ("b", "m")], (0, 0, 0)),
        ([("a", "m")], (1, 0, 0)),
        ([("a", "m"), ("b", "m"), ("b", "m")], (0, 1, 0)),
        ([("a", "m"), ("b", "other")], (0, 0, 1)),
        ([("a", "m"), ("b", "m"), ("stranger", "m")], (0, 0, 1)),
    ],
)
def test_lost_duplicated_and_unexpected_documents_are_counted(
    documents: list[tuple[str, str]], counts: tuple[int, int, int], load_module: Callable[[str], ModuleType]
) -> None:
    cluster_state = load_module("fault_rounds.cluster_state")
    stored = [{"uri": uri, "model": model} for uri, model in documents]
    assert cluster_state.count_errors(stored, {"a", "b"}, "m") == cluster_state.Counts(*counts)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_it_fires_once_at_the_drawn_request(moment: str, load_module: Callable[[str], ModuleType]) -> None:
    happened: list[str] = []

    def send(request: Request) -> Response:
        happened.append("sent")
        return Response()

    plan = load_module("fault_rounds.trigger").Trigger(2, lambda: happened.append("act"), moment, lambda request: request.is_bulk)
    for request in (BULK, SEARCH, BULK, BULK):
        fault = plan(request)
        fault.act(request, send) if fault else send(request)
    assert happened == ["sent", "sent", *(["act", "sent"] if moment == "before" else ["sent", "act"]), "sent"]
    assert plan.done.is_set()


@pytest.mark.parametrize(
    ("code", "report", "said", "wrong"),
    [
        (0, {"seen": 3}, "", 0),
        (1, {"error": "the disk is full"}, "error: the disk is full", 0),
        (1, {}, "error: the disk is full", 1),
        (1, {}, "Traceback (most recent call last):\n", 2),
        (-9, {}, "", 0),
    ],
)
def test_how_a_run_may_end(
    code: int, report: dict[str, Any], said: str, wrong: int, load_module: Callable[[str], ModuleType]
) -> None:
    assert len(load_module("fault_rounds.command").CommandResult(code, report, said).wrong) == wrong


def test_page_keeps_manual_text(load_module: Callable[[str], ModuleType], tmp_path: Path) -> None:
    report = load_module("fault_rounds.report")
    tallies = {"swap": report.Tally(rounds=3, completed=1, seconds=6.0)}
    result = report.build_result(tallies, "12 images a run", [], {"began": "2026-11-26 10:00", "ended": "2026-11-26 11:00"})
    versions = dict.fromkeys(("Python", "OpenSearch", "opensearch-py", "ray", "stair-es"), "1.0")
    machine = {"processor": "CPU", "cores": 2, "memory": "8 GiB", "system": "Linux", "commit": "abc", "versions": versions}
    file = tmp_path / "faults.md"
    file.write_text(f"# Faults\n\n{report.BEGIN}\nold\n{report.END}\n\nby hand\n")
    for _ in range(2):
        report.write_page(file, result, "benchmarks/faults.py --rounds 3", machine, (0.5, 1.5))
    text = file.read_text()
    assert text.startswith("# Faults\n")
    assert text.endswith("by hand\n")
    assert "old" not in text
    assert text.count("a run with another model swaps the alias") == text.count("`python benchmarks/faults.py --rounds 3`") == 1
    assert report.is_clean(tallies)
    file.write_text("# Faults\n")
    with pytest.raises(ValueError, match="lacks"):
        report.write_page(file, result, "", machine, (0.5, 1.5))


def test_fault_names_are_unique() -> None:
    names = [fault.name for fault in (*list_all_faults(), *list_fatal_faults(), *list_search_faults())]
    assert len(names) == len(set(names))
    assert {fault.name for fault in (*list_retried_faults(), *list_harmless_faults())} < set(names)


def test_the_page_of_the_docs_can_be_written_and_counts_the_faults(load_module: Callable[[str], ModuleType]) -> None:
    text = (ROOT / "docs" / "faults.md").read_text()
    report = load_module("fault_rounds.report")
    assert text.index(report.BEGIN) < text.index(report.END)
    assert f"one of {len(list_all_faults())} faults" in text
    assert set(load_module("fault_rounds.kinds").KINDS) <= set(
        text.replace("**", " ").replace(",", " ").replace(":", " ").split()
    )
