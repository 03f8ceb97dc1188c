"""Lanes: each has its cluster and plays its kinds one after the other. They run side by side: a round is mostly waiting."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from support.nodes.search_nodes import opensearch_cluster
from support.servers.fault_proxy import FaultProxy, Request

from .base import Place, Round, play
from .command import Ended, run_within
from .corpus import Corpus
from .disk import can_mount, small_disk
from .kinds import KINDS, Lane
from .truth import Cluster

_HEAP = "256m"
_NODE_DISK_BYTES = 640 * 2**20
"""Above the 400 MB that the embedded node wants to have free; only what is written takes memory."""

Report = Callable[[str, int, Round], None]
"""Gets the kind, the number of the round from 1, and the round."""


@dataclass(frozen=True)
class Plan:
    """What is to be done."""

    kinds: Sequence[str]
    rounds: int
    seed: int
    url: str | None
    """A node that nobody kills; `None`: one is started."""
    is_over: Callable[[], bool]
    """Whether no further round is to begin."""

    def of(self, lane: Lane) -> list[str]:
        """The kinds of a lane."""
        return [kind for kind in self.kinds if KINDS[kind].lane == lane]


def play_all(plan: Plan, corpus: Corpus, scratch: Path, report: Report) -> None:
    """All rounds of all kinds."""
    lanes: list[Lane] = [lane for lane in ("three", "own", "ray", "shared") if plan.of(lane)]
    with ThreadPoolExecutor(len(lanes)) as pool:
        for ended in [pool.submit(_play_lane, lane, plan, corpus, scratch / lane, report) for lane in lanes]:
            ended.result()


def _play_lane(lane: Lane, plan: Plan, corpus: Corpus, scratch: Path, report: Report) -> None:
    """In one thread, with which the nodes that it started end."""
    scratch.mkdir()
    with _open(lane, plan, corpus, scratch) as place, place.stack:
        _measure(place)
        for turn in range(plan.rounds):
            for kind in plan.of(lane):
                if plan.is_over():
                    return
                report(kind, turn + 1, _timed(kind, place, turn))


def _timed(kind: str, place: Place, turn: int) -> Round:
    start = time.perf_counter()
    index = f"{kind}-{turn}"
    try:
        played = play(KINDS[kind].act, place, index, turn)
    except Exception as error:  # noqa: BLE001  a round that can't be judged is one that failed
        played = Round(Ended(1, {"error": "unknown"}, ""), wrong=[f"round {turn + 1}: {type(error).__name__}: {error}"])
    played.seconds = time.perf_counter() - start
    return played


@contextmanager
def _open(lane: Lane, plan: Plan, corpus: Corpus, scratch: Path) -> Iterator[Place]:
    lot = random.Random(f"{plan.seed} {lane}")
    if lane in ("shared", "ray") and plan.url:
        yield Place(corpus, scratch, lot, Cluster(plan.url))
    elif lane == "own" and can_mount():
        with small_disk(scratch / "disk", _NODE_DISK_BYTES) as disk, opensearch_cluster(disk.folder, size=1, heap=_HEAP) as own:
            yield Place(corpus, scratch, lot, Cluster(own.url), own.nodes, disk)
    else:
        with opensearch_cluster(scratch / "nodes", size=3 if lane == "three" else 1, heap=_HEAP) as own:
            yield Place(corpus, scratch, lot, Cluster(own.nodes[0].url), own.nodes)


def _measure(place: Place) -> None:
    """Count the requests of an undisturbed run."""
    seen, bulks, index = count(), count(), f"undisturbed-{place.scratch.name}"

    def look(request: Request) -> None:
        next(seen)
        if request.is_bulk:
            next(bulks)

    with FaultProxy(place.cluster.url, look) as proxy:
        run_within([place.corpus.images], proxy.url, index, place.scratch / f"{index}.jsonl")
    place.requests, place.bulks = next(seen), next(bulks)
    with suppress(RuntimeError):
        place.cluster.delete(place.cluster.indices_of(index))
