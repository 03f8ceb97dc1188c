"""The cluster's own `_rank_eval` on the queries of an evaluation, and our metrics as it defines them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stair_es.eval.metrics import compute_ndcg, compute_recall, compute_reciprocal_rank

if TYPE_CHECKING:
    from collections.abc import Collection

    from stair_es.eval.retrieval.methods import Clause
    from stair_es.eval.retrieval.runner import EngineHits, TemporaryIndex

AT = 10
"""Number of hits."""
_METRICS: Mapping[str, dict[str, Any]] = {
    "recall@10": {"recall": {"k": AT, "relevant_rating_threshold": 1}},
    "MRR@10": {"mean_reciprocal_rank": {"k": AT, "relevant_rating_threshold": 1}},
    "nDCG@10": {"dcg": {"k": AT, "normalize": True}},
}


def compute_metrics(hits: EngineHits, relevant: Sequence[int]) -> dict[str, float]:
    """Return our metrics of one query as `_rank_eval` defines them: ties in the engine's order, nothing beyond the tenth hit.

    Its nDCG takes as ideal what the number of hits allows, so a short list is measured by a short ideal.
    """
    ranks = find_ranks(hits.items[:AT], relevant)
    hit_count = min(len(hits.items), AT)
    return {
        "recall@10": compute_recall(ranks, len(relevant), AT),
        "MRR@10": compute_reciprocal_rank(ranks),
        "nDCG@10": compute_ndcg(ranks, min(len(relevant), hit_count), AT),
    }


def find_ranks(items: Sequence[int], relevant: Collection[int]) -> tuple[int, ...]:
    """Return the ranks of the relevant items in a ranking, with ties in its order."""
    relevant_set = set(relevant)
    return tuple(rank for rank, item in enumerate(items, 1) if item in relevant_set)


def run_rank_eval(
    index: TemporaryIndex, clauses: Mapping[int, Clause], relevant: Sequence[Sequence[int]]
) -> dict[int, dict[str, float]]:
    """Return the metrics of the cluster for each query: metric -> value.

    Args:
        index: The index.
        clauses: The queries by their positions.
        relevant: The right items of every query.
    """
    metrics: dict[int, dict[str, float]] = {query: {} for query in clauses}
    requests = [
        {
            "id": str(query),
            "request": {"query": clause, "_source": False, "size": AT},
            "ratings": [{"_index": index.index, "_id": str(item), "rating": 1} for item in relevant[query]],
        }
        for query, clause in clauses.items()
    ]
    for name, metric in _METRICS.items():
        response = index.cluster.client.rank_eval(index=index.index, body={"requests": requests, "metric": metric})
        assert not response["failures"], response["failures"]
        for query, detail in response["details"].items():
            metrics[int(query)][name] = float(detail["metric_score"])
    return metrics
