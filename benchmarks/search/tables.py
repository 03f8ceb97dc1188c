"""The reports of `query.py` as tables, with the goals."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from harness.result import Ratio, ReportTable, Result

from search.queries import IMAGE, TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from search.measure import Report, Row

BM25, WHOLE, AS_SENT = "BM25", "rank_features", "as Searcher"
MAX_BM25, MAX_KNN, MIN_RECALL = 1.2, 0.5, 0.99
MAX_MS, MILLION = 10.0, 1_000_000
SIDES = (
    ("token weights", "tokens", WHOLE),
    ("BM25 on the same tokens", "bm25", BM25),
    ("dense kNN (HNSW)", "dense", "kNN"),
)


def build_result(reports: Sequence[Report], about: str) -> Result:
    """Return the tables and ratios of all corpora."""
    return Result(
        about=about,
        tables=tuple(table for report in reports for table in _build_tables(report)),
        ratios=tuple(ratio for report in reports for ratio in _build_ratios(report)),
        remarks=_build_remarks(reports),
        figures={"reports": [asdict(report) for report in reports]},
    )


def _build_tables(report: Report) -> Iterator[ReportTable]:
    yield _build_summary(report)
    rows = tuple(
        (
            name,
            f"{loaded.docs_per_s:,.0f}",
            f"{loaded.merge_s:.1f}",
            f"{loaded.bytes_a_document:.0f}",
            f"{loaded.heap_mb:.0f}",
            f"{report.segments[name]}",
        )
        for name, loaded in report.loaded.items()
    )
    head = ("index", "docs/s", "merge, s", "bytes per document", "peak heap in use, MB", "segments")
    yield ReportTable(heading=f"{report.docs:,} documents, {report.engine}", head=head, rows=rows)
    yield _build_arm_table(report, "best, ms · recall@10 · within 9 bits", _format_best)
    yield _build_arm_table(report, "p50 / p95 / p99, ms", _format_percentiles)
    yield _build_goals(report)


def _build_summary(report: Report) -> ReportTable:
    """Return one row for each of the sides."""
    head = (
        "",
        "indexing, docs/s",
        "docs/s including the merge",
        "bytes per document",
        "text, ms",
        "image, ms",
        "recall@10 within 9 bits: text / image",
        "R@1/5/10, photographs",
    )
    rows = []
    for name, kind, arm in SIDES:
        if kind in report.loaded:
            loaded, found = report.loaded[kind], [_find_row(report, arm, size) for size in (TEXT, IMAGE)]
            times = (f"{row.best_p50_ms:.2f}" if row else "n/a" for row in found)
            recall = " / ".join(
                "n/a" if row is None or row.recall_9_bits is None else f"{row.recall_9_bits:.3f}" for row in found
            )
            photos = " / ".join(f"{value:.1f}" for value in report.photos.get(kind, ())) or "not run"
            speeds = (f"{loaded.docs_per_s:,.0f}", f"{_compute_merged_rate(report, kind):,.0f}", f"{loaded.bytes_a_document:.0f}")
            rows.append((name, *speeds, *times, recall, photos))
    return ReportTable(heading=f"Comparison, {report.docs:,} documents in one node", head=head, rows=tuple(rows))


def _find_row(report: Report, arm: str, size: int) -> Row | None:
    """Return the row of an arm; for kNN, the row of the fastest arm that finds 99 % of the ten best."""
    if arm == "kNN":
        return find_baselines(report, size)[1]
    return next((row for row in report.rows if row.size == size and row.arm == arm), None)


def _compute_merged_rate(report: Report, kind: str) -> float:
    loaded = report.loaded[kind]
    return report.docs / (report.docs / loaded.docs_per_s + loaded.merge_s)


def _build_remarks(reports: Sequence[Report]) -> tuple[str, ...]:
    remarks = [
        "Times are for whole requests over one connection: the median over the queries, in the best round. The figures of kNN "
        "are those of the fastest `ef_search` that finds 99 % of the exact ten best hits.",
        "BM25 indexes the tokens of an image without their weights. With captions, the query itself would be in the index.",
    ]
    for size in (TEXT, IMAGE):
        if clauses := [row.clauses for report in reports for row in report.rows if (row.size, row.arm) == (size, WHOLE)]:
            remarks.append(f"The column {describe_size(size)!r} has all tokens, {clauses[0]:.0f} on average.")
    for report in reports:
        counts = ", ".join(f"{describe_size(size)} {count:.3f}" for size, count in sorted(report.postings.items()))
        remarks.append(f"Postings of a query per document, {report.docs:,} documents: {counts}.")
    if not any(report.photos for report in reports):
        remarks.append("Retrieval on photographs didn't run: pass --tuxpaint.")
    return tuple(remarks)


def _build_arm_table(report: Report, title: str, cell: Callable[[Row], str]) -> ReportTable:
    """Return a row for each arm, with a column for each number of tokens."""
    columns = sorted({row.size for row in report.rows})
    names = dict.fromkeys(row.arm for row in report.rows)
    found = {(row.arm, row.size): cell(row) for row in report.rows}
    rows = tuple((name, *(found[name, count] for count in columns)) for name in names)
    return ReportTable(head=(title, *(describe_size(count) for count in columns)), rows=rows)


def describe_size(size: int) -> str:
    """Return the label of queries with this number of tokens."""
    return {TEXT: "text", IMAGE: "image query"}.get(size, f"{size} tokens")


def _format_best(row: Row) -> str:
    recall = "" if row.recall is None else f" · {row.recall:.3f} · {row.recall_9_bits:.3f}"
    return f"{row.best_p50_ms:.2f}{recall}"


def _format_percentiles(row: Row) -> str:
    return f"{row.p50_ms:.1f} / {row.p95_ms:.1f} / {row.p99_ms:.1f}"


def find_baselines(report: Report, size: int) -> tuple[Row, Row | None]:
    """Return BM25, and the fastest kNN that finds 99 % of the ten best."""
    rows = [row for row in report.rows if row.size == size]
    knn = [row for row in rows if row.arm.startswith("kNN") and (row.recall_9_bits or 0) >= MIN_RECALL]
    return next(row for row in rows if row.arm == BM25), min(knn, key=lambda row: row.best_p50_ms, default=None)


def _build_goals(report: Report) -> ReportTable:
    head = (
        "query",
        "method",
        "best",
        *(f"at most {goal:g} {unit}" for goal, unit in ((MAX_BM25, "x BM25"), (MAX_KNN, "x kNN"), (MAX_MS, "ms"))),
    )
    rows = []
    for size in sorted({row.size for row in report.rows}):
        bm25, knn = find_baselines(report, size)
        ours = [r for r in report.rows if r.size == size and not r.arm.startswith((BM25, "kNN", AS_SENT))]
        exact = [row for row in ours if (row.recall_9_bits or 0) >= MIN_RECALL]
        quickest = min(exact, key=lambda row: row.best_p50_ms)
        for row in dict.fromkeys((next(row for row in ours if row.arm == WHOLE), quickest)):
            to_bm25 = _format_goal(row.best_p50_ms / bm25.best_p50_ms, MAX_BM25)
            half = _format_goal(row.best_p50_ms / knn.best_p50_ms, MAX_KNN) if knn else ""
            best = f"{row.best_p50_ms:.2f}"
            rows.append((describe_size(size), row.arm, best, to_bm25, half, _format_goal(row.best_p50_ms, MAX_MS)))
    return ReportTable(head=head, rows=tuple(rows))


def _format_goal(value: float, limit: float) -> str:
    return f"{value:.2f}, {'met' if value <= limit else 'not met'}"


def _build_ratios(report: Report) -> Iterator[Ratio]:
    """Yield the ratios of the search with all tokens."""
    docs = f"{report.docs:,} documents"
    for size in sorted({row.size for row in report.rows}):
        ours, (bm25, knn) = _find_row(report, WHOLE, size), find_baselines(report, size)
        assert ours is not None
        what, ms = f"search time, {describe_size(size)}, {docs}", ours.best_p50_ms
        yield Ratio(what=what, against="BM25 on the same tokens", value=ms / bm25.best_p50_ms, goal=MAX_BM25, at_most=True)
        if knn:
            against = "dense kNN (HNSW) with recall 0.99"
            yield Ratio(what=what, against=against, value=ms / knn.best_p50_ms, goal=MAX_KNN, at_most=True)
        if report.docs >= MILLION:
            yield Ratio(what=f"search time in ms, {describe_size(size)}, {docs}", against="", value=ms, goal=MAX_MS, at_most=True)
    for name, kind, _ in SIDES[1:]:
        if kind in report.loaded:
            speed = _compute_merged_rate(report, "tokens") / _compute_merged_rate(report, kind)
            size_ratio = report.loaded["tokens"].bytes_a_document / report.loaded[kind].bytes_a_document
            yield Ratio(what=f"indexing including the merge, docs/s, {docs}", against=name, value=speed)
            yield Ratio(what=f"bytes per document, {docs}", against=name, value=size_ratio, at_most=True)
        if kind in report.photos:
            first = report.photos["tokens"][0] / report.photos[kind][0]
            yield Ratio(what="R@1 of the engine, text -> image, photographs", against=name, value=first)
