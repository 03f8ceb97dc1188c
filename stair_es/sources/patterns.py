"""Globs that are matched name by name on the way down, so that a walk enters only folders in which something can match."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from typing import TypeAlias

from stair_es.sources.paths import is_hidden

MAGIC = re.compile(r"[*?\[]")

States: TypeAlias = frozenset[int]
"""How many parts of a pattern may have been used up: several at once, as `**` takes any number of folders."""


class Pattern:
    """A glob below a folder: `*`, `?`, `[...]` within a name, `**` for any folders.

    Hidden names match only what begins with their first letter, as in a shell, unless `hidden`.
    """

    def __init__(self, parts: Sequence[str], *, hidden: bool = False) -> None:
        self._hidden = hidden
        self._parts = [part for part in parts if part]
        self._matchers = [re.compile(fnmatch.translate(part)) for part in self._parts]

    @property
    def start(self) -> States:
        """The states of the folder that the pattern is relative to."""
        return self._closed({0})

    def matched(self, states: States) -> bool:
        """Whether the whole pattern is used up."""
        return len(self._parts) in states

    def step(self, states: States, name: str) -> States:
        """The states after going into, or to, `name`; none if nothing can match there."""
        after = set[int]()
        for i in states:
            if i == len(self._parts):
                continue
            part, hidden = self._parts[i], not self._hidden and is_hidden(name)
            if part == "**":
                after |= set() if hidden else {i}
            elif self._matchers[i].match(name) and (not hidden or part[0] == name[0]):
                after.add(i + 1)
        return self._closed(after)

    def _closed(self, states: set[int]) -> States:
        """With what follows a `**`, which may stand for no folder at all."""
        for i, part in enumerate(self._parts):
            if i in states and part == "**":
                states.add(i + 1)
        return frozenset(states)


def split_glob(pattern: str) -> tuple[str, list[str]]:
    """The folder before the first part with a wildcard, and the parts from there on."""
    parts = pattern.split("/")
    first = next((i for i, part in enumerate(parts) if MAGIC.search(part)), len(parts))
    return "/".join(parts[:first]) or "/", parts[first:]
