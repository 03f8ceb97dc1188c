"""The methods that are compared: what each writes into the cluster, what it asks, and what the exact score is."""

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
NO_CLUSTER = "no cluster was asked (--exact)"


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Documents of one temporary index. Compared by identity: methods that ask the same documents share the index."""

    name: str
    body: Mapping[str, Any]
    documents: Callable[[], Iterator[Mapping[str, Any]]]
    """By position in the gallery, which is their `_id`; made when they are written."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A query as the engine gets it."""

    clause: Clause | None
    """None where there is nothing to ask: every item is as wrong as the other."""
    cut: int = 0
    """Words that found no room."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method in one direction."""

    name: MethodName
    model: str
    """The id of the model; empty for BM25."""
    task: Task
    corpus: Corpus | None
    """None where the cluster can't do it: see `obstacle`."""
    asked: Callable[[int], Asked]
    """Of a query by its position."""
    exact: Callable[[int], Doubles] | None
    """[N] scores of a query without an engine; None where only the engine defines them."""
    tokens: tuple[float, float]
    """Mean words of a document, and of a query; of a dense vector its dimensions, see `unit`."""
    unit: Literal["words", "dimensions"] = "words"
    obstacle: str = ""
    """Why there is no corpus."""
    nine_bits: bool = False
    """Whether the engine keeps weights with 9 bits, so that scores are up to 0.39 % too small."""


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A method that can't be had here."""

    name: MethodName
    model: str
    direction: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How words are stored and asked."""

    distribution: Distribution
    shape: Shape
    max_clauses: int
    depth: int
    """How many hits are asked for."""
    analyzer: str
    """Of BM25 fields."""
    word_body: Mapping[str, Any] = field(repr=False)
    """Of an index with `tokens`."""


def word_corpus(name: str, body: Mapping[str, Any], vectors: Sequence[SparseVector], items: Sequence[str], key: str) -> Corpus:
    """Documents of words; `key` says what `items` are: `uri`, or `caption`."""

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
    """A method whose score is the dot product of word weights; without an engine, exactly only."""
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
    """Dense vectors: exactly, and by approximate kNN in the engine unless there is none, or an `obstacle`."""
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
    """BM25 of a caption over the image's other captions."""
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
"""Statistics of BM25 are a shard's own."""
