"""Fit a vector to the limits of an engine: float32 weights, valid tokens, the clause limit. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stair_es.errors import QueryError
from stair_es.types import SparseVector, is_utf8

MAX_WEIGHT = 2.0**100
"""Above this, products with document weights could overflow float32: scores would be infinite and unordered."""
MIN_WEIGHT = 2.0**-100
"""Below this, they could underflow to 0."""
MAX_TOKEN_BYTES = 32_766
"""The maximum length of a term in Lucene."""
HEAVY_SCORE = 2.0**64
"""A score that float32 doesn't change when a cluster adds to it: its document-level security adds 1 for each role of a user."""


@dataclass(frozen=True, kw_only=True)
class SparseQuery:
    """A query clause, and the tokens that are in it."""

    clause: dict[str, Any]
    """The value of `query` in a request body. Its score is the dot product."""
    vector: SparseVector
    """The tokens in the clause, with the weights as the engine reads them (float32)."""
    truncated: SparseVector
    """The tokens that were left out: the lightest, or those that the query type doesn't support. Report them to the user."""


def fit_to_limits(vector: SparseVector, max_clauses: int) -> list[tuple[str, float]]:
    """Fit a vector to the clause limit and to float32: its heaviest tokens, with their weights as the engine reads them.

    Tokens lighter than `MIN_WEIGHT` are dropped: with a weight of 0 they would still match.

    Raises:
        QueryError: If no token is left (an empty query would match every document), or if a token or weight is invalid.
    """
    if max_clauses < 1:
        raise QueryError(f"max_clauses must be at least 1, got {max_clauses}", code="invalid-max-clauses")
    weighted = [(_check_token(token), round_to_float32(token, weight)) for token, weight in vector]
    weighted.sort(key=lambda pair: -pair[1])
    selected = [(token, boost) for token, boost in weighted if boost > 0][:max_clauses]
    if not selected:
        raise QueryError("the query is empty: it has no token with a weight", "Try other words.", code="query-empty")
    return selected


def finish_sparse_query(clause: dict[str, Any], kept: list[tuple[str, float]], vector: SparseVector) -> SparseQuery:
    """Complete a clause to a `SparseQuery`: the tokens of `vector` that are not in `kept` are reported as truncated."""
    kept_tokens = {token for token, _ in kept}
    truncated = [(token, weight) for token, weight in vector if token not in kept_tokens]
    return SparseQuery(
        clause=clause,
        vector=SparseVector.from_pairs(kept),
        truncated=SparseVector(tuple(token for token, _ in truncated), tuple(weight for _, weight in truncated)),
    )


def round_to_float32(token: str, weight: float) -> float:
    """Round to the shortest number that the engine reads as the same float32; 0 for a weight below `MIN_WEIGHT`.

    Raises:
        QueryError: If the weight is not a finite number above 0, or is above `MAX_WEIGHT`.
    """
    if not weight > 0:  # NaN, too
        raise QueryError(f"weight of {token!r} must be above 0, got {weight:g}", code="weight-not-positive")
    if weight > MAX_WEIGHT:
        raise QueryError(
            f"weight of {token!r} is too large for an engine: {weight:g}",
            f"Scale the query down: weights may be at most {MAX_WEIGHT:.2g}.",
            code="weight-too-large",
        )
    return float(str(np.float32(weight))) if weight >= MIN_WEIGHT else 0.0


def check_unicode(text: str) -> None:
    """Check that a text is valid Unicode: with an unpaired surrogate some engines reject it, others search for `?`."""
    if not is_utf8(text):
        raise QueryError(
            f"{text[:80]!r} contains an unpaired surrogate and is not valid Unicode", "Re-enter the text.", code="not-unicode"
        )


def _check_token(token: str) -> str:
    check_unicode(token)
    size = len(token.encode())
    if size > MAX_TOKEN_BYTES:
        raise QueryError(
            f"the token {token[:20]!r}... has {size:,} bytes, engines allow {MAX_TOKEN_BYTES:,}", code="token-too-long"
        )
    return token
