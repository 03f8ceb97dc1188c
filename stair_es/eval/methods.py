"""Retrieval methods: the documents that each writes to the cluster, its queries, and its exact scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from stair_es import vocab
from stair_es.errors import QueryError
from stair_es.eval.exact import DenseGallery, Postings
from stair_es.eval.knn import FIELD, knn_body, knn_clause
from stair_es.search.shapes import Shape, build

if TYPE_CHECKING:
    from stair_es.cluster.target import Distribution
    from stair_es.eval.metrics import Doubles
    from stair_es.eval.tasks import LeaveOneOut, Task
    from stair_es.types import Floats, SparseVector

MethodName: TypeAlias = Literal["STAIR", "bag of words", "BM25 on captions", "dense kNN"]
Clause: TypeAlias = dict[str, Any]
NO_CLUSTER = "no cluster was used (--exact)"


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Documents of one temporary index. Compared by identity: methods with the same corpus share the index."""

    name: str
    body: Mapping[str, Any]
    documents: Callable[[], Iterator[Mapping[str, Any]]]
    """Documents by position in the gallery, which is their `_id`; generated when they are written."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A query as sent to the engine."""

    clause: Clause | None
    """None if the query is empty: all items are tied."""
    cut: int = 0
    """Number of tokens removed by the clause limit."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A retrieval method in one direction."""

    name: MethodName
    model: str
    """Id of the model; empty for BM25."""
    task: Task
    corpus: Corpus | None
    """None if the cluster doesn't support the method: see `unavailable_reason`."""
    asked: Callable[[int], Asked]
    """Builds the query at a position."""
    exact: Callable[[int], Doubles] | None
    """Returns the [N] scores of a query without an engine; None if only the engine defines them."""
    tokens: tuple[float, float]
    """Mean number of tokens of documents and of queries; for dense vectors the dimensions, see `unit`."""
    unit: Literal["words", "dimensions"] = "words"
    obstacle: str = ""
    """Why there is no corpus."""
    nine_bits: bool = False
    """Whether the engine stores weights with 9 bits, so that scores are up to 0.39 % too low."""


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A method that isn't available, and why."""

    name: MethodName
    model: str
    direction: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How token weights are stored and queried."""

    distribution: Distribution
    shape: Shape
    max_clauses: int
    depth: int
    """Number of hits per query."""
    analyzer: str
    """Analyzer of BM25 fields."""
    word_body: Mapping[str, Any] = field(repr=False)
    """Body of an index with `tokens`."""


def word_corpus(name: str, body: Mapping[str, Any], vectors: Sequence[SparseVector], items: Sequence[str], key: str) -> Corpus:
    """Build the corpus of token weights.

    Args:
        name: Name of the corpus.
        body: Body of the index.
        vectors: Vectors of the items.
        items: Names or texts of the items.
        key: Document field of `items`: `uri`, or `caption`.
    """

    def documents() -> Iterator[Mapping[str, Any]]:
        for item, vector in zip(items, vectors, strict=True):
            yield {key: item, **({"tokens": {vocab.escape(word): weight for word, weight in vector}} if len(vector) else {})}

    return Corpus(name=name, body=body, documents=documents)


def word_method(
    name: MethodName,
    model: str,
    task: Task,
    corpus: Corpus | None,
    gallery: Sequence[SparseVector],
    queries: Sequence[SparseVector],
    engine: Engine | None,
) -> Method:
    """Build a method whose score is the dot product of token weights.

    Args:
        name: Name of the method.
        model: Id of the model.
        task: Queries and relevant items.
        corpus: Documents of the gallery.
        gallery: Vectors of the gallery.
        queries: Vectors of the queries.
        engine: Engine configuration; None for exact scores only.
    """
    postings = Postings(gallery)

    def asked(query: int) -> Asked:
        if engine is None:
            return Asked(clause=None)
        try:
            built = build(engine.shape, queries[query], max_clauses=engine.max_clauses)
        except QueryError:
            if len(queries[query]):
                raise
            return Asked(clause=None)
        return Asked(clause=built.clause, cut=len(built.cut))

    return Method(
        name=name,
        model=model,
        task=task,
        corpus=corpus if engine else None,
        obstacle="" if engine else NO_CLUSTER,
        asked=asked,
        exact=lambda query: postings.scores(queries[query]),
        tokens=(fmean(map(len, gallery)), fmean(map(len, queries))),
        nine_bits=True,
    )


def dense_method(model: str, task: Task, gallery_ND: Floats, queries_ND: Floats, engine: Engine | None, obstacle: str) -> Method:
    """Build the method of dense vectors: exact, and approximate kNN in the engine if it is available.

    Args:
        model: Id of the model.
        task: Queries and relevant items.
        gallery_ND: Vectors of the gallery.
        queries_ND: Vectors of the queries.
        engine: Engine configuration; None for exact scores only.
        obstacle: Why the engine has no kNN; empty if it has.
    """
    exact = DenseGallery(gallery_ND)
    items, dimensions = gallery_ND.shape
    corpus = Corpus(
        name=f"dense-{task.direction.rpartition(' ')[2]}s",
        body=knn_body(engine.distribution, dimensions) if engine else {},
        documents=lambda: ({FIELD: vector_D.tolist()} for vector_D in gallery_ND),
    )

    def asked(query: int) -> Asked:
        if engine is None:
            return Asked(clause=None)
        return Asked(clause=knn_clause(engine.distribution, queries_ND[query].tolist(), min(engine.depth, items)))

    return Method(
        name="dense kNN",
        model=model,
        task=task,
        corpus=corpus if engine and not obstacle else None,
        obstacle=obstacle if engine else NO_CLUSTER,
        asked=asked,
        exact=lambda query: exact.scores(queries_ND[query]),
        tokens=(float(dimensions), float(dimensions)),
        unit="dimensions",
    )


def bm25_method(left: LeaveOneOut, analyzer: str) -> Method:
    """Build the method that searches a caption by BM25 in the other captions of the images.

    Args:
        left: Leave-one-out task.
        analyzer: Analyzer of the fields.
    """
    properties = {field_: {"type": "text", "analyzer": analyzer} for field_ in left.documents[0]}
    corpus = Corpus(
        name="bm25", body={**_ONE_SHARD, "mappings": {"properties": properties}}, documents=lambda: iter(left.documents)
    )
    fields, queries = left.fields, left.task.queries
    documents = [next(iter(document.values())) for document in left.documents]
    return Method(
        name="BM25 on captions",
        model="",
        task=left.task,
        corpus=corpus,
        asked=lambda query: Asked(clause={"match": {fields[query]: queries[query]}}),
        exact=None,
        tokens=(fmean(len(text.split()) for text in documents), fmean(len(text.split()) for text in queries)),
    )


_ONE_SHARD = {"settings": {"index": {"number_of_shards": 1, "auto_expand_replicas": "0-1"}}}
"""One shard, because BM25 statistics are per shard."""
