"""The report of coverage that the page shows, read from a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.errors import expect_error
from support.servers.coverage_reports import build_report

from stair_es.errors import UsageError
from stair_es.web import coverage
from stair_es.web.coverage import read_coverage_report


def test_long_tables_are_cut_with_a_remark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "MAX_ROWS", 2)
    path = tmp_path / "coverage.json"
    for words, count, remark_count in (([], 0, 0), (["a", "b"], 2, 0), (["a", "b", "c"], 2, 1)):
        path.write_text(json.dumps(build_report(words)))
        report = read_coverage_report(path)
        assert [len(report.words["unknown"]), len(report.without_match), len(report.remarks)] == [count, count, remark_count]
        assert (report.searches, report.answers["nothing"].queries) == (len(words), len(words))


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(None, "coverage-report-unreadable", id="missing"),
        pytest.param(b"", "not-a-coverage-report", id="empty"),
        pytest.param(b"# photos: 12 searches", "not-a-coverage-report", id="Markdown"),
        pytest.param(b"\xff\xfe{\x00}\x00", "not-a-coverage-report", id="UTF-16"),
        pytest.param(b"[" * 100_000, "not-a-coverage-report", id="nested"),
        pytest.param(b"null", "not-a-coverage-report", id="null"),
        pytest.param(b'{"index": "photos", "model": "stair-mini-3", "rows": []}', "not-a-coverage-report", id="another report"),
        pytest.param(json.dumps({**build_report([]), "words": [1]}).encode(), "not-a-coverage-report", id="another type"),
        pytest.param(json.dumps({**build_report([]), "searches": "1"}).encode(), "not-a-coverage-report", id="text for a number"),
        pytest.param(b" " * 2001, "coverage-report-too-large", id="too large"),
    ],
)
def test_other_files_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, code: str) -> None:
    path = tmp_path / "coverage.json"
    if code == "coverage-report-too-large":
        monkeypatch.setattr(coverage, "MAX_REPORT_BYTES", 2000)
    if content is not None:
        path.write_bytes(content)
    with expect_error(code, UsageError) as caught:
        read_coverage_report(path)
    assert "coverage.json" in str(caught.value)


def test_a_folder_is_no_report(tmp_path: Path) -> None:
    with expect_error("coverage-report-unreadable", UsageError):
        read_coverage_report(tmp_path)
