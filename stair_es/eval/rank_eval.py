"""The cluster's own `_rank_eval` beside our metrics, on the same queries: two implementations that must agree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from opensearchpy import exceptions

from stair_es.cluster.connect import translated
from stair_es.errors import ClusterError
from stair_es.eval.metrics import ndcg, ranks_in_order, recall, reciprocal_rank
from stair_es.ingest.parts import in_parts

if TYPE_CHECKING:
    from stair_es.eval.methods import Clause
    from stair_es.eval.trial import Hits, Trial

AT = 10
MOST_QUERIES = 1000
"""Each is searched once a metric."""
TOLERANCE = 1e-6
_AT_ONCE = 50
_METRICS: Mapping[str, dict[str, Any]] = {
    "recall@10": {"recall": {"k": AT, "relevant_rating_threshold": 1}},
    "MRR@10": {"mean_reciprocal_rank": {"k": AT, "relevant_rating_threshold": 1}},
    "nDCG@10": {"dcg": {"k": AT, "normalize": True}},
}


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """One metric, twice."""

    metric: str
    queries: int
    engine: float
    own: float
    """On the ranking of `_msearch`, ties in the engine's order, nothing beyond its first ten hits."""
    disagreeing: tuple[tuple[int, float, float], ...]
    """Query, the cluster's value, ours: where they differ."""

    @property
    def agrees(self) -> bool:
        """Whether they are the same for each query."""
        return not self.disagreeing


def own_values(hits: Hits, right: Sequence[int]) -> dict[str, float]:
    """Our metrics as `_rank_eval` defines them.

    Its nDCG takes as ideal what the number of hits allows, so a short list is measured by a short ideal.
    """
    found = ranks_in_order(hits.items[:AT], right)
    hits_there = min(len(hits.items), AT)
    return {
        "recall@10": recall(found, len(right), AT),
        "MRR@10": reciprocal_rank(found, AT),
        "nDCG@10": ndcg(found, min(len(right), hits_there), AT),
    }


def compare(
    trial: Trial, asked: Sequence[tuple[int, Clause]], hits: Mapping[int, Hits], right: Sequence[Sequence[int]]
) -> list[Agreement]:
    """Each metric over some queries.

    Args:
        trial: The index.
        asked: The queries by their positions: at most `MOST_QUERIES` are worth it.
        hits: What they found by `_msearch`.
        right: The right items of every query.

    Raises:
        ClusterError: The cluster has no `_rank_eval`, or failed it; the message says which.
    """
    own = {query: own_values(hits[query], right[query]) for query, _ in asked}
    agreements = []
    for name, metric in _METRICS.items():
        theirs: dict[int, float] = {}
        for part in in_parts(asked, _AT_ONCE):
            theirs |= _ask(trial, part, right, metric)
        agreements.append(_agreement(name, theirs, {query: values[name] for query, values in own.items()}))
    return agreements


def _agreement(metric: str, theirs: Mapping[int, float], ours: Mapping[int, float]) -> Agreement:
    missing = math.nan  # a query that the cluster doesn't mention disagrees
    pairs = [(query, theirs.get(query, missing), value) for query, value in ours.items()]
    return Agreement(
        metric=metric,
        queries=len(ours),
        engine=math.fsum(theirs.values()) / len(ours) if ours else 0.0,
        own=math.fsum(ours.values()) / len(ours) if ours else 0.0,
        disagreeing=tuple(pair for pair in pairs if not abs(pair[1] - pair[2]) <= TOLERANCE),
    )


def _ask(
    trial: Trial, part: Sequence[tuple[int, Clause]], right: Sequence[Sequence[int]], metric: Mapping[str, Any]
) -> dict[int, float]:
    requests = [
        {
            "id": str(query),
            "request": {"query": clause, "_source": False, "size": AT},
            "ratings": [{"_index": trial.index, "_id": str(item), "rating": 1} for item in right[query]],
        }
        for query, clause in part
    ]
    call = partial(
        trial.client.transport.perform_request,
        "POST",
        f"/{trial.index}/_rank_eval",
        params={"filter_path": "details.*.metric_score,failures"},
        body={"requests": requests, "metric": dict(metric)},
    )
    try:
        with translated(trial.connection, but=_is_absent):
            answer = call()
    except exceptions.TransportError as error:
        raise ClusterError("the cluster has no _rank_eval: its module rank-eval isn't there") from error
    failures = answer.get("failures")
    if failures:
        raise ClusterError(f"_rank_eval failed: {str(failures)[:300]}")
    return {int(query): float(detail["metric_score"]) for query, detail in answer.get("details", {}).items()}


def _is_absent(error: exceptions.TransportError) -> bool:
    """The answer to a path that no module serves."""
    return error.status_code in (400, 405) and any(
        said in str(error.info) for said in ("no handler found", "Incorrect HTTP method")
    )
