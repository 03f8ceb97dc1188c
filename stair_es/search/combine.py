"""Several vectors and wishes -> one vector. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from stair_es.errors import QueryError
from stair_es.types import SparseVector


def combined(parts: Iterable[tuple[SparseVector, float]]) -> SparseVector:
    """The weighted sum. A part with a negative weight takes away; words that end at 0 or below are gone.

    Raises:
        QueryError: A weight isn't finite, or nothing is left.
    """
    sums: defaultdict[str, float] = defaultdict(float)
    for vector, factor in parts:
        if not math.isfinite(factor):
            raise QueryError(f"the weight of an input must be a finite number, got {factor}")
        for word, weight in vector:
            sums[word] += factor * weight
    if not all(map(math.isfinite, sums.values())):
        raise QueryError("the weights of the inputs are too large to be added up", "Give smaller ones.")
    left = SparseVector.from_pairs((word, weight) for word, weight in sums.items() if weight > 0)
    if not len(left):
        raise QueryError("nothing is left of the inputs: their weights take each other away", "Give one of them a larger weight.")
    return left


def boosted(vector: SparseVector, factors: Mapping[str, float]) -> SparseVector:
    """`vector` with the weights of some words multiplied; a factor of 0 takes a word out.

    Raises:
        QueryError: The vector hasn't one of the words, a weight gets too large, or nothing is left.
    """
    missing = [word for word in factors if word not in vector.features]
    if missing:
        raise QueryError(
            f"the query has no word {', '.join(map(repr, missing))} to boost", f"Its words are: {', '.join(vector.features)}."
        )
    left = [(word, weight * factors.get(word, 1.0)) for word, weight in vector]
    if not all(math.isfinite(weight) for _, weight in left):
        raise QueryError("a boost makes a weight too large", "Give a smaller one.")
    return _some((pair for pair in left if pair[1] > 0), "a boost of 0 takes all words of the query out")


def muted(vector: SparseVector, words: AbstractSet[str]) -> SparseVector:
    """`vector` without some words; those that it hasn't don't matter.

    Raises:
        QueryError: Nothing is left.
    """
    return _some((pair for pair in vector if pair[0] not in words), "all words of the query are muted")


def _some(pairs: Iterable[tuple[str, float]], otherwise: str) -> SparseVector:
    left = SparseVector.from_pairs(pairs)
    if not len(left):
        raise QueryError(otherwise, "Leave one of them in.")
    return left
