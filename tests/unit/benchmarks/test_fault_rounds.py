"""What `benchmarks/faults.py` counts, and when it strikes: a check that can't fail would prove nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.bulk_faults import every_fault, harmless_faults, repeated_faults, search_faults, stopping_faults
from support.servers.fault_proxy import Reply, Request

ROOT = Path(__file__).parents[3]
BULK, SEARCH = (Request(method="POST", path=f"/i/{name}?x=1", headers={}, body=b"") for name in ("_bulk", "_search"))


@pytest.fixture(scope="module")
def rounds() -> Iterator[Callable[[str], ModuleType]]:
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
def test_what_is_lost_doubled_and_foreign(
    documents: list[tuple[str, str]], counts: tuple[int, int, int], rounds: Callable[[str], ModuleType]
) -> None:
    truth = rounds("fault_rounds.truth")
    stored = [{"uri": uri, "model": model} for uri, model in documents]
    assert truth.compare(stored, {"a", "b"}, "m") == truth.Counts(*counts)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_it_strikes_once_and_at_the_request_that_was_drawn(moment: str, rounds: Callable[[str], ModuleType]) -> None:
    happened: list[str] = []

    def send(request: Request) -> Reply:
        happened.append("sent")
        return Reply()

    plan = rounds("fault_rounds.trigger").At(2, lambda: happened.append("act"), moment, lambda request: request.is_bulk)
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
def test_how_a_run_may_end(code: int, report: dict[str, Any], said: str, wrong: int, rounds: Callable[[str], ModuleType]) -> None:
    assert len(rounds("fault_rounds.command").Ended(code, report, said).wrong) == wrong


def test_the_page_keeps_what_was_written_by_hand(rounds: Callable[[str], ModuleType], tmp_path: Path) -> None:
    page, tally = rounds("fault_rounds.page"), rounds("fault_rounds.tally")
    tallies = {"swap": tally.Tally(rounds=3, went_on=1, seconds=6.0)}
    result = tally.make_result(tallies, "12 images a run", [], {"began": "2026-11-26 10:00", "ended": "2026-11-26 11:00"})
    versions = dict.fromkeys(("Python", "OpenSearch", "opensearch-py", "ray", "stair-es"), "1.0")
    machine = {"processor": "CPU", "cores": 2, "memory": "8 GiB", "system": "Linux", "commit": "abc", "versions": versions}
    file = tmp_path / "faults.md"
    file.write_text(f"# Faults\n\n{page.BEGIN}\nold\n{page.END}\n\nby hand\n")
    for _ in range(2):
        page.write_page(file, result, "benchmarks/faults.py --rounds 3", machine, (0.5, 1.5))
    text = file.read_text()
    assert text.startswith("# Faults\n")
    assert text.endswith("by hand\n")
    assert "old" not in text
    assert text.count("another model's run swaps the alias") == text.count("`python benchmarks/faults.py --rounds 3`") == 1
    assert tally.is_clean(tallies)
    file.write_text("# Faults\n")
    with pytest.raises(ValueError, match="lacks"):
        page.write_page(file, result, "", machine, (0.5, 1.5))


def test_faults_have_names_of_their_own() -> None:
    names = [fault.name for fault in (*every_fault(), *stopping_faults(), *search_faults())]
    assert len(names) == len(set(names))
    assert {fault.name for fault in (*repeated_faults(), *harmless_faults())} < set(names)


def test_the_page_of_the_docs_can_be_written_and_counts_the_faults(rounds: Callable[[str], ModuleType]) -> None:
    text = (ROOT / "docs" / "faults.md").read_text()
    page = rounds("fault_rounds.page")
    assert text.index(page.BEGIN) < text.index(page.END)
    assert f"one of {len(every_fault())} faults" in text
    assert set(rounds("fault_rounds.kinds").KINDS) <= set(text.replace("**", " ").replace(",", " ").replace(":", " ").split())
