"""Compare the engine's ranking with the exact one, and check whether 9-bit weights explain the differences. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stair_es.eval.metrics import Doubles

COMPARED_HITS = 10
"""Number of hits that are compared."""
NINE_BITS = 2.0**-8
"""Lucene truncates a weight to 9 significant bits: a score is too low by less than this fraction."""
_ROUNDING = 1e-5
"""Relative rounding error of float32 sums, in addition."""
_MAX_EXAMPLES = 50


@dataclass(frozen=True, kw_only=True)
class RankSwap:
    """A rank at which the engine has another item."""

    query: int
    rank: int
    engine_item: int
    exact_item: int
    engine_item_score: float
    """Exact score, like the next one."""
    exact_item_score: float


@dataclass(kw_only=True)
class RankingDiff:
    """Differences in the first ten hits of a method's queries."""

    queries: int = 0
    same: int = 0
    """Queries with the same items in the same order."""
    explained: int = 0
    """Queries whose differing items have scores within the engine's precision."""
    unexplained: int = 0
    truncated: int = 0
    """Queries truncated by the clause limit, which aren't compared."""
    overlap: float = 0.0
    """Mean fraction of the exact first ten among the engine's."""
    lowest: float = 0.0
    """Minimum and maximum of engine score / exact score - 1; 0 for methods whose engine scores are on another scale."""
    highest: float = 0.0
    swaps: list[RankSwap] = field(default_factory=list)
    """Some of the differences."""


def compare_rankings(
    query: int, scores_N: Doubles, items: Sequence[int], scores: Sequence[float], *, nine_bits: bool
) -> RankingDiff:
    """Compare the first ten hits of one query.

    Args:
        query: Position of the query.
        scores_N: Exact scores of the gallery.
        items: Ranking of the engine.
        scores: The engine's scores of these items.
        nine_bits: Whether engine scores must equal the exact ones up to the precision. If not, only the order is compared, and no
            difference counts as explained.
    """
    exact_items = [int(item) for item in np.lexsort((np.arange(len(scores_N)), -scores_N))[:COMPARED_HITS]]
    if nine_bits:
        exact_items = [item for item in exact_items if scores_N[item] > 0]  # an engine finds only items with a common token
    engine_items = list(items[: len(exact_items)])
    overlap = len(set(exact_items) & set(engine_items)) / len(exact_items) if exact_items else 1.0
    errors = (
        [
            _compute_relative_error(score, float(scores_N[item]))
            for item, score in zip(items[:COMPARED_HITS], scores, strict=False)
        ]
        if nine_bits
        else []
    )
    diff = RankingDiff(queries=1, overlap=overlap, lowest=min(errors, default=0.0), highest=max(errors, default=0.0))
    is_precise = diff.lowest >= -NINE_BITS - _ROUNDING and diff.highest <= _ROUNDING
    if exact_items == engine_items and is_precise:
        diff.same = 1
        return diff
    diff.swaps = [
        _build_swap(query, rank, engine_item, exact_item, scores_N)
        for rank, (engine_item, exact_item) in _list_mismatches(engine_items, exact_items)
    ]
    are_near = all(swap.engine_item_score >= swap.exact_item_score * (1 - NINE_BITS - _ROUNDING) for swap in diff.swaps)
    explained = nine_bits and is_precise and are_near and len(engine_items) == len(exact_items)
    diff.explained, diff.unexplained = int(explained), int(not explained)
    return diff


def sum_ranking_diffs(diffs: Sequence[RankingDiff], truncated: int) -> RankingDiff:
    """Sum the differences of a method's queries."""
    return RankingDiff(
        queries=len(diffs),
        same=sum(diff.same for diff in diffs),
        explained=sum(diff.explained for diff in diffs),
        unexplained=sum(diff.unexplained for diff in diffs),
        truncated=truncated,
        overlap=sum(diff.overlap for diff in diffs) / len(diffs) if diffs else 0.0,
        lowest=min((diff.lowest for diff in diffs), default=0.0),
        highest=max((diff.highest for diff in diffs), default=0.0),
        swaps=[swap for diff in diffs for swap in diff.swaps][:_MAX_EXAMPLES],
    )


def _compute_relative_error(engine: float, exact: float) -> float:
    """Return the relative error of an engine score; infinite for an item that shouldn't be found."""
    return engine / exact - 1 if exact > 0 else math.inf


def _list_mismatches(engine_items: Sequence[int], exact_items: Sequence[int]) -> list[tuple[int, tuple[int, int]]]:
    pairs = enumerate(zip(engine_items, exact_items, strict=False), 1)
    return [(rank, (engine_item, exact_item)) for rank, (engine_item, exact_item) in pairs if engine_item != exact_item]


def _build_swap(query: int, rank: int, engine_item: int, exact_item: int, scores_N: Doubles) -> RankSwap:
    return RankSwap(
        query=query,
        rank=rank,
        engine_item=engine_item,
        exact_item=exact_item,
        engine_item_score=float(scores_N[engine_item]),
        exact_item_score=float(scores_N[exact_item]),
    )


def describe_swap(swap: RankSwap, queries: Sequence[str], items: Sequence[str]) -> dict[str, Any]:
    """Return a difference with names instead of positions, for JSON."""
    return {
        "query": queries[swap.query],
        "rank": swap.rank,
        "engine": {"item": items[swap.engine_item], "exact_score": swap.engine_item_score},
        "exact": {"item": items[swap.exact_item], "exact_score": swap.exact_item_score},
    }
