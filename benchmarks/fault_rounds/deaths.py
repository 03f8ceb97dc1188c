"""Rounds in which something is killed, or the network is bad."""

from __future__ import annotations

import time

from support.bulk_faults import every_fault, search_faults
from support.nodes.node_process import Cluster as NodeCluster
from support.servers.fault_proxy import Fault, Request, Storm

from .base import Disturbed, Place
from .command import Command

_RESTART_WITHIN_S = 2.0
_ALONE_S = 10.0


def kill_driver(place: Place, index: str, turn: int) -> Disturbed:
    """SIGKILL for `stair-es ingest`."""
    running: list[Command] = []
    with place.between(place.at_any_request(lambda: running[0].kill())) as url:
        running.append(place.start(url, index))
        return Disturbed(running[0].wait())


def kill_worker(place: Place, index: str, turn: int) -> Disturbed:
    """SIGKILL for a process of Ray's that runs a stage: the run must go on by itself."""
    ray = place.ray

    def kill() -> None:
        if ours := ray.stage_workers():
            place.random.choice(ours).kill()

    with place.between(place.at_any_bulk(kill)) as url:
        ended = Command(place.corpus, url, index, "--runner", "ray", environment=ray.environment).wait()
    return Disturbed(ended, wrong=() if ended.code == 0 else (f"it didn't go on: {ended.error}",))


def kill_node(place: Place, index: str, turn: int) -> Disturbed:
    """SIGKILL for the only node, which is started again."""
    [node] = place.nodes
    plan = place.at_any_request(node.kill)
    with place.between(plan) as url:
        running = place.start(url, index)
        plan.wait_while(running)
        time.sleep(place.random.uniform(0, _RESTART_WITHIN_S))
        node.start()  # from this thread: a node ends with the thread that started it
        return Disturbed(running.wait())


def kill_one_of_three(place: Place, index: str, turn: int) -> Disturbed:
    """SIGKILL for a node of three, which comes back only if the run can't end without it, or for the next round.

    It can't where the node had the only copy of a shard: that of an index whose replica wasn't filled yet.
    """
    three = NodeCluster(place.nodes).start()
    victim = place.random.choice(place.nodes)
    place.cluster.url = next(node.url for node in place.nodes if node is not victim)
    plan = place.at_any_request(victim.kill)
    with place.between(plan) as url:
        running = place.start(url, index)
        plan.wait_while(running)
        if not running.ends_within(_ALONE_S):
            victim.start()
        ended = running.wait()
    if ended.code:
        three.start()
    return Disturbed(ended)


class BadNetwork:
    """A plan: faults for half of the bulk requests, and for some searches."""

    def __init__(self, seed: int) -> None:
        self._bulk = Storm(seed, every_fault())
        self._searches = Storm(seed, search_faults(), share=0.3, run=1, is_chosen=lambda request: request.is_search)

    def __call__(self, request: Request) -> Fault | None:
        """See `Plan`."""
        return self._bulk(request) if request.is_bulk else self._searches(request)


def bad_network(place: Place, index: str, turn: int) -> Disturbed:
    """Nobody is killed; answers are refused, delayed, cut, changed."""
    with place.between(BadNetwork(place.random.randrange(1 << 30))) as url:
        return Disturbed(place.start(url, index).wait())
