"""Ask a cluster: a sparse vector in, ranked hits with their reasons out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opensearchpy.exceptions import NotFoundError

from stair_es.cluster.connect import Connection, probe, translated
from stair_es.config import MAX_HITS
from stair_es.errors import ClusterError, ClusterUnreachable, IndexMismatch, QueryError
from stair_es.search.explain import Reason, why
from stair_es.search.queries import QUERIES, TOKENS_FIELD, search_body

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from stair_es.search.queries import SparseQuery
    from stair_es.types import SparseVector


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One image that was found."""

    id: str
    uri: str
    score: float
    """As the engine computed it: at most 0.39 % below the sum of the contributions."""
    why: tuple[Reason, ...]
    source: Mapping[str, Any]
    """The document, without its thumbnail."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The answer to one search."""

    hits: tuple[Hit, ...]
    """Best first. Empty where no image has a word in common with the query."""
    took_ms: int
    """Time inside the engine."""
    cut: SparseVector
    """The words of the query that the cluster's clause limit left no room for."""


class Searcher:
    """One index, searched with the vectors of one model. Close it, or use it in a `with` statement.

    The first search looks at the cluster (its clause limit) and at the index (the model that wrote it, and the type of its
    field); a later one looks again when an answer shows that the alias stands for another index by now.
    """

    def __init__(self, connection: Connection, index: str, model_id: str) -> None:
        """A searcher; nothing is asked yet.

        Args:
            connection: Where the cluster is.
            index: An alias or index.
            model_id: `model_id` of the encoder that the query vectors come from.
        """
        self._connection = connection
        self._index = index
        self._model_id = model_id
        self._client = connection.client()
        self._max_clauses: int | None = None
        self._known: Mapping[str, str] = {}

    def __enter__(self) -> Searcher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()

    def search(self, vector: SparseVector, k: int = 10) -> Result:
        """The `k` images with the largest dot product.

        Raises:
            QueryError: The vector is empty, `k` is out of range, there is no such index, or another model wrote it.
            IndexMismatch: The index is not one of ours.
            ClusterError: Or a leaf of it, for everything that the cluster refuses; partial answers count as refused.
        """
        if not 1 <= k <= MAX_HITS:
            raise QueryError(f"k must be between 1 and {MAX_HITS}, got {k}")
        if not len(vector):
            raise QueryError("the query is empty: it has no word with a weight", "Try other words.")
        query, answer = self._answer(vector, k)
        return Result(
            hits=tuple(_hit(hit, query.sent) for hit in answer["hits"]["hits"]),
            took_ms=int(answer["took"]),
            cut=query.cut,
        )

    def _answer(self, vector: SparseVector, k: int) -> tuple[SparseQuery, dict[str, Any]]:
        """The engine's answer; asked again where the alias has moved since the last look."""
        for last in (False, True):
            max_clauses, known = self._ready()
            [type_] = set(known.values())
            query = QUERIES[type_](vector, max_clauses=max_clauses)
            try:
                with translated(self._connection):
                    answer: dict[str, Any] = self._client.search(
                        index=self._index,
                        body=search_body(query.clause, k=k),
                        params={"allow_partial_search_results": "false"},
                    )
            except ClusterUnreachable:
                raise
            except ClusterError:  # a `rank_feature` clause on a `sparse_vector` field, for one
                if last or self._check_index() == known:
                    raise
                self._known = {}
                continue
            if last or {hit["_index"] for hit in answer["hits"]["hits"]} <= set(known):
                break
            self._known = {}
        return query, answer

    def _ready(self) -> tuple[int, Mapping[str, str]]:
        """The clause limit, and the type of the field in each index, after the first look at the cluster and the index."""
        if self._max_clauses is None:
            self._max_clauses = probe(self._client, self._connection).max_clauses
        if not self._known:
            self._known = self._check_index()
        return self._max_clauses, self._known

    def _check_index(self) -> dict[str, str]:
        """Index -> type of its field: one type."""
        missing = QueryError(
            f"there is no index or alias {self._index!r} at {self._connection.safe_url}",
            f"Write one with: stair-es ingest FOLDER --index {self._index or 'images'}",
        )
        if not self._index:
            raise missing
        with translated(self._connection):
            try:
                answer = self._client.indices.get_mapping(index=self._index)
            except NotFoundError:
                raise missing from None
        if not answer:  # a pattern that matches nothing
            raise missing
        types = {name: _check_mapping(name, index["mappings"], self._model_id) for name, index in answer.items()}
        if len(set(types.values())) > 1:
            found = ", ".join(f"{name}: {type_}" for name, type_ in sorted(types.items()))
            raise IndexMismatch(f"{self._index!r} stands for indices of several field types ({found}): their queries differ")
        return types


def _check_mapping(name: str, mapping: Mapping[str, Any], model_id: str) -> str:
    """The type of its field of vectors."""
    about = mapping.get("_meta", {}).get("stair_es")
    type_ = str(mapping.get("properties", {}).get(TOKENS_FIELD, {}).get("type"))
    if not isinstance(about, dict) or type_ not in QUERIES:
        raise IndexMismatch(
            f"index {name!r} was not written by stair-es: no `_meta.stair_es`, or no `rank_features` or `sparse_vector` field"
            f" {TOKENS_FIELD!r}",
            "Choose another one with --index / STAIR_ES_INDEX.",
        )
    theirs = about.get("model")
    if theirs != model_id:
        raise QueryError(
            f"index {name!r} holds vectors of the model {theirs!r}, the query is a vector of {model_id!r}: "
            "their dot products mean nothing",
            f"Search with --model {about.get('model_name', theirs)}, or ingest again with this model.",
        )
    return type_


def _hit(hit: Mapping[str, Any], sent: SparseVector) -> Hit:
    source = hit["_source"]
    return Hit(
        id=hit["_id"],
        uri=str(source.get("uri", "")),
        score=float(hit["_score"]),
        why=why(sent, source.get(TOKENS_FIELD, {})),
        source=source,
    )
