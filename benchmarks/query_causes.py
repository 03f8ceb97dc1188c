"""Measure what makes a search over `rank_features` slow or fast in the engine: the same queries with different requests.

    python benchmarks/query_causes.py --docs 100000

Measured like `query.py`, on one node and alternating. All rows except `terminate_after` find the same documents.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import numpy as np
from harness.http import Body, Http
from harness.program import build_parser, publish_result
from harness.result import ReportTable, Result
from search.arms import MAX_CLAUSES, Arm, build_tokens_request
from search.corpus import add_corpus_options, load_corpus
from search.indices import Kind, build_kinds, load_index
from search.measure import Row, measure_arms
from search.nodes import open_node
from search.queries import QUERY_SIZES, ExactSearch, make_queries
from search.tables import describe_size
from search.variants import THUMBNAIL_BYTES

from stair_es.cluster.index.mappings import merge_bodies
from stair_es.search.query import SearchQuery
from stair_es.search.request import build_search_request
from stair_es.types import Floats, SparseVector

_MODE = "search.concurrent_segment_search.mode"


def build_indices() -> dict[str, tuple[Kind, bool]]:
    """Return each index by name, and whether it is merged to one segment."""
    tokens = build_kinds()["tokens"]
    codec = {"settings": {"index": {"codec": "best_compression"}}}
    many = {"settings": {"index": {"merge.policy.max_merged_segment": "16mb", "refresh_interval": "1s"}}}
    by_token = {
        "settings": {"index": {"sort.field": ["top_token"], "sort.order": ["asc"]}},
        "mappings": {"properties": {"top_token": {"type": "keyword"}}},
    }
    picture = {"mappings": {"properties": {"thumbnail": {"type": "keyword", "index": False, "doc_values": False}}}}

    def with_top_token(vector: SparseVector, dense: Floats | None) -> Body:
        return {**tokens.fields(vector, dense), "top_token": vector.tokens[0]}

    def with_thumbnail(vector: SparseVector, dense: Floats | None) -> Body:
        rng = np.random.default_rng(zlib.crc32(repr(vector).encode()))
        return {**tokens.fields(vector, dense), "thumbnail": base64.b64encode(rng.bytes(THUMBNAIL_BYTES)).decode()}

    made = {
        "tokens": (tokens.body, tokens.fields),
        "several": (merge_bodies(tokens.body, many), tokens.fields),
        "ordered": (merge_bodies(tokens.body, by_token), with_top_token),
        "zlib": (merge_bodies(tokens.body, codec), tokens.fields),
        "pictures": (merge_bodies(tokens.body, picture), with_thumbnail),
        "pictures-zlib": (merge_bodies(merge_bodies(tokens.body, picture), codec), with_thumbnail),
    }
    return {name: (Kind(name=name, body=body, fields=fields), name != "several") for name, (body, fields) in made.items()}


def build_arms() -> list[Arm]:
    """Return all arms; the others are compared with the first."""

    def make_arm(name: str, change: Callable[[Body], Body], kind: str = "tokens") -> Arm:
        return Arm(name=name, kind=kind, body=lambda vector, _dense: change(build_tokens_request(vector)))

    def add_filter(body: Body) -> Body:
        return {**body, "query": {"bool": {"must": [body["query"]], "filter": [{"exists": {"field": "uri"}}]}}}

    def add_narrow_filter(body: Body) -> Body:
        return {
            **body,
            "query": {"bool": {"must": [body["query"]], "filter": [{"prefix": {"uri": "s3://photos-of-the-archive/2026/00"}}]}},
        }

    order = [{"_score": "desc"}, {"uri": {"order": "asc", "unmapped_type": "keyword"}}]
    documents = {"_source": {"excludes": ["thumbnail"]}}
    return [
        make_arm("plain", lambda body: body),
        make_arm("total order (_score, uri)", lambda body: {**body, "sort": order}),
        make_arm("with documents", lambda body: {**body, "_source": True}),
        make_arm("with documents, without one field", lambda body: {**body, **documents}),
        make_arm("ids only, zlib", lambda body: body, "zlib"),
        make_arm("with documents, zlib", lambda body: {**body, "_source": True}, "zlib"),
        make_arm("with documents, without one field, zlib", lambda body: {**body, **documents}, "zlib"),
        make_arm("with documents and thumbnails", lambda body: {**body, "_source": True}, "pictures"),
        make_arm("with documents, without thumbnails", lambda body: {**body, **documents}, "pictures"),
        make_arm("with documents and thumbnails, zlib", lambda body: {**body, "_source": True}, "pictures-zlib"),
        make_arm("with documents, without thumbnails, zlib", lambda body: {**body, **documents}, "pictures-zlib"),
        make_arm("with uri by doc values", lambda body: {**body, "docvalue_fields": ["uri"]}),
        Arm(
            name="as Searcher sends it",
            kind="tokens",
            body=lambda v, _: build_search_request(SearchQuery(vector=v), "rank_features", max_clauses=MAX_CLAUSES).body,
        ),
        make_arm("track_total_hits true", lambda body: {**body, "track_total_hits": True}),
        make_arm(
            "without track_total_hits (10,000)",
            lambda body: {name: value for name, value in body.items() if name != "track_total_hits"},
        ),
        make_arm("100 hits", lambda body: {**body, "size": 100}),
        make_arm("filter that matches all", add_filter),
        Arm(
            name="filter that matches 1 %",
            kind="tokens",
            body=lambda v, _: add_narrow_filter(build_tokens_request(v)),
            truth=None,
        ),
        make_arm("terminate_after 10000", lambda body: {**body, "terminate_after": 10_000}),
        make_arm("sorted by the heaviest token", lambda body: body, "ordered"),
        make_arm("several segments", lambda body: body, "several"),
    ]


def main() -> None:
    """Run the benchmark, and print its result."""
    parser = build_parser(__doc__)
    parser.add_argument("--docs", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--url", help="your cluster (default: start a node)")
    parser.add_argument("--heap", default="2g")
    parser.add_argument("--plugins", action="store_true", help="OpenSearch 3.6.0 with plugins, instead of the embedded version")
    add_corpus_options(parser)
    args = parser.parse_args()
    corpus, documents = load_corpus(args.docs, args.cache, args.photos)
    exact = ExactSearch(corpus.vocabulary, documents.word_ids_NW, documents.weights_NW)
    prefix = f"bench-{uuid4().hex[:8]}"
    with open_node(args) as http:
        for name, (kind, merge) in build_indices().items():
            load_index(http, f"{prefix}-{name}", kind, corpus, documents, merge=merge)
        segments = http.request_json("GET", f"/_cat/segments/{prefix}-several?format=json&h=docs.count")
        found: list[list[Row]] = []
        all_queries = make_queries(corpus, QUERY_SIZES, args.queries)
        for queries in all_queries:  # until the JVM has compiled the hot code
            measure_arms(http, prefix, [replace(arm, truth=None) for arm in build_arms()], queries, {}, rounds=0)
        for queries in all_queries:
            truths = {"tokens": [exact.compute_truth(vector) for vector in queries.vectors]}
            rows = measure_arms(http, prefix, build_arms(), queries, truths)
            rows += _measure_modes(http, prefix, queries, truths)
            found.append(rows)
    about = f"{args.docs:,} documents, {args.queries} queries for each number of tokens; several segments: {len(segments)}"
    head = ("query", "method", "best", "p50", "p95", "p99", "recall@10 within 9 bits", "x plain")
    lines = ReportTable(head=head, rows=tuple(line for rows in found for line in _format_rows(rows)))
    publish_result(
        Result(about=about, tables=(lines,), figures={"rows": [vars(row) for rows in found for row in rows]}), args.json
    )


def _measure_modes(http: Http, prefix: str, queries: Any, truths: Any) -> list[Row]:  # noqa: ANN401  as in `measure`
    """Measure segments that are searched sequentially and concurrently."""
    rows = []
    for mode in ("none", "all"):
        http.request_json("PUT", f"/{prefix}-several/_settings", {f"index.{_MODE}": mode})
        arm = Arm(
            name=f"several segments, concurrent: {mode}", kind="several", body=lambda vector, _dense: build_tokens_request(vector)
        )
        plain = Arm(name="plain", kind="tokens", body=lambda vector, _dense: build_tokens_request(vector))
        rows += [row for row in measure_arms(http, prefix, [plain, arm], queries, truths) if row.arm != "plain"]
    http.request_json("PUT", f"/{prefix}-several/_settings", {f"index.{_MODE}": None})
    return rows


def _format_rows(rows: list[Row]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        recall = "" if row.recall_9_bits is None else f"{row.recall_9_bits:.3f}"
        times = (f"{value:.2f}" for value in (row.best_p50_ms, row.p50_ms, row.p95_ms, row.p99_ms))
        yield (describe_size(row.size), row.arm, *times, recall, f"{row.best_p50_ms / rows[0].best_p50_ms:.2f}")


if __name__ == "__main__":
    main()
