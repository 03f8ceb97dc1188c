"""Our metrics against trec_eval's, ties and missing items included."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import numpy as np
import pytest
from support.oracles.rank_eval import find_ranks

from stair_es.eval.metrics import (
    RetrievalMetrics,
    compute_hit_ranks,
    compute_ndcg,
    compute_ranks,
    compute_recall,
    compute_reciprocal_rank,
    summarize_ranks,
)

MEASURES = {"ndcg_cut.10", "recall.1,5,10", "success.1,5,10", "recip_rank"}


def compute_trec_means(scores_QN: np.ndarray[Any, Any], relevant: list[list[int]]) -> dict[str, float]:
    """Return the means of trec_eval over the same rankings."""
    pytrec_eval = pytest.importorskip("pytrec_eval")
    expected = {str(query): {str(item): 1 for item in items} for query, items in enumerate(relevant)}
    rows = {
        str(query): {str(item): float(score) for item, score in enumerate(scores_N)} for query, scores_N in enumerate(scores_QN)
    }
    result = pytrec_eval.RelevanceEvaluator(expected, MEASURES).evaluate(rows)
    return {name: fmean(metrics[name] for metrics in result.values()) for name in next(iter(result.values()))}


def assert_same_means(ours: RetrievalMetrics, theirs: dict[str, float]) -> None:
    assert ours.ndcg == pytest.approx(theirs["ndcg_cut_10"], abs=1e-9)
    assert ours.mrr == pytest.approx(theirs["recip_rank"], abs=1e-9)
    for cut in (1, 5, 10):
        assert ours.hit[cut] == pytest.approx(theirs[f"success_{cut}"], abs=1e-9)
        assert ours.recall[cut] == pytest.approx(theirs[f"recall_{cut}"], abs=1e-9)


@pytest.mark.parametrize(("items", "max_relevant"), [(3, 1), (12, 5), (40, 15), (200, 1), (200, 12)])
def test_metrics_equal_trec_eval(items: int, max_relevant: int) -> None:
    rng = np.random.default_rng(items * 100 + max_relevant)
    scores_QN = rng.permuted(np.tile(np.arange(items, dtype=np.float64), (50, 1)), axis=1)
    relevant = [sorted(map(int, rng.choice(items, rng.integers(1, max_relevant + 1), replace=False))) for _ in scores_QN]
    ours = summarize_ranks([compute_ranks(scores_N, own) for scores_N, own in zip(scores_QN, relevant, strict=True)])
    assert ours.queries == 50
    assert_same_means(ours, compute_trec_means(scores_QN, relevant))


def test_ties_equal_trec_eval_with_lowered_relevant_items() -> None:
    rng = np.random.default_rng(5)
    scores_QN = rng.integers(0, 4, (60, 30)).astype(np.float64)
    relevant = [sorted(map(int, rng.choice(30, 3, replace=False))) for _ in scores_QN]
    lowered_QN = scores_QN + rng.permutation(30) * 1e-6
    for scores_N, own in zip(lowered_QN, relevant, strict=True):
        scores_N[own] -= 1e-3
    ours = summarize_ranks([compute_ranks(scores_N, own) for scores_N, own in zip(scores_QN, relevant, strict=True)])
    assert_same_means(ours, compute_trec_means(lowered_QN, relevant))


def test_ties_rank_wrong_items_first() -> None:
    scores_N = np.array([0.5, 0.5, 0.9, 0.0, 0.0])
    assert compute_ranks(scores_N, [0]) == (3,)
    assert compute_ranks(scores_N, [0, 1]) == (2, 3)
    assert compute_ranks(scores_N, [2, 4]) == (1, 5)
    assert compute_ranks(np.zeros(4), [1]) == (4,)


def test_missing_items_rank_last_like_a_score_of_0() -> None:
    rng = np.random.default_rng(6)
    for _ in range(200):
        scores_N = np.where(rng.random(25) < 0.4, 0.0, rng.integers(1, 6, 25)).astype(np.float64)
        relevant = sorted(map(int, rng.choice(25, rng.integers(1, 6), replace=False)))
        items = [int(item) for item in np.lexsort((np.arange(25), -scores_N)) if scores_N[item] > 0]
        assert compute_hit_ranks(items, [float(scores_N[item]) for item in items], relevant, 25) == compute_ranks(
            scores_N, relevant
        )
    assert compute_hit_ranks([], [], [2, 3], 10) == (9, 10)


def test_one_known_query() -> None:
    ranks = find_ranks([7, 3, 9, 1], {3, 1, 5})
    assert ranks == (2, 4)
    assert compute_recall(ranks, 3, 3) == pytest.approx(1 / 3)
    assert compute_reciprocal_rank(ranks) == 0.5
    ideal = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    assert compute_ndcg(ranks, 3, 10) == pytest.approx((1 / np.log2(3) + 1 / np.log2(5)) / ideal)
    assert (compute_recall((), 3, 10), compute_reciprocal_rank(()), compute_ndcg((), 0, 10)) == (0.0, 0.0, 0.0)


def test_median_rank_and_means() -> None:
    ours = summarize_ranks([(1, 2), (4,), (20, 21)])
    assert ours.median_rank == 4
    assert ours.hit == {1: pytest.approx(1 / 3), 5: pytest.approx(2 / 3), 10: pytest.approx(2 / 3)}
    assert ours.recall == {1: pytest.approx(1 / 6), 5: pytest.approx(2 / 3), 10: pytest.approx(2 / 3)}
    assert ours.mrr == pytest.approx((1 + 1 / 4 + 1 / 20) / 3)
