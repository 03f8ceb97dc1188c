"""Exact scores without an engine, the ranks of relevant items, and retrieval metrics over them. Pure.

Ties count against the method: an item is ranked after every irrelevant item with the same score. (Equal scores, above all 0, are
common with token weights, and an arbitrary order would flatter the method.) Ties between relevant items need no rule, since only
the set of their ranks counts. Items that a ranking leaves out come after all items in it.

Shape suffixes: N items of the gallery, D dimensions of a dense vector.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stair_es.types import Floats, SparseVector

RECALL_CUTS = (1, 5, 10)
NDCG_AT = 10
_DRAWS_AT_ONCE = 1 << 20

Doubles = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class RetrievalMetrics:
    """Means over queries, 0..1, and ranks from 1."""

    queries: int
    hit: dict[int, float]
    """Cut -> fraction of queries with a relevant item among the first `cut`: what papers on captions call R@k."""
    recall: dict[int, float]
    """Cut -> fraction of relevant items among the first `cut`: the same if there is one relevant item."""
    ndcg: float
    """At 10, with binary gain and logarithm to base 2."""
    mrr: float
    """Mean reciprocal rank of the first relevant item, without cut."""
    median_rank: float
    """Median rank of the first relevant item."""


def bootstrap_interval(values_N: Doubles, rounds: int = 10_000) -> tuple[float, float]:
    """Return the 95 % interval of the mean of some values: a percentile bootstrap with a fixed seed."""
    rng, size = np.random.default_rng(0), len(values_N)
    together = max(1, _DRAWS_AT_ONCE // size)
    sizes = [min(together, rounds - begin) for begin in range(0, rounds, together)]
    means = np.concatenate([values_N[rng.integers(size, size=(each, size))].mean(axis=1) for each in sizes])
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def compute_ranks(scores_N: Doubles, relevant: Collection[int]) -> tuple[int, ...]:
    """Compute the ranks of the relevant items, ascending.

    Args:
        scores_N: Scores of all items of the gallery.
        relevant: Positions of the relevant items, at least one.
    """
    is_relevant = np.zeros(len(scores_N), dtype=bool)
    is_relevant[list(relevant)] = True
    other_scores = np.sort(scores_N[~is_relevant])
    relevant_scores = np.sort(scores_N[is_relevant])[::-1]
    # Irrelevant items with at least the score of each relevant one.
    counts = len(other_scores) - np.searchsorted(other_scores, relevant_scores, side="left")
    return tuple(int(count) + offset for offset, count in enumerate(counts, 1))


def compute_hit_ranks(items: Sequence[int], scores: Sequence[float], relevant: Collection[int], gallery: int) -> tuple[int, ...]:
    """Compute the ranks of the relevant items in hits that may leave items out, as an engine does without a common token.

    Args:
        items: Positions in the gallery, best first.
        scores: Scores of these items.
        relevant: Positions of the relevant items, at least one.
        gallery: Number of items in the gallery.
    """
    scores_N = np.full(gallery, -np.inf)
    scores_N[list(items)] = scores
    return compute_ranks(scores_N, relevant)


def compute_recall(ranks: Sequence[int], relevant: int, cut: int) -> float:
    """Compute the fraction of relevant items ranked within the cut."""
    return sum(rank <= cut for rank in ranks) / relevant


def compute_reciprocal_rank(ranks: Sequence[int]) -> float:
    """Compute 1 over the first rank; 0 if there is none."""
    return 1 / ranks[0] if ranks else 0.0


def compute_ndcg(ranks: Sequence[int], relevant: int, cut: int) -> float:
    """Compute the discounted gain within the cut, relative to that of an ideal ranking."""
    gain = math.fsum(1 / math.log2(rank + 1) for rank in ranks if rank <= cut)
    ideal = math.fsum(1 / math.log2(rank + 1) for rank in range(1, min(relevant, cut) + 1))
    return gain / ideal if ideal else 0.0


def summarize_ranks(ranks: Sequence[Sequence[int]]) -> RetrievalMetrics:
    """Compute the metrics over queries.

    Args:
        ranks: Per query the ranks of all its relevant items, ascending; at least one query, and one item each.
    """
    return RetrievalMetrics(
        queries=len(ranks),
        hit={cut: statistics.fmean(each[0] <= cut for each in ranks) for cut in RECALL_CUTS},
        recall={cut: statistics.fmean(compute_recall(each, len(each), cut) for each in ranks) for cut in RECALL_CUTS},
        ndcg=statistics.fmean(compute_ndcg(each, len(each), NDCG_AT) for each in ranks),
        mrr=statistics.fmean(compute_reciprocal_rank(each) for each in ranks),
        median_rank=float(statistics.median(each[0] for each in ranks)),
    )


class InvertedIndex:
    """An inverted index in memory: the cost of a query is the number of postings of its tokens."""

    def __init__(self, vectors: Sequence[SparseVector]) -> None:
        """Invert the vectors of the gallery."""
        self._count = len(vectors)
        lists: dict[str, tuple[list[int], list[float]]] = {}
        for item, vector in enumerate(vectors):
            for token, weight in vector:
                items, weights = lists.setdefault(token, ([], []))
                items.append(item)
                weights.append(weight)
        self._lists = {token: (np.array(items), np.array(weights)) for token, (items, weights) in lists.items()}

    def compute_scores(self, query: SparseVector) -> Doubles:
        """Return the scores [N], summed in the order of the query's tokens, so that equal vectors get bitwise equal scores."""
        scores_N = np.zeros(self._count)
        for token, weight in query:
            postings = self._lists.get(token)
            if postings is not None:
                scores_N[postings[0]] += weight * postings[1]
        return scores_N


class DenseIndex:
    """Dense vectors of the gallery."""

    def __init__(self, vectors_ND: Floats) -> None:
        """Convert the vectors to float64."""
        self._vectors_ND = vectors_ND.astype(np.float64)

    def compute_scores(self, query_D: Floats) -> Doubles:
        """Return the scores [N]."""
        scores_N: Doubles = self._vectors_ND @ query_D.astype(np.float64)
        return scores_N
