"""Measure search time and recall of the ten best hits: token weights compared with BM25 and dense kNN.

    python benchmarks/query.py --docs 10000 --docs 100000      # starts OpenSearch 3.6.0 with its plugins
    python benchmarks/query.py --tuxpaint DIR                  # also R@1/5/10 on photographs: see model_quality.py
    python benchmarks/query.py --docs 1000000 --no-knn         # without dense vectors, which take half an hour to index
    python benchmarks/query.py --no-knn                        # the embedded node's version, without plugins
    python benchmarks/query.py --url http://127.0.0.1:9200 --no-knn  # your own cluster

The corpus is generated (`query_corpus.py` describes how, and compares it with real photos). `--photos benchmarks/data/unseen`
makes documents with as many tokens as ordinary photographs have. The queries are real texts encoded with the model's text tower,
whole or with their heaviest tokens, the same texts with as many tokens as a distilled model has (64 and 128), and images
(`search/queries.py`). The index has one shard, merged to one segment unless `--unmerged`. One client uses one connection. All
methods are warmed up. They alternate in random order for each query, so that other load on the machine affects all of them
equally. Times are for the whole request, in ms. Percentiles are over all requests. "best" is the median over the queries of the
best of `--rounds` times, which makes it robust on a busy machine; ratios and goals use it.

Recall is measured against the exact ranking by all tokens of the query (for kNN: by the exact inner products). An engine keeps 9
bits of a weight. In the second figure, a document counts if its score is at most 0.39 % below the tenth best, for all methods
alike. The goals use this figure.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
from harness.http import Http
from harness.program import build_parser, publish_result, save_result
from retrieval.galleries import Gallery, read_photos
from search.arms import Arm, build_arms
from search.corpus import BATCH, Corpus, Documents, add_corpus_options, load_corpus
from search.indices import Kind, Loaded, build_kinds, delete_index, load_index
from search.measure import Report, Row, measure_arms
from search.nodes import open_node
from search.queries import QUERY_SIZES, SIMILAR_SIZES, ExactSearch, Queries, Truth, compute_dense_truth, make_queries
from search.tables import build_result

from stair_es.types import Floats

PHOTO_ARMS = {"tokens": "rank_features", "bm25": "BM25", "dense": "kNN ef 100"}


def compute_truths(
    corpus: Corpus, documents: Documents, queries: Queries, exact: ExactSearch, *, dense: bool
) -> dict[str, list[Truth]]:
    """Return the exact rankings."""
    sparse = [exact.compute_truth(vector) for vector in queries.vectors]
    if not dense:
        return {"tokens": sparse}
    vectors_ND = compute_dense_vectors(corpus, documents)
    return {"tokens": sparse, "dense": [compute_dense_truth(vectors_ND, query_D) for query_D in queries.dense_QD]}


def compute_dense_vectors(corpus: Corpus, documents: Documents) -> Floats:
    """Return the dense vectors of all documents."""
    starts = range(0, len(documents), BATCH)
    return np.concatenate([corpus.make_dense_vectors(documents.slice_rows(first, first + BATCH), first) for first in starts])


def measure_corpus(http: Http, docs: int, gallery: Gallery | None, args: argparse.Namespace) -> Report:
    """Load one corpus and measure."""
    prefix = f"bench-{uuid4().hex[:8]}"
    corpus, documents = load_corpus(docs, args.cache, args.photos)
    kinds = {name: kind for name, kind in build_kinds().items() if args.knn or not kind.dense}
    arms = build_arms(kinds)
    try:
        loaded = {name: _load_index(http, prefix, kind, corpus, documents, args) for name, kind in kinds.items()}
        exact = ExactSearch(corpus.vocabulary, documents.word_ids_NW, documents.weights_NW)
        rows: list[Row] = []
        all_queries = make_queries(corpus, (*QUERY_SIZES, *SIMILAR_SIZES), args.queries)
        for queries in all_queries:  # until the JVM has compiled the hot code
            measure_arms(http, prefix, [replace(arm, truth=None) for arm in arms], queries, {}, rounds=0)
        for queries in all_queries:
            answers = compute_truths(corpus, documents, queries, exact, dense=args.knn)
            rows += measure_arms(http, prefix, arms, queries, answers, rounds=args.rounds)
        postings = {queries.size: _count_postings(exact, queries) / docs for queries in all_queries}
        segments = {name: _count_segments(http, f"{prefix}-{name}") for name in kinds}
    finally:
        for name in kinds:
            delete_index(http, f"{prefix}-{name}")
    photos = _measure_photos(http, prefix, kinds, arms, gallery) if gallery else {}
    return Report(
        docs=docs, engine=_describe_engine(http), segments=segments, loaded=loaded, rows=rows, postings=postings, photos=photos
    )


def _measure_photos(http: Http, prefix: str, kinds: dict[str, Kind], arms: list[Arm], gallery: Gallery) -> dict[str, list[float]]:
    from search.photos import measure_recalls

    named = {arm.name: arm for arm in arms}
    return measure_recalls(
        http, prefix, kinds, {kind: named[name] for kind, name in PHOTO_ARMS.items() if kind in kinds}, gallery
    )


def _load_index(http: Http, prefix: str, kind: Kind, corpus: Corpus, documents: Documents, args: argparse.Namespace) -> Loaded:
    loaded = load_index(http, f"{prefix}-{kind.name}", kind, corpus, documents, merge=not args.unmerged)
    print(
        f"{len(documents)} documents, {kind.name}: {loaded.docs_per_s:.0f} docs/s, merged in {loaded.merge_s:.0f} s", flush=True
    )
    return loaded


def _count_postings(exact: ExactSearch, queries: Queries) -> float:
    return float(np.mean([exact.count_postings(vector) for vector in queries.vectors]))


def _count_segments(http: Http, index: str) -> int:
    return len(http.request_json("GET", f"/_cat/segments/{index}?format=json&h=segment"))


def _describe_engine(http: Http) -> str:
    version = http.request_json("GET", "/")["version"]
    plugins = ", ".join(f"{p['component']} {p['version']}" for p in http.request_json("GET", "/_cat/plugins?format=json"))
    return f"{version.get('distribution', 'elasticsearch')} {version['number']}{' with ' if plugins else ''}{plugins}"


def main() -> None:
    """Run the benchmark, and print its result."""
    parser = build_parser(__doc__)
    parser.add_argument("--docs", type=int, action="append", help="size of a corpus; repeat for several (10000)")
    parser.add_argument("--queries", type=int, default=200, help="for each number of tokens")
    parser.add_argument("--rounds", type=int, default=3, help="how often each query is sent")
    parser.add_argument("--url", help="your cluster (default: start a node)")
    parser.add_argument("--no-knn", dest="knn", action="store_false", help="without dense vectors")
    parser.add_argument("--unmerged", action="store_true", help="don't merge the segments")
    parser.add_argument("--heap", default="2g", help="heap of the started node")
    add_corpus_options(parser)
    parser.add_argument("--tuxpaint", type=Path, help="unpacked Debian package of model_quality.py, for R@k on photographs")
    args = parser.parse_args()
    args.plugins = args.knn
    reports: list[Report] = []
    about = f"{args.queries} queries for each number of tokens, {args.rounds} rounds"
    gallery = read_photos(args.tuxpaint) if args.tuxpaint else None
    with open_node(args) as http:
        for docs in args.docs or [10_000]:
            reports.append(measure_corpus(http, docs, gallery, args))
            save_result(build_result(reports, about), args.json)  # after each corpus, because the larger ones take long
    publish_result(build_result(reports, about), args.json)


if __name__ == "__main__":
    main()
