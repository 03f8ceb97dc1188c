"""What vectors of words cost: words an item, multiplications a comparison, and how even the lists of an index are. Pure.

Shape suffixes: N items, V words.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from stair_es.types import SparseVector


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Words an item."""

    items: int
    mean: float
    p50: float
    p95: float
    most: int
    empty: int
    """Items without a word."""


@dataclass(frozen=True, kw_only=True)
class Lists:
    """The lists of an inverted index: which items have a word."""

    words: int
    """With a list."""
    vocabulary: int | None
    """All words that vectors can have; None where the model doesn't tell."""
    longest: int
    longest_word: str
    top_share: float
    """Share of all entries that the longest 1 % of the lists have, at least one list; of the vocabulary, where it is known."""
    gini: float
    """0 for lists of the same length, near 1 where few have everything; words of the vocabulary without a list count."""

    @property
    def dead(self) -> int | None:
        """Words that no item has."""
        return None if self.vocabulary is None else self.vocabulary - self.words


def sizes(vectors: Sequence[SparseVector]) -> Sizes:
    """Of some items, at least one."""
    counts = [len(vector) for vector in vectors]
    p50, p95 = np.percentile(counts, [50, 95])
    return Sizes(items=len(counts), mean=fmean(counts), p50=float(p50), p95=float(p95), most=max(counts), empty=counts.count(0))


def flops(items: Sequence[SparseVector], queries: Sequence[SparseVector]) -> float:
    """Multiplications that one query costs with one item, on average: `sum_v p_v q_v`, the probabilities that a word is there.

    Paria et al., "Minimizing FLOPs to Learn Efficient Sparse Representations", 2020.
    """
    ours, theirs = _shares(items), _shares(queries)
    return math.fsum(share * theirs.get(word, 0.0) for word, share in ours.items())


def weighted_flops(items: Sequence[SparseVector], queries: Sequence[SparseVector]) -> float:
    """`sum_v mean|w_v| mean|w_v|`: what training makes small in place of `flops`, which has no gradient (same place)."""
    ours, theirs = _means(items), _means(queries)
    return math.fsum(mean * theirs.get(word, 0.0) for word, mean in ours.items())


def lists(vectors: Sequence[SparseVector], features: Sequence[str] | None) -> Lists:
    """Of an index of some items.

    Args:
        vectors: The items.
        features: The vocabulary, if it is known.
    """
    count = Counter(word for vector in vectors for word in vector.features)
    silent = len(set(features) - set(count)) if features is not None else 0
    lengths = sorted([*count.values(), *[0] * silent], reverse=True)
    longest_word, longest = min(count.items(), key=lambda pair: (-pair[1], pair[0]), default=("", 0))
    top = lengths[: math.ceil(len(lengths) / 100)]
    return Lists(
        words=len(count),
        vocabulary=None if features is None else len(count) + silent,
        longest=longest,
        longest_word=longest_word,
        top_share=sum(top) / max(sum(lengths), 1),
        gini=gini(lengths),
    )


def gini(lengths: Sequence[int]) -> float:
    """The Gini coefficient: the mean difference between two of them, over twice their mean; 0 where there is nothing."""
    ascending = sorted(lengths)
    total = sum(ascending)
    if not total:
        return 0.0
    count = len(ascending)
    return sum((2 * place - count - 1) * length for place, length in enumerate(ascending, 1)) / (count * total)


def _shares(vectors: Sequence[SparseVector]) -> dict[str, float]:
    count = Counter(word for vector in vectors for word in vector.features)
    return {word: items / len(vectors) for word, items in count.items()}


def _means(vectors: Sequence[SparseVector]) -> dict[str, float]:
    weights = defaultdict[str, list[float]](list)
    for vector in vectors:
        for word, weight in vector:
            weights[word].append(weight)
    return {word: math.fsum(each) / len(vectors) for word, each in weights.items()}
