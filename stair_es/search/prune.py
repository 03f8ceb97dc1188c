"""Fewer words, a quicker query: what of a vector is sent. Pure."""

from __future__ import annotations

import math
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from stair_es.errors import QueryError
from stair_es.types import SparseVector


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """Which words of a query are left out before it is sent; by default none."""

    top_k: int | None = None
    """Keep that many of the heaviest."""
    mass: float | None = None
    """Keep the heaviest until they hold this share (0..1) of the sum of all weights."""
    stop: AbstractSet[str] = frozenset()
    """Leave these out: words so frequent in the corpus that they cost much and tell little."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            QueryError: `top_k` is below 1, or `mass` not within (0, 1].
        """
        if self.top_k is not None and self.top_k < 1:
            raise QueryError(f"a query of {self.top_k} words finds nothing", "Keep at least 1.")
        if self.mass is not None and not 0 < self.mass <= 1:
            raise QueryError(f"the mass to keep must be above 0 and at most 1, got {self.mass:g}", "0.9 keeps nine tenths.")


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """A vector in two parts."""

    kept: SparseVector
    dropped: SparseVector


def pruned(vector: SparseVector, pruning: Pruning) -> Pruned:
    """`vector` without its stop words, then its heaviest words: as many as both `mass` and `top_k` allow, at least one.

    Raises:
        QueryError: All its words are stop words.
    """
    left = list(SparseVector.from_pairs((word, weight) for word, weight in vector if word not in pruning.stop))  # heaviest first
    if len(vector) and not left:
        raise QueryError("all words of the query are stop words", "Try other words, or take words out of the list.")
    count = len(left) if pruning.mass is None else _holding(pruning.mass, [weight for _, weight in left])
    kept = SparseVector.from_pairs(left[: count if pruning.top_k is None else min(count, pruning.top_k)])
    staying = set(kept.features)
    return Pruned(kept=kept, dropped=SparseVector.from_pairs(pair for pair in vector if pair[0] not in staying))


def _holding(mass: float, weights: list[float]) -> int:
    """How many of the heaviest it takes."""
    wanted = mass * math.fsum(weights)
    held = 0.0
    for count, weight in enumerate(weights, start=1):
        held += weight
        if held >= wanted:
            return count
    return len(weights)
