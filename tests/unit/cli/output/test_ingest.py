"""The report of an ingest on the terminal."""

from __future__ import annotations

from typing import Any

import pytest

from stair_es.cli.output.ingest import print_dry_run, print_ingest_report
from stair_es.ingest.accounting.report import FailureReason, IngestReport
from stair_es.ingest.dry_run import DryRunReport


def _report(**more: Any) -> IngestReport:  # noqa: ANN401  of each field
    counts = {
        "seen": 10,
        "written": 4,
        "unchanged": 0,
        "failed": 6,
        "removed": 0,
        "documents": 4,
        "bulk_requests": 1,
        "bulk_retries": 0,
    }
    names = {
        "index": "photos-1",
        "alias": "photos",
        "not_swapped_reason": "",
        "model": "m-1",
        "runner": "local",
        "dead_letters": "d.jsonl",
    }
    values: dict[str, Any] = {**counts, **names, "seconds": 1.0, "stage_seconds": {}, "encoder_idle": None}
    return IngestReport(**{**values, "swapped": False, "deleted_indices": (), **more})


def test_reasons_have_an_example_and_the_others_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = (
        FailureReason(stage="read", reason="no such host", images=3, example="http://h/1.jpg"),
        FailureReason(stage="decode", reason="cut off", images=1, example="file:///[b]2.jpg"),
    )
    print_ingest_report(_report(failure_reasons=reasons), "stair-es ingest --retry-failed d.jsonl --index photos")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-5:] == [
        "  failed in read, 3: no such host (such as http://h/1.jpg)",
        "  failed in decode, 1: cut off (file:///[b]2.jpg)",
        "  and 2 more for other reasons",
        "dead letters: d.jsonl",
        "retry them: stair-es ingest --retry-failed d.jsonl --index photos",
    ]
    print_ingest_report(_report(failed=0, dead_letters=None), "")
    assert "again" not in capsys.readouterr().out


def test_dry_run_lists_documents_to_remove(capsys: pytest.CaptureFixture[str]) -> None:
    uris = tuple(f"file:///{number}.jpg" for number in range(23))
    report = DryRunReport(
        seen=1, new=1, changed=0, unchanged=0, unknown=0, unlisted=0, stale=len(uris), stale_uris=uris, index="photos-1"
    )
    print_dry_run(report, "photos")
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip() for line in lines[-21:]] == [*uris[:20], "and 3 more (--json has all of them)"]
    assert tuple(report.to_dict()["stale_uris"]) == uris
