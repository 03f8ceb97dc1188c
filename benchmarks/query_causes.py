"""What makes a search over `rank_features` slow or quick on the engine's side: the same questions, asked in other ways.

    python benchmarks/query_causes.py --docs 100000

As `query.py` measures, on one node and in turns. All rows but `terminate_after` find the same documents.
"""

from __future__ import annotations

import base64
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from common import options, publish
from query import node
from query_arms import MAX_CLAUSES, Arm, whole
from query_corpus import load
from query_load import Http, Kind, kinds
from query_load import load as load_index
from query_measure import Row, measure
from query_questions import FEATURES, Exact, all_questions
from query_table import count_words
from result import ReportTable, Result

from stair_es.cluster.index.mappings import merge_bodies
from stair_es.search.query import SearchQuery
from stair_es.search.request import build_search_request
from stair_es.types import Floats, SparseVector

Body = dict[str, Any]
THUMBNAIL_BYTES = 2470  # as base64, what the bundled photos' thumbnails have on average
_MODE = "search.concurrent_segment_search.mode"


def indices() -> dict[str, tuple[Kind, bool]]:
    """Name -> kind, and whether it is merged to one segment."""
    tokens = kinds(())["tokens"]
    codec = {"settings": {"index": {"codec": "best_compression"}}}
    many = {"settings": {"index": {"merge.policy.max_merged_segment": "16mb", "refresh_interval": "1s"}}}
    by_word = {
        "settings": {"index": {"sort.field": ["top_word"], "sort.order": ["asc"]}},
        "mappings": {"properties": {"top_word": {"type": "keyword"}}},
    }
    picture = {"mappings": {"properties": {"thumbnail": {"type": "keyword", "index": False, "doc_values": False}}}}

    def with_top_word(vector: SparseVector, dense: Floats | None) -> Body:
        return {**tokens.fields(vector, dense), "top_word": vector.tokens[0]}

    def with_thumbnail(vector: SparseVector, dense: Floats | None) -> Body:
        rng = np.random.default_rng(zlib.crc32(repr(vector).encode()))
        return {**tokens.fields(vector, dense), "thumbnail": base64.b64encode(rng.bytes(THUMBNAIL_BYTES)).decode()}

    made = {
        "tokens": (tokens.body, tokens.fields),
        "several": (merge_bodies(tokens.body, many), tokens.fields),
        "ordered": (merge_bodies(tokens.body, by_word), with_top_word),
        "zlib": (merge_bodies(tokens.body, codec), tokens.fields),
        "pictures": (merge_bodies(tokens.body, picture), with_thumbnail),
        "pictures-zlib": (merge_bodies(merge_bodies(tokens.body, picture), codec), with_thumbnail),
    }
    return {name: (Kind(name=name, body=body, fields=fields), name != "several") for name, (body, fields) in made.items()}


def ways() -> list[Arm]:
    """The first is what the others are compared with."""

    def arm(name: str, change: Callable[[Body], Body], kind: str = "tokens") -> Arm:
        return Arm(name=name, kind=kind, body=lambda vector, _dense: change(whole(vector)))

    def filtered(body: Body) -> Body:
        return {**body, "query": {"bool": {"must": [body["query"]], "filter": [{"exists": {"field": "uri"}}]}}}

    def narrow(body: Body) -> Body:
        return {
            **body,
            "query": {"bool": {"must": [body["query"]], "filter": [{"prefix": {"uri": "s3://photos-of-the-archive/2026/00"}}]}},
        }

    order = [{"_score": "desc"}, {"uri": {"order": "asc", "unmapped_type": "keyword"}}]
    documents = {"_source": {"excludes": ["thumbnail"]}}
    return [
        arm("plain", lambda body: body),
        arm("total order (_score, uri)", lambda body: {**body, "sort": order}),
        arm("with documents", lambda body: {**body, "_source": True}),
        arm("with documents, without one field", lambda body: {**body, **documents}),
        arm("ids alone, zlib", lambda body: body, "zlib"),
        arm("with documents, zlib", lambda body: {**body, "_source": True}, "zlib"),
        arm("with documents, without one field, zlib", lambda body: {**body, **documents}, "zlib"),
        arm("with documents and thumbnails", lambda body: {**body, "_source": True}, "pictures"),
        arm("with documents, without thumbnails", lambda body: {**body, **documents}, "pictures"),
        arm("with documents and thumbnails, zlib", lambda body: {**body, "_source": True}, "pictures-zlib"),
        arm("with documents, without thumbnails, zlib", lambda body: {**body, **documents}, "pictures-zlib"),
        arm("with uri by doc values", lambda body: {**body, "docvalue_fields": ["uri"]}),
        Arm(
            name="as Searcher sends it",
            kind="tokens",
            body=lambda v, _: build_search_request(SearchQuery(vector=v), "rank_features", max_clauses=MAX_CLAUSES).body,
        ),
        arm("track_total_hits true", lambda body: {**body, "track_total_hits": True}),
        arm(
            "track_total_hits left out (10,000)",
            lambda body: {name: value for name, value in body.items() if name != "track_total_hits"},
        ),
        arm("100 hits", lambda body: {**body, "size": 100}),
        arm("filter that all match", filtered),
        Arm(name="filter that 1 % match", kind="tokens", body=lambda v, _: narrow(whole(v)), truth=None),
        arm("terminate_after 10000", lambda body: {**body, "terminate_after": 10_000}),
        arm("sorted by the heaviest word", lambda body: body, "ordered"),
        arm("several segments", lambda body: body, "several"),
    ]


