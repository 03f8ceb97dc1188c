"""The cluster's own `_rank_eval` on the queries of an evaluation, and our metrics as it defines them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stair_es.eval.metrics import compute_ndcg, compute_recall, compute_reciprocal_rank

if TYPE_CHECKING:
    from collections.abc import Collection

    from stair_es.eval.retrieval.methods import Clause
    from stair_es.eval.retrieval.temporary_index import EngineHits, TemporaryIndex

AT = 10
"""Hits that are looked at."""
_METRICS: Mapping[str, dict[str, Any]] = {
    "recall@10": {"recall": {"k": AT, "relevant_rating_threshold": 1}},
    "MRR@10": {"mean_reciprocal_rank": {"k": AT, "relevant_rating_threshold": 1}},
    "nDCG@10": {"dcg": {"k": AT, "normalize": True}},
}


def own_values(hits: EngineHits, right: Sequence[int]) -> dict[str, float]:
    """Return our metrics of one query as `_rank_eval` defines them: ties in the engine's order, nothing beyond the tenth hit.

    Its nDCG takes as ideal what the number of hits allows, so a short list is measured by a short ideal.
    """
    found = ranks_in_order(hits.items[:AT], right)
    hits_there = min(len(hits.items), AT)
    return {
        "recall@10": compute_recall(found, len(right), AT),
        "MRR@10": compute_reciprocal_rank(found),
        "nDCG@10": compute_ndcg(found, min(len(right), hits_there), AT),
    }


def ranks_in_order(items: Sequence[int], right: Collection[int]) -> tuple[int, ...]:
    """Return the ranks of those right items that are in a ranking, ties as the ranking has them."""
    wanted = set(right)
    return tuple(place for place, item in enumerate(items, 1) if item in wanted)


def ask_rank_eval(
    trial: TemporaryIndex, clauses: Mapping[int, Clause], right: Sequence[Sequence[int]]
) -> dict[int, dict[str, float]]:
    """Return what the cluster says of each query: metric -> value.

    Args:
        trial: The index.
        clauses: The queries by their positions.
        right: The right items of every query.
    """
    found: dict[int, dict[str, float]] = {query: {} for query in clauses}
    requests = [
        {
            "id": str(query),
            "request": {"query": clause, "_source": False, "size": AT},
            "ratings": [{"_index": trial.index, "_id": str(item), "rating": 1} for item in right[query]],
        }
        for query, clause in clauses.items()
    ]
    for name, metric in _METRICS.items():
        answer = trial.cluster.client.rank_eval(index=trial.index, body={"requests": requests, "metric": metric})
        assert not answer["failures"], answer["failures"]
        for query, detail in answer["details"].items():
            found[int(query)][name] = float(detail["metric_score"])
    return found
