"""Sparse vector -> request body, for the fields that hold words. Pure: any client can send what comes out of here.

`search/shapes.py` picks one of these, `neural.py` and `impacts.py` have the others.
"""

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
    """The clause whose score is the dot product of `vector` and a document's `field`.

    Args:
        vector: The words of the query.
        field: The `rank_features` field.
        max_clauses: What the engine takes at most: only that many of the heaviest words are kept.

    Raises:
        QueryError: No word is left (an empty `bool` would match every document), or a weight or word is beyond an engine.
    """
    kept = fit(vector, max_clauses)
    clause = {"bool": {"should": [_rank_feature(f"{field}.{escape(word)}", boost) for word, boost in kept]}}
    return made(clause, kept, vector)


def sparse_vector_query(vector: SparseVector, *, field: str = TOKENS_FIELD, max_clauses: int = MAX_CLAUSES) -> SparseQuery:
    """The same for Elasticsearch's `sparse_vector`, with pruning off: it would drop words that are frequent and light.

    Args:
        vector: The words of the query.
        field: The `sparse_vector` field.
        max_clauses: Only that many of the heaviest words are kept (Elasticsearch 8 makes a clause of each).

    Raises:
        QueryError: As for `rank_features_query`.
    """
    kept = fit(vector, max_clauses)
    words = {escape(word): boost for word, boost in kept}
    return made({"sparse_vector": {"field": field, "query_vector": words, "prune": False}}, kept, vector)


def _rank_feature(field: str, boost: float) -> dict[str, Any]:
    return {"rank_feature": {"field": field, "boost": boost, "linear": {}}}  # without `linear` it would be saturation
