"""Retrieval methods: the documents that each writes to the cluster, its queries, and its exact scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Literal, TypeAlias

from stair_es import feature_names
from stair_es.cluster.client.capabilities import ClusterInfo, Distribution
from stair_es.errors import QueryError
from stair_es.eval.metrics import DenseIndex, Doubles, InvertedIndex
from stair_es.eval.retrieval.tasks import LeaveOneOut, RetrievalTask
from stair_es.search.dsl.select import build_sparse_query
from stair_es.types import Floats, QueryType, SparseVector

DENSE_FIELD = "dense"
_MIN_ELASTICSEARCH = (8, 12)
"""First version in which `knn` is an ordinary query, as `_msearch` needs it."""
_PLUGIN = "opensearch-knn"
_ELASTICSEARCH_MAX_DIMENSIONS, _OPENSEARCH_MAX_DIMENSIONS = 4096, 16_000
_MAX_CANDIDATES = 10_000
MethodName: TypeAlias = Literal["STAIR", "bag of words", "BM25 on captions", "dense kNN"]
Clause: TypeAlias = dict[str, Any]
NO_CLUSTER = "no cluster was used (--exact)"
_ONE_SHARD = {"settings": {"index": {"number_of_shards": 1, "auto_expand_replicas": "0-1"}}}
"""One shard, because BM25 statistics are per shard."""


def explain_missing_knn(cluster_info: ClusterInfo, plugins: Callable[[], frozenset[str]], dimensions: int) -> str:
    """Return the reason why the cluster has no kNN for such vectors; empty if it has."""
    if cluster_info.distribution == "elasticsearch":
        if cluster_info.version < _MIN_ELASTICSEARCH:
            return f"{cluster_info.label} has no kNN query: it requires Elasticsearch 8.12 or newer"
        limit = _ELASTICSEARCH_MAX_DIMENSIONS
    elif cluster_info.is_serverless:
        return f"{cluster_info.label} doesn't list its plugins, so kNN isn't measured"
    elif _PLUGIN not in plugins():
        return f"{cluster_info.label} doesn't have the plugin {_PLUGIN}"
    else:
        limit = _OPENSEARCH_MAX_DIMENSIONS
    return f"vectors of {dimensions} dimensions: {cluster_info.label} supports up to {limit}" if dimensions > limit else ""


def build_knn_body(distribution: Distribution, dimensions: int) -> dict[str, Any]:
    """Build the body of an index of unit vectors: float32 in a Lucene HNSW graph with default parameters, not quantized."""
    if distribution == "elasticsearch":
        field: dict[str, Any] = {
            "type": "dense_vector",
            "dims": dimensions,
            "index": True,
            "similarity": "dot_product",
            "index_options": {"type": "hnsw"},
        }
        index: dict[str, Any] = {}
    else:
        field = {
            "type": "knn_vector",
            "dimension": dimensions,
            "method": {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"},
        }
        index = {"knn": True}
    return {
        "settings": {"index": {"number_of_shards": 1, "auto_expand_replicas": "0-1", **index}},
        "mappings": {"properties": {DENSE_FIELD: field}},
    }


def build_knn_clause(distribution: Distribution, vector: Sequence[float], k: int) -> dict[str, Any]:
    """Build the query for the `k` nearest neighbors."""
    if distribution == "elasticsearch":
        candidates = min(_MAX_CANDIDATES, max(100, k))
        return {"knn": {"field": DENSE_FIELD, "query_vector": list(vector), "k": k, "num_candidates": candidates}}
    return {"knn": {DENSE_FIELD: {"vector": list(vector), "k": k}}}


@dataclass(frozen=True, kw_only=True)
class EvalCorpus:
    """Documents of one temporary index. Compared by identity: methods with the same corpus share the index."""

    name: str
    body: Mapping[str, Any]
    documents: Callable[[], Iterator[Mapping[str, Any]]]
    """Documents by position in the gallery, which is their `_id`; generated when they are written."""


@dataclass(frozen=True, kw_only=True)
class EngineQuery:
    """A query as sent to the engine."""

    clause: Clause | None
    """None if the query is empty: all items are tied."""
    truncated: int = 0
    """Number of tokens removed by the clause limit."""


@dataclass(frozen=True, kw_only=True)
class RetrievalMethod:
    """A retrieval method in one direction."""

    name: MethodName
    model: str
    """Id of the model; empty for BM25."""
    task: RetrievalTask
    corpus: EvalCorpus | None
    """None if the cluster doesn't support the method: see `unavailable_reason`."""
    build_query: Callable[[int], EngineQuery]
    """Builds the query at a position."""
    score_query: Callable[[int], Doubles] | None
    """Returns the [N] scores of a query without an engine; None if only the engine defines them."""
    tokens: tuple[float, float]
    """Mean number of tokens of documents and of queries; for dense vectors the dimensions, see `unit`."""
    unit: Literal["tokens", "dimensions"] = "tokens"
    unavailable_reason: str = ""
    """Reason why there is no corpus."""
    nine_bits: bool = False
    """Whether the engine stores weights with 9 bits, so that scores are up to 0.39 % too low."""


