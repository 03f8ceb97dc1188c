"""Sparse vector -> request body. Pure: any client can send what comes out of here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stair_es.config import MAX_CLAUSES
from stair_es.errors import QueryError
from stair_es.types import SparseVector
from stair_es.vocab import escape

TOKENS_FIELD = "tokens"


@dataclass(frozen=True, kw_only=True)
class SparseQuery:
    """A query clause, and what became of the vector's words."""

    clause: dict[str, Any]
    """The value of `query` in a request body."""
    sent: SparseVector
    """The words that are in the clause, with the weights as the engine reads them."""
    cut: SparseVector
    """The words that found no room, the lightest ones: tell the user."""


def rank_features_query(vector: SparseVector, *, field: str = TOKENS_FIELD, max_clauses: int = MAX_CLAUSES) -> SparseQuery:
    """The clause whose score is the dot product of `vector` and a document's `field`.

    Args:
        vector: The words of the query.
        field: The `rank_features` field.
        max_clauses: What the engine takes at most: only that many of the heaviest words are kept.

    Raises:
        QueryError: No word is left (an empty `bool` would match every document), or a weight is beyond float32.
    """
    kept = _kept(vector, max_clauses)
    clause = {"bool": {"should": [_rank_feature(f"{field}.{escape(word)}", boost) for word, boost in kept]}}
    return _query(clause, kept, vector)


def sparse_vector_query(vector: SparseVector, *, field: str = TOKENS_FIELD, max_clauses: int = MAX_CLAUSES) -> SparseQuery:
    """The same for Elasticsearch's `sparse_vector`, with pruning off: it would drop words that are frequent and light.

    Args:
        vector: The words of the query.
        field: The `sparse_vector` field.
        max_clauses: Only that many of the heaviest words are kept (Elasticsearch 8 makes a clause of each).

    Raises:
        QueryError: As for `rank_features_query`.
    """
    kept = _kept(vector, max_clauses)
    words = {escape(word): boost for word, boost in kept}
    return _query({"sparse_vector": {"field": field, "query_vector": words, "prune": False}}, kept, vector)


QUERIES: Mapping[str, Callable[..., SparseQuery]] = {
    "rank_features": rank_features_query,
    "sparse_vector": sparse_vector_query,
}
"""Type of the field -> what builds its clause."""


def search_body(clause: Mapping[str, Any], *, k: int) -> dict[str, Any]:
    """The body of a `_search` request for the `k` best documents, without their thumbnails.

    The total isn't counted, so that the engine may skip documents that can't get among the best `k`.
    """
    return {"size": k, "track_total_hits": False, "_source": {"excludes": ["thumbnail"]}, "query": dict(clause)}


def _kept(vector: SparseVector, max_clauses: int) -> list[tuple[str, float]]:
    if max_clauses < 1:
        raise QueryError(f"max_clauses must be at least 1, got {max_clauses}")
    weighted = [(word, _float32(word, weight)) for word, weight in vector]
    kept = [(word, boost) for word, boost in weighted if boost > 0][:max_clauses]
    if not kept:
        raise QueryError("the query is empty: it has no word with a weight", "Try other words.")
    return kept


def _query(clause: dict[str, Any], kept: list[tuple[str, float]], vector: SparseVector) -> SparseQuery:
    cut = SparseVector(vector.features[len(kept) :], vector.weights[len(kept) :])
    return SparseQuery(clause=clause, sent=SparseVector.from_pairs(kept), cut=cut)


def _rank_feature(field: str, boost: float) -> dict[str, Any]:
    return {"rank_feature": {"field": field, "boost": boost, "linear": {}}}  # without `linear` it would be saturation


def _float32(word: str, weight: float) -> float:
    """The shortest number that the engine, which reads boosts as float32, takes for the same as `weight`; 0 below that."""
    with np.errstate(over="ignore", under="ignore"):
        narrow = np.float32(weight)
    if not np.isfinite(narrow):
        raise QueryError(f"weight of {word!r} is beyond what an engine can read: {weight:g}")
    return float(str(narrow)) if narrow >= np.finfo(np.float32).tiny else 0.0
