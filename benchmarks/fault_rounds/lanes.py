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

from support.nodes.search_nodes import build_cluster
from support.servers.fault_proxy import FaultProxy, Request

from .base import Round, Testbed, play_round
from .cluster_state import Cluster
from .command import CommandResult, run_in_process
from .corpus import Corpus
from .disk import can_mount, mount_small_disk
from .kinds import KINDS, Lane

_HEAP = "256m"
_NODE_DISK_BYTES = 640 * 2**20
"""Above the 400 MB that the embedded node wants to have free; only what is written takes memory."""

Report = Callable[[str, int, Round], None]
"""Called with the kind, the number of the round from 1, and the round."""


@dataclass(frozen=True)
class Plan:
    """The rounds to play."""

    kinds: Sequence[str]
    rounds: int
    seed: int
    url: str | None
    """URL of a node that is never killed; None to start one."""
    is_over: Callable[[], bool]
    """Returns whether to begin no further round."""

    def list_kinds(self, lane: Lane) -> list[str]:
        """Return the kinds of a lane."""
        return [kind for kind in self.kinds if KINDS[kind].lane == lane]


def play_rounds(plan: Plan, corpus: Corpus, scratch: Path, report: Report) -> None:
    """Play all rounds of all kinds."""
    lanes: list[Lane] = [lane for lane in ("three", "own", "ray", "shared") if plan.list_kinds(lane)]
    with ThreadPoolExecutor(len(lanes)) as pool:
        for ended in [pool.submit(_play_lane, lane, plan, corpus, scratch / lane, report) for lane in lanes]:
            ended.result()


def _play_lane(lane: Lane, plan: Plan, corpus: Corpus, scratch: Path, report: Report) -> None:
    """Play the rounds of a lane in one thread; its nodes are stopped at the end."""
    scratch.mkdir()
    with _open_testbed(lane, plan, corpus, scratch) as testbed, testbed.stack:
        _count_requests(testbed)
        for turn in range(plan.rounds):
            for kind in plan.list_kinds(lane):
                if plan.is_over():
                    return
                report(kind, turn + 1, _play_timed(kind, testbed, turn))


def _play_timed(kind: str, testbed: Testbed, turn: int) -> Round:
    start = time.perf_counter()
    index = f"{kind}-{turn}"
    try:
        played = play_round(KINDS[kind].act, testbed, index, turn)
    except Exception as error:  # noqa: BLE001  a round that can't be checked has failed
        played = Round(CommandResult(1, {"error": "unknown"}, ""), wrong=[f"round {turn + 1}: {type(error).__name__}: {error}"])
    played.seconds = time.perf_counter() - start
    return played


@contextmanager
def _open_testbed(lane: Lane, plan: Plan, corpus: Corpus, scratch: Path) -> Iterator[Testbed]:
    rng = random.Random(f"{plan.seed} {lane}")
    if lane in ("shared", "ray") and plan.url:
        yield Testbed(corpus, scratch, rng, Cluster(plan.url))
    elif lane == "own" and can_mount():
        with (
            mount_small_disk(scratch / "disk", _NODE_DISK_BYTES) as disk,
            build_cluster(disk.folder, size=1, heap=_HEAP) as own,
        ):
            yield Testbed(corpus, scratch, rng, Cluster(own.url), own.nodes, disk)
    else:
        with build_cluster(scratch / "nodes", size=3 if lane == "three" else 1, heap=_HEAP) as own:
            yield Testbed(corpus, scratch, rng, Cluster(own.nodes[0].url), own.nodes)


def _count_requests(testbed: Testbed) -> None:
    """Count the requests of an undisturbed run."""
    seen, bulks, index = count(), count(), f"undisturbed-{testbed.scratch.name}"

    def look(request: Request) -> None:
        next(seen)
        if request.is_bulk:
            next(bulks)

    with FaultProxy(testbed.cluster.url, look) as proxy:
        run_in_process([testbed.corpus.images], proxy.url, index, testbed.scratch / f"{index}.jsonl")
    testbed.requests, testbed.bulks = next(seen), next(bulks)
    with suppress(RuntimeError):
        testbed.cluster.delete(testbed.cluster.list_indices(index))
