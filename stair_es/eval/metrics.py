"""Retrieval metrics over the ranks of the right items. Pure.

Ties are counted against the method: an item is ranked after every wrong item of the same score. (Equal scores are common with
word weights, 0 above all, and an order that happens to put the right one first would flatter.) Right items among themselves
need no rule, since only the set of their ranks counts. What a ranking leaves out comes after all that is in it.

Shape suffixes: N items of the gallery.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CUTS = (1, 5, 10)
NDCG_AT = 10

Doubles = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Means over queries, 0..1, and ranks from 1."""

    queries: int
    hit: dict[int, float]
    """Cut -> share of the queries with a right item among the first so many: what papers on captions call R@k."""
    recall: dict[int, float]
    """Cut -> share of the right items that are among the first so many: the same where there is one right item."""
    ndcg: float
    """At 10, right or wrong (gain 1 or 0), logarithm to base 2."""
    mrr: float
    """Of the first right item, wherever it is."""
    median_rank: float
    """Of the first right item."""


def ranks(scores_N: Doubles, right: Collection[int]) -> tuple[int, ...]:
    """The ranks of the right items, ascending.

    Args:
        scores_N: Of every item of the gallery.
        right: Positions of the right items, at least one.
    """
    chosen = np.zeros(len(scores_N), dtype=bool)
    chosen[list(right)] = True
    wrong = np.sort(scores_N[~chosen])
    own = np.sort(scores_N[chosen])[::-1]
    before = len(wrong) - np.searchsorted(wrong, own, side="left")  # wrong items with this score or a higher one
    return tuple(int(count) + place for place, count in enumerate(before, 1))


def ranks_of_hits(items: Sequence[int], scores: Sequence[float], right: Collection[int], gallery: int) -> tuple[int, ...]:
    """The same of a ranking that may have left items out, as an engine does with those that have no word of the query.

    Args:
        items: Positions in the gallery, best first.
        scores: Of these.
        right: Positions of the right items, at least one.
        gallery: How many items there are.
    """
    scores_N = np.full(gallery, -np.inf)
    scores_N[list(items)] = scores
    return ranks(scores_N, right)


def recall(found: Sequence[int], right: int, cut: int) -> float:
    """Share of `right` items whose rank, in `found`, is within the cut."""
    return sum(rank <= cut for rank in found) / right


def reciprocal_rank(found: Sequence[int]) -> float:
    """1 over the first rank; 0 where there is none."""
    return 1 / found[0] if found else 0.0


def ndcg(found: Sequence[int], right: int, cut: int) -> float:
    """Discounted gain of the ranks within the cut over that of the best possible ranking of `right` items."""
    gain = math.fsum(1 / math.log2(rank + 1) for rank in found if rank <= cut)
    ideal = math.fsum(1 / math.log2(rank + 1) for rank in range(1, min(right, cut) + 1))
    return gain / ideal if ideal else 0.0


def summary(found: Sequence[Sequence[int]]) -> Metrics:
    """The metrics of several queries.

    Args:
        found: For each query the ranks of all its right items, ascending; at least one query, and one item each.
    """
    return Metrics(
        queries=len(found),
        hit={cut: statistics.fmean(each[0] <= cut for each in found) for cut in CUTS},
        recall={cut: statistics.fmean(recall(each, len(each), cut) for each in found) for cut in CUTS},
        ndcg=statistics.fmean(ndcg(each, len(each), NDCG_AT) for each in found),
        mrr=statistics.fmean(reciprocal_rank(each) for each in found),
        median_rank=float(statistics.median(each[0] for each in found)),
    )
