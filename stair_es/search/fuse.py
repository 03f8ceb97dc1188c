"""Rankings -> one ranking. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

RANK_CONSTANT = 60


def reciprocal_ranks(
    rankings: Sequence[Sequence[str]], weights: Sequence[float], rank_constant: int = RANK_CONSTANT
) -> list[tuple[str, float]]:
    """Ids with the sum of `weight / (rank_constant + rank)` over the rankings that have them, best first (ties by id).

    Reciprocal rank fusion: Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
    Learning Methods", SIGIR 2009; ranks count from 1.
    """
    scores: defaultdict[str, float] = defaultdict(float)
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, id_ in enumerate(ranking, start=1):
            scores[id_] += weight / (rank_constant + rank)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
