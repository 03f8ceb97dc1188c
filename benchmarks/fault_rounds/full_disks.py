"""Rounds in which a disk is full: the disk of temporary files, of dead letters, or of the node."""

from __future__ import annotations

import time

from .base import Disturbance, Testbed
from .command import Command
from .disk import mount_small_disk

_PAGE = 4096
_FULL_FOR_S = (1.0, 12.0)
"""The node checks its disk every 10 s, so writes fail before it blocks its indices in some rounds, and after in others."""


def fill_tmpdir(testbed: Testbed, index: str, number: int) -> Disturbance:
    """Run with a TMPDIR that is too small for the temporary files."""
    with mount_small_disk(testbed.scratch / f"{index}-tmp", testbed.draw_number(8) * _PAGE) as disk:
        more = {"TMPDIR": str(disk.folder)}
        ended = Command(testbed.corpus, testbed.cluster.url, index, prefix=disk.prefix, environment=more).wait()
    return Disturbance(ended)


def fill_dead_letters(testbed: Testbed, index: str, number: int) -> Disturbance:
    """Run with a disk that is too small for the dead letters: at `--dead-letters`, or below STAIR_ES_HOME, in rotation."""
    broken = testbed.corpus.broken
    with mount_small_disk(testbed.scratch / f"{index}-letters", testbed.draw_number(2) * _PAGE) as disk:
        # A limit to the size of files would stop the list of images first.
        letters = "/dev/full" if disk.prefix else str(disk.folder / "dead.jsonl")
        named = ("--dead-letters", letters) if disk.prefix or number % 2 == 0 else ()
        home = {} if disk.prefix else {"STAIR_ES_HOME": str(disk.folder)}
        options = (str(broken), "--runner", "local", *named)
        ended = Command(testbed.corpus, testbed.cluster.url, index, *options, environment=home).wait()
    wrong = () if ended.code == 1 else (f"exit code {ended.code}, though not all dead letters could be written",)
    return Disturbance(ended, wrong, more=(broken,))


def fill_node(testbed: Testbed, index: str, number: int) -> Disturbance:
    """Fill the disk of the only node, and free it 1 to 12 seconds later."""
    [node], disk = testbed.nodes, testbed.disk
    if disk is None:
        raise RuntimeError("this node's disk is not small")
    plan = testbed.trigger_at_bulk(disk.fill)
    with testbed.start_proxies(plan) as url:
        running = testbed.start_run(url, index)
        plan.wait_while(running)
        time.sleep(testbed.random.uniform(*_FULL_FOR_S))
        disk.clear()
        if not node.running:
            node.start()
        node.wait(lambda _: True)  # without disk space, a node may stop being the cluster manager
        testbed.cluster.request_json("POST", "/_cluster/reroute?retry_failed=true")
        return Disturbance(running.wait())
