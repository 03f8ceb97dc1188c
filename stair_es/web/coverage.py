"""The report of `stair-es coverage --json`, as the page shows it: read once, checked, and cut."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from stair_es.errors import UsageError

MAX_REPORT_BYTES = 16 * 1024 * 1024
MAX_ROWS = 1000
"""Words and searches that the page gets of each table: all visitors download them, and browsers render them."""
_REMEDY = "Write one: stair-es coverage LOG --json > coverage.json"


class Answer(Struct, frozen=True, kw_only=True):
    """The searches with a kind of answer."""

    searches: int
    share: float
    queries: int


class Word(Struct, frozen=True, kw_only=True):
    """A word that lacks something."""

    word: str
    searches: int
    share: float
    matched: int
    example: str
    largest_weight: float | None
    suggestions: list[str]
    searched_for: str | None


class UnmatchedSearch(Struct, frozen=True, kw_only=True):
    """A search without a match."""

    query: str
    searches: int
    answer: str
    code: str


class CoverageReport(Struct, frozen=True, kw_only=True):
    """What the page shows of a report."""

    index: str
    model: str
    searches: int
    queries: int
    answers: dict[str, Answer]
    words: dict[str, list[Word]]
    without_match: list[UnmatchedSearch]
    remarks: list[str]

    def find_difference(self, index: str, model: str) -> str:
        """Return a remark if the report is of another index or model than these; otherwise an empty text."""
        if (self.index, self.model) == (index, model):
            return ""
        return f"the coverage report is of index {self.index!r} and model {self.model!r}, not of {index!r} and {model!r}"


def read_coverage_report(path: Path) -> CoverageReport:
    """Read a report, at most `MAX_ROWS` of each of its tables.

    Raises:
        UsageError: If the file can't be read, is too large, or isn't such a report.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_REPORT_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"can't read the coverage report {str(path)!r}: {error.strerror}", _REMEDY, code="coverage-report-unreadable"
        ) from None
    if len(data) > MAX_REPORT_BYTES:
        raise UsageError(
            f"the coverage report {str(path)!r} is larger than {MAX_REPORT_BYTES:,} bytes",
            "Measure fewer searches, the most frequent ones: sort searches.log | uniq -c | sort -rn | head -10000",
            code="coverage-report-too-large",
        )
    try:
        report = msgspec.json.decode(data, type=CoverageReport)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f"{str(path)!r} is not a coverage report: {str(error)[:200]}", _REMEDY, code="not-a-coverage-report"
        ) from None
    return _cut_tables(report)


def _cut_tables(report: CoverageReport) -> CoverageReport:
    longest = max([len(report.without_match), *map(len, report.words.values())])
    if longest <= MAX_ROWS:
        return report
    return msgspec.structs.replace(
        report,
        words={gap: words[:MAX_ROWS] for gap, words in report.words.items()},
        without_match=report.without_match[:MAX_ROWS],
        remarks=[*report.remarks, f"the page has the first {MAX_ROWS:,} rows of each table; the report has all"],
    )
