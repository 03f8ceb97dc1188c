"""What of a vector an engine takes: weights as it reads them, words that it can read, no more clauses than it allows. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stair_es.errors import QueryError
from stair_es.search.clauses import check_characters
from stair_es.types import SparseVector

MAX_WEIGHT = 2.0**100
"""Above this, products with the weights of documents could leave float32: their scores would all be infinite, in no order."""
MIN_WEIGHT = 2.0**-100
"""Below this, they could vanish."""
MAX_WORD_BYTES = 32_766
"""Lucene takes no longer term."""


@dataclass(frozen=True, kw_only=True)
class SparseQuery:
    """A query clause, and what became of the vector's words."""

    clause: dict[str, Any]
    """The value of `query` in a request body. Its score is the dot product."""
    sent: SparseVector
    """The words that are in the clause, with the weights as the engine reads them."""
    cut: SparseVector
    """The words that are not, the lightest ones or those that the shape can't ask for: tell the user."""
    scale: float = 1.0
    """By how much the weights in the clause are smaller than those of `sent` (a power of two); its `boost` makes up for it."""


def fit(vector: SparseVector, max_clauses: int) -> list[tuple[str, float]]:
    """The heaviest words of `vector`, at most `max_clauses`, heaviest first, each with the float32 that the engine reads.

    Words lighter than `MIN_WEIGHT` are left out: with a weight of 0 they would still match.

    Raises:
        QueryError: No word is left (an empty query would match every document), or one is none that an engine could read.
    """
    if max_clauses < 1:
        raise QueryError(f"max_clauses must be at least 1, got {max_clauses}")
    weighted = [(_readable(word), float32(word, weight)) for word, weight in vector]
    weighted.sort(key=lambda pair: -pair[1])
    kept = [(word, boost) for word, boost in weighted if boost > 0][:max_clauses]
    if not kept:
        raise QueryError("the query is empty: it has no word with a weight", "Try other words.")
    return kept


def made(clause: dict[str, Any], kept: list[tuple[str, float]], vector: SparseVector, *, scale: float = 1.0) -> SparseQuery:
    """The query, with the words of `vector` that aren't in `kept` reported."""
    words = {word for word, _ in kept}
    cut = [(word, weight) for word, weight in vector if word not in words]
    return SparseQuery(
        clause=clause,
        sent=SparseVector.from_pairs(kept),
        cut=SparseVector(tuple(word for word, _ in cut), tuple(weight for _, weight in cut)),
        scale=scale,
    )


def float32(word: str, weight: float) -> float:
    """The shortest number that the engine, which reads boosts as float32, takes for the same as `weight`; 0 for dust.

    Raises:
        QueryError: No finite weight above 0, or one beyond `MAX_WEIGHT`.
    """
    if not weight > 0:  # NaN, too
        raise QueryError(f"weight of {word!r} must be above 0, got {weight:g}")
    if weight > MAX_WEIGHT:
        raise QueryError(
            f"weight of {word!r} is beyond what an engine can read and multiply: {weight:g}",
            f"Scale the query: no weight may be above {MAX_WEIGHT:.2g}.",
        )
    return float(str(np.float32(weight))) if weight >= MIN_WEIGHT else 0.0


def _readable(word: str) -> str:
    check_characters(word)
    size = len(word.encode())
    if size > MAX_WORD_BYTES:
        raise QueryError(f"no engine takes the word {word[:20]!r}...: it has {size:,} bytes, {MAX_WORD_BYTES:,} are the limit")
    return word
