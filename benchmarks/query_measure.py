"""Asking in several ways by turns: what `query.py` and `query_causes.py` share."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from query_arms import Arm
from query_load import Http, Loaded
from query_questions import NINE_BITS, Questions, Truth


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way to search, for one number of words."""

    features: int
    way: str
    words: float
    """Clauses that were sent, on average."""
    p50_ms: float
    p95_ms: float
    p99_ms: float
    best_p50_ms: float
    """Median over the questions of the best of the rounds: what is left when other programs are not in the way."""
    took_p50_ms: float
    recall: float | None
    recall_9_bits: float | None
    """Documents count that 9 bits can't tell from the last of the ten best."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """One corpus on one node."""

    docs: int
    engine: str
    segments: dict[str, int]
    loaded: dict[str, Loaded]
    rows: list[Row]
    photos: dict[str, list[float]]
    """R@1/5/10 of each kind on real photographs; empty where there were none."""


@dataclass(kw_only=True)
class Samples:
    """What was seen of one way."""

    wall_ms: list[list[float]]
    """Of each question, in each round."""
    took_ms: list[float]
    recalls: list[tuple[float, float]]
    words: list[int]


def measure(
    http: Http, prefix: str, ways: Sequence[Arm], questions: Questions, truths: dict[str, list[Truth]], *, rounds: int = 3
) -> list[Row]:
    """All ways on all questions, in turns; the first round isn't measured."""
    count, rng = len(questions.vectors), np.random.default_rng(questions.features)
    seen = {way.name: Samples(wall_ms=[[] for _ in range(count)], took_ms=[], recalls=[], words=[]) for way in ways}
    for warm in range(1 + rounds):
        for number, vector in enumerate(questions.vectors):
            dense = questions.dense_QD[number].tolist()
            for way in (ways[i] for i in rng.permutation(len(ways))):  # a fixed order would let one warm the cache for the next
                body = orjson.dumps(way.body(vector, dense))
                began_s = time.perf_counter()
                raw = http.raw("POST", f"/{prefix}-{way.kind}/_search", body)
                spent_ms = 1000 * (time.perf_counter() - began_s)
                if not warm:
                    continue
                samples, answer = seen[way.name], orjson.loads(raw)
                samples.wall_ms[number].append(spent_ms)
                samples.took_ms.append(answer["took"])
                samples.words.append(body.count(b'"boost"'))
                if way.truth:
                    found = [int(hit["_id"]) for hit in answer["hits"]["hits"]]
                    truth = truths[way.truth][number]
                    samples.recalls.append((truth.recall(found), truth.recall(found, slack=NINE_BITS)))
    return [_row(questions.features, name, samples) for name, samples in seen.items() if samples.words]


def _row(features: int, way: str, seen: Samples) -> Row:
    every_ms = np.array(seen.wall_ms)
    p50_ms, p95_ms, p99_ms = (float(share) for share in np.percentile(every_ms, (50, 95, 99)))
    recall, recall_9_bits = np.mean(seen.recalls, axis=0).tolist() if seen.recalls else (None, None)
    return Row(
        features=features,
        way=way,
        words=float(np.mean(seen.words)),
        p50_ms=p50_ms,
        p95_ms=p95_ms,
        p99_ms=p99_ms,
        best_p50_ms=float(np.median(every_ms.min(axis=1))),
        took_p50_ms=float(np.median(seen.took_ms)),
        recall=recall,
        recall_9_bits=recall_9_bits,
    )
