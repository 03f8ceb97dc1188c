"""The report of `query.py` as Markdown, with the goals."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from query_measure import Report, Row

BM25, WHOLE, AS_SENT = "BM25", "rank_features", "as Searcher"
MAX_BM25, MAX_KNN, MIN_RECALL = 1.5, 0.5, 0.99
MAX_MS = 10.0


def show(report: Report) -> str:
    """The indices, the times, the goals."""
    times = _ways(report, "best, ms · recall@10 · within 9 bits", _best)
    percentiles = _ways(report, "p50 / p95 / p99, ms", _percentiles)
    return "\n".join([*_head(report), "", *times, "", *percentiles, "", *_goals(report)])


def _head(report: Report) -> list[str]:
    rows = [f"### {report.docs:,} documents, {report.engine}", "", "| index | docs/s | merge, s | bytes a document | segments |"]
    rows.append("|---|---|---|---|---|")
    for name, loaded in report.loaded.items():
        figures = f"{loaded.docs_per_s:,.0f} | {loaded.merge_s:.0f} | {loaded.bytes_a_document:.0f}"
        rows.append(f"| {name} | {figures} | {report.segments[name]} |")
    return rows


def _ways(report: Report, title: str, cell: Callable[[Row], str]) -> list[str]:
    """A row a way, a column for each number of words."""
    columns = sorted({row.features for row in report.rows})
    names = dict.fromkeys(row.way for row in report.rows)
    found = {(row.way, row.features): cell(row) for row in report.rows}
    rows = [f"| {title} | " + " | ".join(f"{count} words" for count in columns) + " |", "|---" * (1 + len(columns)) + "|"]
    return [*rows, *(f"| {name} | " + " | ".join(found[name, count] for count in columns) + " |" for name in names)]


def _best(row: Row) -> str:
    recall = "" if row.recall is None else f" · {row.recall:.3f} · {row.recall_9_bits:.3f}"
    return f"{row.best_p50_ms:.2f}{recall}"


def _percentiles(row: Row) -> str:
    return f"{row.p50_ms:.1f} / {row.p95_ms:.1f} / {row.p99_ms:.1f}"


def baselines(report: Report, features: int) -> tuple[Row, Row | None]:
    """BM25, and the quickest kNN that finds 99 % of the ten best."""
    rows = [row for row in report.rows if row.features == features]
    knn = [row for row in rows if row.way.startswith("kNN") and (row.recall_9_bits or 0) >= MIN_RECALL]
    return next(row for row in rows if row.way == BM25), min(knn, key=lambda row: row.best_p50_ms, default=None)


def _goals(report: Report) -> list[str]:
    rows = ["| words | way | best | at most 1.5 x BM25 | at most half of kNN | at most 10 ms |", "|---|---|---|---|---|---|"]
    for features in sorted({row.features for row in report.rows}):
        bm25, knn = baselines(report, features)
        ours = [r for r in report.rows if r.features == features and not r.way.startswith((BM25, "kNN", AS_SENT))]
        exact = [row for row in ours if (row.recall_9_bits or 0) >= MIN_RECALL]
        quickest = min(exact, key=lambda row: row.best_p50_ms)
        for row in dict.fromkeys((next(row for row in ours if row.way == WHOLE), quickest)):
            to_bm25 = _met(row.best_p50_ms / bm25.best_p50_ms, MAX_BM25)
            half = _met(row.best_p50_ms / knn.best_p50_ms, MAX_KNN) if knn else ""
            figures = f"{row.best_p50_ms:.2f} | {to_bm25} | {half} | {_met(row.best_p50_ms, MAX_MS)}"
            rows.append(f"| {features} | {row.way} | {figures} |")
    return rows


def _met(value: float, limit: float) -> str:
    return f"{value:.2f}, {'met' if value <= limit else 'not met'}"
