"""Build queries for `rank_features` and `sparse_vector` fields. Pure: any client can send the results."""

from __future__ import annotations

from typing import Any

from stair_es.config.defaults import MAX_CLAUSES
from stair_es.feature_names import escape_feature
from stair_es.search.dsl.weights import SparseQuery, finish_sparse_query, fit_to_limits
from stair_es.types import SparseVector

__all__ = ["TOKENS_FIELD", "SparseQuery", "build_rank_features_query", "build_sparse_vector_query"]

TOKENS_FIELD = "tokens"


def build_rank_features_query(vector: SparseVector, *, field: str = TOKENS_FIELD, max_clauses: int = MAX_CLAUSES) -> SparseQuery:
    """Build a query whose score is the dot product of `vector` and a document's `field`.

    Args:
        vector: The query vector.
        field: The `rank_features` field.
        max_clauses: The clause limit of the engine; the heaviest tokens are kept.

    Raises:
        QueryError: If no token is left (an empty `bool` would match every document), or a weight or token is invalid.
    """
    kept = fit_to_limits(vector, max_clauses)
    clause = {"bool": {"should": [_build_rank_feature(f"{field}.{escape_feature(token)}", boost) for token, boost in kept]}}
    return finish_sparse_query(clause, kept, vector)


def build_sparse_vector_query(vector: SparseVector, *, field: str = TOKENS_FIELD, max_clauses: int = MAX_CLAUSES) -> SparseQuery:
    """Build the same query for Elasticsearch's `sparse_vector`, without its pruning of frequent, light tokens.

    Args:
        vector: The query vector.
        field: The `sparse_vector` field.
        max_clauses: The maximum number of tokens; the heaviest are kept (Elasticsearch 8 creates a clause for each).

    Raises:
        QueryError: As for `build_rank_features_query`.
    """
    kept = fit_to_limits(vector, max_clauses)
    tokens = {escape_feature(token): boost for token, boost in kept}
    return finish_sparse_query({"sparse_vector": {"field": field, "query_vector": tokens, "prune": False}}, kept, vector)


def _build_rank_feature(field: str, boost: float) -> dict[str, Any]:
    return {"rank_feature": {"field": field, "boost": boost, "linear": {}}}  # without `linear` it would be saturation
