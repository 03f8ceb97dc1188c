"""Build queries for `rank_features` and `sparse_vector` fields. Pure: any client can send the results."""

from __future__ import annotations

from typing import Any

from stair_es.config import MAX_CLAUSES
from stair_es.search.fit import SparseQuery, fit, made
from stair_es.types import SparseVector
from stair_es.vocab import escape

__all__ = [
    "TOKENS_FIELD",
    "SparseQuery",
    "rank_features_query",
    "sparse_vector_query",
]

TOKENS_FIELD = "tokens"


def rank_features_query(vector: SparseVector, *, field: str = TOKENS_FIELD, max_clauses: int = MAX_CLAUSES) -> SparseQuery:
    """Build a query whose score is the dot product of `vector` and a document's `field`.

    Args:
        vector: The query vector.
        field: The `rank_features` field.
        max_clauses: The clause limit of the engine; the heaviest tokens are kept.

    Raises:
        QueryError: If no token is left (an empty `bool` would match every document), or a weight or token is invalid.
    """
    kept = fit(vector, max_clauses)
    clause = {"bool": {"should": [_rank_feature(f"{field}.{escape(word)}", boost) for word, boost in kept]}}
    return made(clause, kept, vector)


def sparse_vector_query(vector: SparseVector, *, field: str = TOKENS_FIELD, max_clauses: int = MAX_CLAUSES) -> SparseQuery:
    """Build the same query for Elasticsearch's `sparse_vector`, without its pruning of frequent, light tokens.

    Args:
        vector: The query vector.
        field: The `sparse_vector` field.
        max_clauses: The maximum number of tokens; the heaviest are kept (Elasticsearch 8 creates a clause for each).

    Raises:
        QueryError: As for `build_rank_features_query`.
    """
    kept = fit(vector, max_clauses)
    words = {escape(word): boost for word, boost in kept}
    return made({"sparse_vector": {"field": field, "query_vector": words, "prune": False}}, kept, vector)


def _rank_feature(field: str, boost: float) -> dict[str, Any]:
    return {"rank_feature": {"field": field, "boost": boost, "linear": {}}}  # without `linear` it would be saturation