@dataclass(frozen=True, kw_only=True)
class UnavailableMethod:
    """A method that isn't available, and why."""

    name: MethodName
    model: str
    direction: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How token weights are stored and queried."""

    distribution: Distribution
    query_type: QueryType
    max_clauses: int
    depth: int
    """Number of hits per query."""
    analyzer: str
    """Analyzer of BM25 fields."""
    token_body: Mapping[str, Any] = field(repr=False)
    """Body of an index with `tokens`."""


def build_token_corpus(
    name: str, body: Mapping[str, Any], vectors: Sequence[SparseVector], items: Sequence[str], key: str
) -> EvalCorpus:
    """Build the corpus of token weights.

    Args:
        name: Name of the corpus.
        body: Body of the index.
        vectors: Vectors of the items.
        items: Names or texts of the items.
        key: Document field of `items`: `uri`, or `caption`.
    """

    def iterate_documents() -> Iterator[Mapping[str, Any]]:
        for item, vector in zip(items, vectors, strict=True):
            yield {
                key: item,
                **({"tokens": {feature_names.escape_feature(token): weight for token, weight in vector}} if len(vector) else {}),
            }

    return EvalCorpus(name=name, body=body, documents=iterate_documents)


def build_token_method(
    name: MethodName,
    model: str,
    task: RetrievalTask,
    corpus: EvalCorpus | None,
    gallery: Sequence[SparseVector],
    queries: Sequence[SparseVector],
    engine: EngineConfig | None,
) -> RetrievalMethod:
    """Build a method whose score is the dot product of token weights."""
    postings = InvertedIndex(gallery)

    def build_token_query(query: int) -> EngineQuery:
        if engine is None:
            return EngineQuery(clause=None)
        try:
            query_body = build_sparse_query(engine.query_type, queries[query], max_clauses=engine.max_clauses)
        except QueryError:
            if len(queries[query]):
                raise
            return EngineQuery(clause=None)
        return EngineQuery(clause=query_body.clause, truncated=len(query_body.truncated))

    return RetrievalMethod(
        name=name,
        model=model,
        task=task,
        corpus=corpus if engine else None,
        unavailable_reason="" if engine else NO_CLUSTER,
        build_query=build_token_query,
        score_query=lambda query: postings.compute_scores(queries[query]),
        tokens=(fmean(map(len, gallery)), fmean(map(len, queries))),
        nine_bits=True,
    )


def build_dense_method(
    model: str, task: RetrievalTask, gallery_ND: Floats, queries_ND: Floats, engine: EngineConfig | None, no_knn_reason: str
) -> RetrievalMethod:
    """Build the method of dense vectors: exact, and approximate kNN in the engine if it is available.

    Args:
        model: Id of the model.
        task: Queries and relevant items.
        gallery_ND: Vectors of the gallery.
        queries_ND: Vectors of the queries.
        engine: Engine configuration; None for exact scores only.
        no_knn_reason: Why the engine has no kNN; empty if it has.
    """
    exact = DenseIndex(gallery_ND)
    items, dimensions = gallery_ND.shape
    corpus = EvalCorpus(
        name=f"dense-{task.direction.rpartition(' ')[2]}s",
        body=build_knn_body(engine.distribution, dimensions) if engine else {},
        documents=lambda: ({DENSE_FIELD: vector_D.tolist()} for vector_D in gallery_ND),
    )

    def build_dense_query(query: int) -> EngineQuery:
        if engine is None:
            return EngineQuery(clause=None)
        return EngineQuery(clause=build_knn_clause(engine.distribution, queries_ND[query].tolist(), min(engine.depth, items)))

    return RetrievalMethod(
        name="dense kNN",
        model=model,
        task=task,
        corpus=corpus if engine and not no_knn_reason else None,
        unavailable_reason=no_knn_reason if engine else NO_CLUSTER,
        build_query=build_dense_query,
        score_query=lambda query: exact.compute_scores(queries_ND[query]),
        tokens=(float(dimensions), float(dimensions)),
        unit="dimensions",
    )


def build_bm25_method(leave_one_out: LeaveOneOut, analyzer: str) -> RetrievalMethod:
    """Build the method that searches a caption by BM25 in the other captions of the images."""
    properties = {name: {"type": "text", "analyzer": analyzer} for name in leave_one_out.documents[0]}
    corpus = EvalCorpus(
        name="bm25", body={**_ONE_SHARD, "mappings": {"properties": properties}}, documents=lambda: iter(leave_one_out.documents)
    )
    fields, queries = leave_one_out.fields, leave_one_out.task.queries
    documents = [next(iter(document.values())) for document in leave_one_out.documents]
    return RetrievalMethod(
        name="BM25 on captions",
        model="",
        task=leave_one_out.task,
        corpus=corpus,
        build_query=lambda query: EngineQuery(clause={"match": {fields[query]: queries[query]}}),
        score_query=None,
        tokens=(fmean(len(text.split()) for text in documents), fmean(len(text.split()) for text in queries)),
    )
