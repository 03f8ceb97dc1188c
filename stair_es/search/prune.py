"""Fewer words, a quicker query: what of a vector is sent. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stair_es.errors import QueryError
from stair_es.types import SparseVector


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """A vector in two parts."""

    kept: SparseVector
    dropped: SparseVector


def check_mass(mass: float | None) -> None:
    """Raise QueryError if a query can't keep this share of its weight.

    Args:
        mass: Within (0, 1]; None for all.

    Raises:
        QueryError: If it isn't.
    """
    if mass is not None and not 0 < mass <= 1:
        raise QueryError(f"the mass to keep must be above 0 and at most 1, got {mass:g}", "0.9 keeps nine tenths.")


def pruned(vector: SparseVector, mass: float | None) -> Pruned:
    """Split `vector` into the heaviest tokens that hold a share of its weight, and the rest.

    Args:
        vector: The tokens of the query, heaviest first.
        mass: The share (0..1) of the sum of all weights; None for all of it. At least one token is kept.

    Returns:
        Both parts.
    """
    count = len(vector) if mass is None else _holding(mass, vector.weights)
    return Pruned(kept=vector.top(count), dropped=SparseVector(vector.features[count:], vector.weights[count:]))


def _holding(mass: float, weights: Sequence[float]) -> int:
    """How many of the heaviest it takes."""
    wanted = mass * math.fsum(weights)
    held = 0.0
    for count, weight in enumerate(weights, start=1):
        held += weight
        if held >= wanted:
            return count
    return len(weights)
