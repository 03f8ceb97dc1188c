"""Counts and kill times of `benchmarks/faults.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.benchmarks import import_benchmark
from support.bulk_faults import list_all_faults, list_fatal_faults, list_harmless_faults, list_retried_faults, list_search_faults
from support.markdown import read_table_rows
from support.servers.fault_proxy import Request, Response

ROOT = Path(__file__).parents[3]
cluster_state = import_benchmark("fault_rounds.cluster_state")
trigger = import_benchmark("fault_rounds.trigger")
rounds = import_benchmark("fault_rounds.command")
kinds = import_benchmark("fault_rounds.kinds")
report = import_benchmark("fault_rounds.report")
BULK, SEARCH = (Request(method="POST", path=f"/i/{name}?x=1", headers={}, body=b"") for name in ("_bulk", "_search"))


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
    documents: list[tuple[str, str]], counts: tuple[int, int, int]
) -> None:
    stored = [{"uri": uri, "model": model} for uri, model in documents]
    assert cluster_state.count_errors(stored, {"a", "b"}, "m") == cluster_state.Counts(*counts)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_fault_fires_once_at_the_drawn_request(moment: str) -> None:
    events: list[str] = []

    def send_request(request: Request) -> Response:
        events.append("sent")
        return Response()

    plan = trigger.Trigger(2, lambda: events.append("act"), moment, lambda request: request.is_bulk)
    for request in (BULK, SEARCH, BULK, BULK):
        fault = plan(request)
        fault.act(request, send_request) if fault else send_request(request)
    assert events == ["sent", "sent", *(["act", "sent"] if moment == "before" else ["sent", "act"]), "sent"]
    assert plan.done.is_set()


@pytest.mark.parametrize(
    ("exit_code", "report_json", "stderr", "faults"),
    [
        (0, {"seen": 3}, "", 0),
        (1, {"error": "the disk is full"}, "error: the disk is full", 0),
        (1, {}, "error: the disk is full", 1),
        (1, {}, "Traceback (most recent call last):\n", 2),
        (-9, {}, "", 0),
    ],
)
def test_ends_of_a_run_without_result_are_faults(exit_code: int, report_json: dict[str, Any], stderr: str, faults: int) -> None:
    assert len(rounds.CommandResult(exit_code, report_json, stderr).wrong) == faults


def test_page_keeps_manual_text(tmp_path: Path) -> None:
    tallies = {"swap": report.Tally(rounds=3, completed=1, seconds=6.0)}
    result = report.build_result(tallies, "12 images a run", [], {"began": "2026-11-26 10:00", "ended": "2026-11-26 11:00"})
    versions = dict.fromkeys(("Python", "OpenSearch", "opensearch-py", "ray", "stair-es"), "1.0")
    machine = {"processor": "CPU", "cores": 2, "memory": "8 GiB", "system": "Linux", "commit": "abc", "versions": versions}
    file = tmp_path / "faults.md"
    file.write_text(f"# Faults\n\n{report.BEGIN}\nold\n{report.END}\n\nby hand\n")
    command = "benchmarks/faults.py --rounds 3"
    for _ in range(2):
        report.write_page(file, result, command, machine, (0.5, 1.5))
    text = file.read_text()
    assert text.startswith("# Faults\n")
    assert text.endswith("by hand\n")
    assert "old" not in text
    assert text.count(f"`python {command}`") == 1
    assert len([row for row in read_table_rows(text) if "swap" in row[0]]) == 1
    assert report.is_clean(tallies)
    file.write_text("# Faults\n")
    with pytest.raises(ValueError, match="lacks"):
        report.write_page(file, result, "", machine, (0.5, 1.5))


def test_fault_names_are_unique() -> None:
    names = [fault.name for fault in (*list_all_faults(), *list_fatal_faults(), *list_search_faults())]
    assert len(names) == len(set(names))
    assert {fault.name for fault in (*list_retried_faults(), *list_harmless_faults())} < set(names)


def test_the_page_of_the_docs_counts_the_faults() -> None:
    text = (ROOT / "docs" / "faults.md").read_text()
    assert text.index(report.BEGIN) < text.index(report.END)
    assert f"one of {len(list_all_faults())} faults" in text
    assert set(kinds.KINDS) <= set(text.replace("**", " ").replace(",", " ").replace(":", " ").split())
