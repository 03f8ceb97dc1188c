"""Rounds in which a process is killed or the network is faulty."""

from __future__ import annotations

import time

from support.bulk_faults import list_all_faults, list_search_faults
from support.nodes.node_process import Cluster as NodeCluster
from support.servers.fault_proxy import Fault, RandomFaults, Request

from .base import Disturbance, Testbed
from .command import Command

_RESTART_WITHIN_S = 2.0
_ALONE_S = 10.0


def kill_driver(testbed: Testbed, index: str, number: int) -> Disturbance:
    """Send SIGKILL to `stair-es ingest`."""
    running: list[Command] = []
    with testbed.start_proxies(testbed.trigger_at_request(lambda: running[0].kill())) as url:
        running.append(testbed.start_run(url, index))
        return Disturbance(running[0].wait())


def kill_worker(testbed: Testbed, index: str, number: int) -> Disturbance:
    """Send SIGKILL to a Ray process that runs a stage: the run must complete without a rerun."""
    ray = testbed.ray

    def kill() -> None:
        if ours := ray.list_workers():
            testbed.random.choice(ours).kill()

    with testbed.start_proxies(testbed.trigger_at_bulk(kill)) as url:
        ended = Command(testbed.corpus, url, index, "--runner", "ray", environment=ray.environment).wait()
    return Disturbance(ended, wrong=() if ended.code == 0 else (f"it didn't go on: {ended.error}",))


def kill_node(testbed: Testbed, index: str, number: int) -> Disturbance:
    """Send SIGKILL to the only node, and restart it."""
    [node] = testbed.nodes
    plan = testbed.trigger_at_request(node.kill)
    with testbed.start_proxies(plan) as url:
        running = testbed.start_run(url, index)
        plan.wait_while(running)
        time.sleep(testbed.random.uniform(0, _RESTART_WITHIN_S))
        node.start()  # from this thread: a node ends with the thread that started it
        return Disturbance(running.wait())


def kill_one_of_three(testbed: Testbed, index: str, number: int) -> Disturbance:
    """Send SIGKILL to one of three nodes, and restart it only if the run can't end without it, or for the next round.

    The run needs the node if it had the only copy of a shard, because a replica wasn't filled yet.
    """
    three = NodeCluster(testbed.nodes).start()
    victim = testbed.random.choice(testbed.nodes)
    testbed.cluster.url = next(node.url for node in testbed.nodes if node is not victim)
    plan = testbed.trigger_at_request(victim.kill)
    with testbed.start_proxies(plan) as url:
        running = testbed.start_run(url, index)
        plan.wait_while(running)
        if not running.ends_within(_ALONE_S):
            victim.start()
        ended = running.wait()
    if ended.code:
        three.start()
    return Disturbance(ended)


class BadNetwork:
    """A plan with faults for half of the bulk requests and for some searches."""

    def __init__(self, seed: int) -> None:
        self._bulk = RandomFaults(seed, list_all_faults())
        self._searches = RandomFaults(seed, list_search_faults(), share=0.3, run=1, is_chosen=lambda request: request.is_search)

    def __call__(self, request: Request) -> Fault | None:
        """Return the fault of a request: see `Plan`."""
        return self._bulk(request) if request.is_bulk else self._searches(request)


def disturb_network(testbed: Testbed, index: str, number: int) -> Disturbance:
    """Reject, delay, truncate and alter responses; nothing is killed."""
    with testbed.start_proxies(BadNetwork(testbed.random.randrange(1 << 30))) as url:
        return Disturbance(testbed.start_run(url, index).wait())
