"""The kinds of rounds by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from .alias_changes import move_alias, swap_by_other_model
from .base import Disturb
from .full_disks import fill_dead_letters, fill_node, fill_tmpdir
from .kills import disturb_network, kill_driver, kill_node, kill_one_of_three, kill_worker

TestbedName: TypeAlias = Literal["shared", "ray", "own", "three"]
"""A node that is never killed, the same with a Ray cluster, a killable node with a small disk, a cluster of three."""


@dataclass(frozen=True)
class Kind:
    """A kind of round."""

    disturb: Disturb
    testbed: TestbedName
    about: str
    """Description for the table."""
    small_disk: bool = False
    """Whether the node's disk must be small."""


KINDS = {
    "driver": Kind(kill_driver, "shared", "`kill -9` of the command at a random request"),
    "worker": Kind(kill_worker, "ray", "`kill -9` of a Ray worker during a bulk request"),
    "node": Kind(kill_node, "own", "`kill -9` of the only node at a random request; it is restarted within 2 s"),
    "one-of-three": Kind(kill_one_of_three, "three", "`kill -9` of one of three nodes (one replica) at a random request"),
    "proxy": Kind(
        disturb_network, "shared", "a proxy rejects, delays, truncates and alters responses to bulk requests and searches"
    ),
    "alias": Kind(
        move_alias, "shared", "the alias is moved to a foreign index, removed, or given a second index, between two bulk requests"
    ),
    "swap": Kind(swap_by_other_model, "shared", "a run with another model swaps the alias between two bulk requests"),
    "tmpdir": Kind(fill_tmpdir, "shared", "TMPDIR of 4 to 32 KiB"),
    "dead-letters": Kind(fill_dead_letters, "shared", "the dead letters or STAIR_ES_HOME on a disk of 4 or 8 KiB"),
    "node-disk": Kind(
        fill_node, "own", "the node's disk is full for 1 to 12 s, starting at a random bulk request", small_disk=True
    ),
}
