"""The reports of `query.py` as tables, with the goals."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from query_questions import IMAGE_WORDS
from result import Ratio, ReportTable, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from query_measure import Report, Row

BM25, WHOLE, AS_SENT, SEISMIC = "BM25", "rank_features", "as Searcher", "SEISMIC"
MAX_BM25, MAX_KNN, MIN_RECALL = 1.5, 0.5, 0.99
MAX_MS, MILLION = 10.0, 1_000_000
MAX_SEISMIC_KNN, MAX_SEISMIC_MS = 1.0, 5.0
TEXT = 10
"""Words of a usual text."""
SIDES = (
    ("STAIR words", "tokens", WHOLE),
    ("BM25 on the same words", "bm25", BM25),
    ("dense kNN (HNSW)", "dense", "kNN"),
    ("SEISMIC beside STAIR words", "seismic", SEISMIC),
)


def result(reports: Sequence[Report], about: str) -> Result:
    """All corpora."""
    return Result(
        about=about,
        tables=tuple(table for report in reports for table in _tables(report)),
        ratios=tuple(ratio for report in reports for ratio in _ratios(report)),
        remarks=_remarks(reports),
        figures={"reports": [asdict(report) for report in reports]},
    )


def _tables(report: Report) -> Iterator[ReportTable]:
    yield _sides(report)
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
    head = ("index", "docs/s", "merge, s", "bytes a document", "heap in use so far, MB", "segments")
    yield ReportTable(heading=f"{report.docs:,} documents, {report.engine}", head=head, rows=rows)
    yield _ways(report, "best, ms · recall@10 · within 9 bits", _best)
    yield _ways(report, "p50 / p95 / p99, ms", _percentiles)
    yield _goals(report)


def _sides(report: Report) -> ReportTable:
    """The short of it: one line for each of the three."""
    head = (
        "",
        "indexing, docs/s",
        "docs/s with the merge",
        "bytes a document",
        f"text of {TEXT} words, ms",
        "image, ms",
        "recall@10 within 9 bits: text / image",
        "R@1/5/10, photographs",
    )
    rows = []
    for name, kind, way in SIDES:
        if kind in report.loaded:
            loaded, found = report.loaded[kind], [_row_of(report, way, features) for features in (TEXT, IMAGE_WORDS)]
            times = (f"{row.best_p50_ms:.2f}" if row else "n/a" for row in found)
            recall = " / ".join(
                "n/a" if row is None or row.recall_9_bits is None else f"{row.recall_9_bits:.3f}" for row in found
            )
            photos = " / ".join(f"{value:.1f}" for value in report.photos.get(kind, ())) or "not run"
            speeds = (f"{loaded.docs_per_s:,.0f}", f"{_until_merged(report, kind):,.0f}", f"{loaded.bytes_a_document:.0f}")
            rows.append((name, *speeds, *times, recall, photos))
    return ReportTable(heading=f"Side by side, {report.docs:,} documents in one node", head=head, rows=tuple(rows))


def _row_of(report: Report, way: str, features: int) -> Row | None:
    """Of kNN the quickest that finds 99 % of the ten best."""
    if way == "kNN":
        return baselines(report, features)[1]
    return next((row for row in report.rows if row.features == features and row.way == way), None)


def _until_merged(report: Report, kind: str) -> float:
    loaded = report.loaded[kind]
    return report.docs / (report.docs / loaded.docs_per_s + loaded.merge_s)


def _remarks(reports: Sequence[Report]) -> tuple[str, ...]:
    said = [
        "Times are the median over the questions of the best round, of whole requests over one connection. The figures of kNN "
        "are of the quickest `ef_search` that finds 99 % of the exact ten.",
        "BM25 has the words of an image without their weights. Over captions it would be asked with one that is in the index.",
    ]
    if images := [row.words for report in reports for row in report.rows if (row.features, row.way) == (IMAGE_WORDS, WHOLE)]:
        said.append(f"An image that is asked with has all its words, {images[0]:.0f} on average.")
    if not any(report.photos for report in reports):
        said.append("Retrieval on photographs didn't run: pass --stamps.")
    return tuple(said)


def _ways(report: Report, title: str, cell: Callable[[Row], str]) -> ReportTable:
    """A row a way, a column for each number of words."""
    columns = sorted({row.features for row in report.rows})
    names = dict.fromkeys(row.way for row in report.rows)
    found = {(row.way, row.features): cell(row) for row in report.rows}
    rows = tuple((name, *(found[name, count] for count in columns)) for name in names)
    return ReportTable(head=(title, *(count_words(count) for count in columns)), rows=rows)


def count_words(features: int) -> str:
    """Return what a table calls questions of so many words."""
    return "an image" if features == IMAGE_WORDS else f"{features} words"


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


def _goals(report: Report) -> ReportTable:
    head = ("question", "way", "best", "at most 1.5 x BM25", "at most half of kNN", "at most 10 ms")
    rows = []
    for features in sorted({row.features for row in report.rows}):
        bm25, knn = baselines(report, features)
        ours = [r for r in report.rows if r.features == features and not r.way.startswith((BM25, "kNN", AS_SENT))]
        exact = [row for row in ours if (row.recall_9_bits or 0) >= MIN_RECALL]
        quickest = min(exact, key=lambda row: row.best_p50_ms)
        for row in dict.fromkeys((next(row for row in ours if row.way == WHOLE), quickest)):
            to_bm25 = _met(row.best_p50_ms / bm25.best_p50_ms, MAX_BM25)
            half = _met(row.best_p50_ms / knn.best_p50_ms, MAX_KNN) if knn else ""
            best = f"{row.best_p50_ms:.2f}"
            rows.append((count_words(features), row.way, best, to_bm25, half, _met(row.best_p50_ms, MAX_MS)))
    return ReportTable(head=head, rows=tuple(rows))


def _met(value: float, limit: float) -> str:
    return f"{value:.2f}, {'met' if value <= limit else 'not met'}"


def _ratios(report: Report) -> Iterator[Ratio]:
    """Of the search that leaves nothing out."""
    size = f"{report.docs:,} documents"
    for features in sorted({row.features for row in report.rows}):
        ours, (bm25, knn) = _row_of(report, WHOLE, features), baselines(report, features)
        assert ours is not None
        what, ms = f"time of a search of {count_words(features)}, {size}", ours.best_p50_ms
        yield Ratio(what=what, against="BM25 on the same words", value=ms / bm25.best_p50_ms, goal=MAX_BM25, at_most=True)
        if knn:
            against = "dense kNN (HNSW) of recall 0.99"
            yield Ratio(what=what, against=against, value=ms / knn.best_p50_ms, goal=MAX_KNN, at_most=True)
        if report.docs >= MILLION:
            yield Ratio(
                what=f"ms of a search of {count_words(features)}, {size}", against="", value=ms, goal=MAX_MS, at_most=True
            )
    yield from _ratios_of_seismic(report)
    for name, kind, _ in SIDES[1:]:
        if kind in report.loaded:
            speed = _until_merged(report, "tokens") / _until_merged(report, kind)
            size_ratio = report.loaded["tokens"].bytes_a_document / report.loaded[kind].bytes_a_document
            yield Ratio(what=f"indexing with the merge, docs/s, {size}", against=name, value=speed)
            yield Ratio(what=f"bytes a document, {size}", against=name, value=size_ratio, at_most=True)
        if kind in report.photos:
            first = report.photos["tokens"][0] / report.photos[kind][0]
            yield Ratio(what="R@1 by the engine, text -> image, photographs", against=name, value=first)


def _ratios_of_seismic(report: Report) -> Iterator[Ratio]:
    """Of an image as the question."""
    seismic, exact = (_row_of(report, way, IMAGE_WORDS) for way in (SEISMIC, WHOLE))
    if seismic is None or exact is None:
        return
    what, ms = f"time of a search by SEISMIC of an image, {report.docs:,} documents", seismic.best_p50_ms
    yield Ratio(what=what, against="rank_features, which is exact", value=ms / exact.best_p50_ms, at_most=True)
    _, knn = baselines(report, IMAGE_WORDS)
    if knn:
        against = "dense kNN (HNSW) of recall 0.99"
        yield Ratio(what=what, against=against, value=ms / knn.best_p50_ms, goal=MAX_SEISMIC_KNN, at_most=True)
    recall = f"recall@10 within 9 bits of an image by SEISMIC, {report.docs:,} documents"
    yield Ratio(what=recall, against="", value=seismic.recall_9_bits or 0.0, goal=MIN_RECALL)
    if report.docs >= MILLION:
        yield Ratio(what=what.replace("time", "ms", 1), against="", value=ms, goal=MAX_SEISMIC_MS, at_most=True)
