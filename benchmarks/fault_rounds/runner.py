"""Run the rounds: concurrently on the testbeds, because a round mostly waits, and sequentially on each testbed."""

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

from .base import Round, Testbed, run_round
from .cluster_state import Cluster
from .command import CommandResult, run_in_process
from .corpus import Corpus
from .disk import can_mount, mount_small_disk
from .kinds import KINDS, TestbedName

_HEAP = "256m"
_NODE_DISK_BYTES = 640 * 2**20
"""More than the 400 MB that the embedded node requires as free space; only written data takes memory."""

Report = Callable[[str, int, Round], None]
"""Called with the kind, the number of the round from 1, and the round."""


@dataclass(frozen=True)
class Plan:
    """The rounds to run."""

    kinds: Sequence[str]
    rounds: int
    seed: int
    url: str | None
    """URL of a node that is never killed; None to start one."""
    is_over: Callable[[], bool]
    """Returns whether to stop before the next round."""

    def list_kinds(self, name: TestbedName) -> list[str]:
        """Return the kinds that run on a testbed."""
        return [kind for kind in self.kinds if KINDS[kind].testbed == name]


def run_rounds(plan: Plan, corpus: Corpus, scratch: Path, report: Report) -> None:
    """Run all rounds of all kinds."""
    names: list[TestbedName] = [name for name in ("three", "own", "ray", "shared") if plan.list_kinds(name)]
    with ThreadPoolExecutor(len(names)) as executor:
        for future in [executor.submit(_run_on_testbed, name, plan, corpus, scratch / name, report) for name in names]:
            future.result()


def _run_on_testbed(name: TestbedName, plan: Plan, corpus: Corpus, scratch: Path, report: Report) -> None:
    """Run the rounds of a testbed in one thread, and stop its nodes at the end."""
    scratch.mkdir()
    with _open_testbed(name, plan, corpus, scratch) as testbed, testbed.stack:
        _count_requests(testbed)
        for number in range(plan.rounds):
            for kind in plan.list_kinds(name):
                if plan.is_over():
                    return
                report(kind, number + 1, _run_timed(kind, testbed, number))


def _run_timed(kind: str, testbed: Testbed, number: int) -> Round:
    start = time.perf_counter()
    index = f"{kind}-{number}"
    try:
        result = run_round(KINDS[kind].disturb, testbed, index, number)
    except Exception as error:  # noqa: BLE001  a round that can't be checked has failed
        result = Round(CommandResult(1, {"error": "unknown"}, ""), wrong=[f"round {number + 1}: {type(error).__name__}: {error}"])
    result.seconds = time.perf_counter() - start
    return result


@contextmanager
def _open_testbed(name: TestbedName, plan: Plan, corpus: Corpus, scratch: Path) -> Iterator[Testbed]:
    rng = random.Random(f"{plan.seed} {name}")
    if name in ("shared", "ray") and plan.url:
        yield Testbed(corpus, scratch, rng, Cluster(plan.url))
    elif name == "own" and can_mount():
        with (
            mount_small_disk(scratch / "disk", _NODE_DISK_BYTES) as disk,
            build_cluster(disk.folder, size=1, heap=_HEAP) as own,
        ):
            yield Testbed(corpus, scratch, rng, Cluster(own.url), own.nodes, disk)
    else:
        with build_cluster(scratch / "nodes", size=3 if name == "three" else 1, heap=_HEAP) as own:
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
