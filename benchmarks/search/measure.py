"""Measure several search methods alternately, for `query.py` and `query_causes.py`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from harness.http import Http

from search.arms import Arm
from search.indices import Loaded
from search.queries import NINE_BITS, Queries, Truth


@dataclass(frozen=True, kw_only=True)
class Row:
    """One arm, for one number of tokens."""

    size: int
    arm: str
    clauses: float
    """Mean number of clauses sent."""
    p50_ms: float
    p95_ms: float
    p99_ms: float
    best_p50_ms: float
    """Median over the queries of the best round, to reduce the influence of other programs."""
    took_p50_ms: float
    recall: float | None
    recall_9_bits: float | None
    """Recall that also counts documents that 9 bits can't distinguish from the tenth best."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """One corpus on one node."""

    docs: int
    engine: str
    segments: dict[str, int]
    loaded: dict[str, Loaded]
    rows: list[Row]
    postings: dict[int, float]
    """Number of tokens -> mean postings of a query per document."""
    photos: dict[str, list[float]]
    """R@1/5/10 of each kind on real photographs; empty if there were none."""


@dataclass(kw_only=True)
class Samples:
    """The measurements of one arm."""

    wall_ms: list[list[float]]
    """Times by round and query."""
    took_ms: list[float]
    recalls: list[tuple[float, float]]
    clauses: list[int]


def measure_arms(
    http: Http, prefix: str, arms: Sequence[Arm], queries: Queries, truths: dict[str, list[Truth]], *, rounds: int = 3
) -> list[Row]:
    """Measure all arms on all queries, alternating; the first round isn't measured."""
    count, rng = len(queries.vectors), np.random.default_rng(queries.size)
    seen = {arm.name: Samples(wall_ms=[[] for _ in range(count)], took_ms=[], recalls=[], clauses=[]) for arm in arms}
    for warm in range(1 + rounds):
        for number, vector in enumerate(queries.vectors):
            dense = queries.dense_QD[number].tolist()
            for arm in (arms[i] for i in rng.permutation(len(arms))):  # a fixed order would warm the cache for the next arm
                body = orjson.dumps(arm.body(vector, dense))
                began_s = time.perf_counter()
                raw = http.request_bytes("POST", f"/{prefix}-{arm.kind}/_search", body)
                spent_ms = 1000 * (time.perf_counter() - began_s)
                if not warm:
                    continue
                samples, answer = seen[arm.name], orjson.loads(raw)
                samples.wall_ms[number].append(spent_ms)
                samples.took_ms.append(answer["took"])
                samples.clauses.append(body.count(b'"boost"'))
                if arm.truth:
                    found = [int(hit["_id"]) for hit in answer["hits"]["hits"]]
                    truth = truths[arm.truth][number]
                    samples.recalls.append((truth.compute_recall(found), truth.compute_recall(found, slack=NINE_BITS)))
    return [_summarize(queries.size, name, samples) for name, samples in seen.items() if samples.clauses]


def _summarize(size: int, arm: str, seen: Samples) -> Row:
    every_ms = np.array(seen.wall_ms)
    p50_ms, p95_ms, p99_ms = (float(share) for share in np.percentile(every_ms, (50, 95, 99)))
    recall, recall_9_bits = np.mean(seen.recalls, axis=0).tolist() if seen.recalls else (None, None)
    return Row(
        size=size,
        arm=arm,
        clauses=float(np.mean(seen.clauses)),
        p50_ms=p50_ms,
        p95_ms=p95_ms,
        p99_ms=p99_ms,
        best_p50_ms=float(np.median(every_ms.min(axis=1))),
        took_p50_ms=float(np.median(seen.took_ms)),
        recall=recall,
        recall_9_bits=recall_9_bits,
    )
