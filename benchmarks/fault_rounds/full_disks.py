"""Rounds in which a disk is full: that of temporary files, of dead letters, of the node."""

from __future__ import annotations

import time

from .base import Disturbed, Place
from .command import Command
from .disk import small_disk

_PAGE = 4096
_FULL_FOR_S = (1.0, 12.0)
"""The node looks every 10 s: in some rounds writes fail before it blocks its indices, in some after."""


def fill_tmpdir(place: Place, index: str, turn: int) -> Disturbed:
    """The run's notes don't fit into TMPDIR."""
    with small_disk(place.scratch / f"{index}-tmp", place.pick(8) * _PAGE) as disk:
        more = {"TMPDIR": str(disk.folder)}
        ended = Command(place.corpus, place.cluster.url, index, prefix=disk.prefix, environment=more).wait()
    return Disturbed(ended)


def fill_dead_letters(place: Place, index: str, turn: int) -> Disturbed:
    """The dead letters don't fit: where `--dead-letters` says, or below STAIR_ES_HOME, by turns."""
    broken = place.corpus.broken
    with small_disk(place.scratch / f"{index}-letters", place.pick(2) * _PAGE) as disk:
        # A limit to the size of files would stop the list of images first.
        letters = "/dev/full" if disk.prefix else str(disk.folder / "dead.jsonl")
        named = ("--dead-letters", letters) if disk.prefix or turn % 2 == 0 else ()
        home = {} if disk.prefix else {"STAIR_ES_HOME": str(disk.folder)}
        options = (str(broken), "--runner", "local", *named)
        ended = Command(place.corpus, place.cluster.url, index, *options, environment=home).wait()
    wrong = () if ended.code == 1 else (f"exit code {ended.code}, though not all dead letters could be written",)
    return Disturbed(ended, wrong, more=(broken,))


def fill_node(place: Place, index: str, turn: int) -> Disturbed:
    """The disk of the only node is full, and has room again 1 to 12 seconds later."""
    [node], disk = place.nodes, place.disk
    if disk is None:
        raise RuntimeError("this node's disk is not small")
    plan = place.at_any_bulk(disk.fill)
    with place.between(plan) as url:
        running = place.start(url, index)
        plan.wait_while(running)
        time.sleep(place.random.uniform(*_FULL_FOR_S))
        disk.empty()
        if not node.running:
            node.start()
        node.wait(lambda _: True)  # without room a node may give up being the cluster manager
        place.cluster.ask("POST", "/_cluster/reroute?retry_failed=true")
        return Disturbed(running.wait())