def main() -> None:
    """Load, measure, print."""
    parser = options(__doc__)
    parser.add_argument("--docs", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--url", help="a cluster of yours; else a node is started")
    parser.add_argument("--heap", default="2g")
    parser.add_argument("--plugins", action="store_true", help="OpenSearch 3.6.0 with plugins, instead of the embedded version")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "stair-es-corpora")
    given = parser.parse_args()
    corpus, documents = load(given.docs, given.cache)
    exact = Exact(corpus, documents)
    prefix = f"bench-{uuid4().hex[:8]}"
    with node(given) as http:
        for name, (kind, merge) in indices().items():
            load_index(http, f"{prefix}-{name}", kind, corpus, documents, merge=merge)
        segments = http.ask("GET", f"/_cat/segments/{prefix}-several?format=json&h=docs.count")
        found: list[list[Row]] = []
        asked = all_questions(corpus, FEATURES, given.questions)
        for questions in asked:  # until the JVM has compiled what there is to compile
            measure(http, prefix, [replace(way, truth=None) for way in ways()], questions, {}, rounds=0)
        for questions in asked:
            truths = {"tokens": [exact.truth(vector) for vector in questions.vectors]}
            rows = measure(http, prefix, ways(), questions, truths)
            rows += _modes(http, prefix, questions, truths)
            found.append(rows)
    about = f"{given.docs:,} documents, {given.questions} questions for each number of words; several segments: {len(segments)}"
    head = ("question", "way", "best", "p50", "p95", "p99", "recall@10 within 9 bits", "x plain")
    lines = ReportTable(head=head, rows=tuple(line for rows in found for line in _lines(rows)))
    publish(Result(about=about, tables=(lines,), figures={"rows": [vars(row) for rows in found for row in rows]}), given.json)


def _modes(http: Http, prefix: str, questions: Any, truths: Any) -> list[Row]:  # noqa: ANN401  as in `measure`
    """Segments one after the other, and at a time."""
    rows = []
    for mode in ("none", "all"):
        http.ask("PUT", f"/{prefix}-several/_settings", {f"index.{_MODE}": mode})
        way = Arm(name=f"several segments, concurrent: {mode}", kind="several", body=lambda vector, _dense: whole(vector))
        plain = Arm(name="plain", kind="tokens", body=lambda vector, _dense: whole(vector))
        rows += [row for row in measure(http, prefix, [plain, way], questions, truths) if row.way != "plain"]
    http.ask("PUT", f"/{prefix}-several/_settings", {f"index.{_MODE}": None})
    return rows


def _lines(rows: list[Row]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        recall = "" if row.recall_9_bits is None else f"{row.recall_9_bits:.3f}"
        times = (f"{value:.2f}" for value in (row.best_p50_ms, row.p50_ms, row.p95_ms, row.p99_ms))
        yield (count_words(row.features), row.way, *times, recall, f"{row.best_p50_ms / rows[0].best_p50_ms:.2f}")


if __name__ == "__main__":
    main()
