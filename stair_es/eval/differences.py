"""Where the engine's ranking differs from the exact one, and whether 9 bits of a weight explain it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stair_es.eval.metrics import Doubles

AT = 10
NINE_BITS = 2.0**-8
"""Lucene keeps a weight with 9 significant bits, truncated: a score is too small by less than this share."""
_ROUNDING = 1e-5
"""Of float32 sums, beside that."""
_MOST_EXAMPLES = 50


@dataclass(frozen=True, kw_only=True)
class Swap:
    """A place in the ranking where the engine has another item."""

    query: int
    rank: int
    engine_item: int
    exact_item: int
    engine_item_score: float
    """Both by the exact score."""
    exact_item_score: float


@dataclass(kw_only=True)
class Differences:
    """Over the first ten hits of the queries of one method."""

    queries: int = 0
    same: int = 0
    """Queries with the same items in the same order."""
    explained: int = 0
    """Queries whose differences are between items as near as the engine's precision."""
    unexplained: int = 0
    cut: int = 0
    """Queries of which the clause limit left words out: not compared."""
    overlap: float = 0.0
    """Mean share of the exact first ten that are among the engine's."""
    lowest: float = 0.0
    """Smallest and largest of engine score / exact score - 1; 0 for a method whose engine score is on another scale."""
    highest: float = 0.0
    swaps: list[Swap] = field(default_factory=list)
    """Some of the differences."""


def compare(query: int, scores_N: Doubles, items: Sequence[int], scores: Sequence[float], *, nine_bits: bool) -> Differences:
    """The first ten of one query.

    Args:
        query: Its position.
        scores_N: Exact, of the gallery.
        items: The engine's ranking.
        scores: Of these, as the engine says.
        nine_bits: Whether engine scores must be the exact ones, up to the precision. Otherwise only the order is looked at, and
            no difference counts as explained.
    """
    best = [int(item) for item in np.lexsort((np.arange(len(scores_N)), -scores_N))[:AT]]
    if nine_bits:
        best = [item for item in best if scores_N[item] > 0]  # an engine finds only what has a word in common
    first = list(items[: len(best)])
    overlap = len(set(best) & set(first)) / len(best) if best else 1.0
    shares = [_share(score, float(scores_N[item])) for item, score in zip(items[:AT], scores, strict=False)] if nine_bits else []
    found = Differences(queries=1, overlap=overlap, lowest=min(shares, default=0.0), highest=max(shares, default=0.0))
    within = found.lowest >= -NINE_BITS - _ROUNDING and found.highest <= _ROUNDING
    if best == first and within:
        found.same = 1
        return found
    found.swaps = [_swap(query, rank, mine, theirs, scores_N) for rank, (mine, theirs) in _other(first, best)]
    near = all(swap.engine_item_score >= swap.exact_item_score * (1 - NINE_BITS - _ROUNDING) for swap in found.swaps)
    explained = nine_bits and within and near and len(first) == len(best)
    found.explained, found.unexplained = int(explained), int(not explained)
    return found


def total(each: Sequence[Differences], cut: int) -> Differences:
    """All queries of a method together; `cut` of them weren't compared."""
    return Differences(
        queries=len(each),
        same=sum(one.same for one in each),
        explained=sum(one.explained for one in each),
        unexplained=sum(one.unexplained for one in each),
        cut=cut,
        overlap=sum(one.overlap for one in each) / len(each) if each else 0.0,
        lowest=min((one.lowest for one in each), default=0.0),
        highest=max((one.highest for one in each), default=0.0),
        swaps=[swap for one in each for swap in one.swaps][:_MOST_EXAMPLES],
    )


def _share(engine: float, exact: float) -> float:
    """By what share the engine's score is larger than the exact one; infinite for an item that it mustn't find."""
    return engine / exact - 1 if exact > 0 else math.inf


def _other(first: Sequence[int], best: Sequence[int]) -> list[tuple[int, tuple[int, int]]]:
    pairs = enumerate(zip(first, best, strict=False), 1)
    return [(rank, (mine, theirs)) for rank, (mine, theirs) in pairs if mine != theirs]


def _swap(query: int, rank: int, engine_item: int, exact_item: int, scores_N: Doubles) -> Swap:
    return Swap(
        query=query,
        rank=rank,
        engine_item=engine_item,
        exact_item=exact_item,
        engine_item_score=float(scores_N[engine_item]),
        exact_item_score=float(scores_N[exact_item]),
    )


def named(swap: Swap, queries: Sequence[str], items: Sequence[str]) -> dict[str, Any]:
    """A difference with names in the place of positions, for JSON."""
    return {
        "query": queries[swap.query],
        "rank": swap.rank,
        "engine": {"item": items[swap.engine_item], "exact_score": swap.engine_item_score},
        "exact": {"item": items[swap.exact_item], "exact_score": swap.exact_item_score},
    }
