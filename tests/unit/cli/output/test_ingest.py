"""The report of an ingest on the terminal."""

from __future__ import annotations

import re
from typing import Any

import pytest

from stair_es.cli.output.ingest import print_dry_run, print_ingest_report
from stair_es.ingest.accounting.report import FailureReason, IngestReport
from stair_es.ingest.dry_run import DryRunReport


def build_report(**more: Any) -> IngestReport:  # noqa: ANN401  of each field
    counts = {"seen": 10, "written": 4, "unchanged": 0, "failed": 6, "forgotten": 0, "removed": 0, "documents": 4}
    requests = {"bulk_requests": 1, "bulk_retries": 0, "seconds": 1.0, "stage_seconds": {}}
    names = {"index": "photos-1", "alias": "photos", "model": "m-1", "runner": "local", "dead_letters": "d.jsonl"}
    times = {"encoder_idle": None, "start_seconds": 0.5}
    swap = {"swapped": False, "not_swapped_reason": "", "deleted_indices": ()}
    return IngestReport(**{**counts, **requests, **names, **times, **swap, **more})


def test_reasons_have_an_example_and_the_others_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = (
        FailureReason(stage="read", reason="no such host", images=3, example="http://h/1.jpg"),
        FailureReason(stage="decode", reason="cut off", images=1, example="file:///[b]2.jpg"),
    )
    command = "stair-es ingest --retry-failed d.jsonl --index photos"
    print_ingest_report(build_report(failure_reasons=reasons), command)
    *_, first, second, others, dead_letters, retry = capsys.readouterr().out.splitlines()
    for line, reason in ((first, reasons[0]), (second, reasons[1])):
        facts = (reason.stage, f" {reason.images}:", reason.reason, reason.example)
        assert not [fact for fact in facts if fact not in line], line
    assert re.findall(r"\d+", others) == ["2"]
    assert (dead_letters.split()[-1], retry.endswith(f": {command}")) == ("d.jsonl", True)
    print_ingest_report(build_report(failed=0, dead_letters=None), command)
    assert command not in capsys.readouterr().out


def test_dry_run_lists_documents_to_remove(capsys: pytest.CaptureFixture[str]) -> None:
    uris = tuple(f"file:///{number}.jpg" for number in range(23))
    report = DryRunReport(
        seen=1,
        new=1,
        changed=0,
        unchanged=0,
        unknown=0,
        unlisted=0,
        forgotten=0,
        stale=len(uris),
        stale_uris=uris,
        index="photos-1",
    )
    print_dry_run(report, "photos")
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip() for line in lines[-21:-1]] == [*uris[:20]]
    assert (re.findall(r"\d+", lines[-1]), "--json" in lines[-1]) == (["3"], True)
    assert tuple(report.to_dict()["stale_uris"]) == uris
