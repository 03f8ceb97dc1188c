"""Globs matched name by name on the way down, so that a walk enters only folders that can contain a match."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from typing import TypeAlias

from stair_es.sources.io.uris import is_hidden

GLOB_MAGIC = re.compile(r"[*?\[]")

GlobStates: TypeAlias = frozenset[int]
"""How many parts of a pattern may have been matched: several at once, as `**` matches any number of folders."""


class GlobPattern:
    """A glob below a folder: `*`, `?`, `[...]` within a name, `**` for any folders.

    As in a shell, hidden names match only patterns that start with the same character, unless `hidden` is set.
    """

    def __init__(self, parts: Sequence[str], *, hidden: bool = False) -> None:
        self._hidden = hidden
        self._parts = [part for part in parts if part]
        self._matchers = [re.compile(fnmatch.translate(part)) for part in self._parts]

    @property
    def start_states(self) -> GlobStates:
        """Return the states of the folder that the pattern is relative to."""
        return self._close_states({0})

    def is_complete(self, states: GlobStates) -> bool:
        """Return whether the whole pattern is matched."""
        return len(self._parts) in states

    def match_name(self, states: GlobStates, name: str) -> GlobStates:
        """Return the states after entering `name`; empty if nothing can match there."""
        after = set[int]()
        for i in states:
            if i == len(self._parts):
                continue
            part, hidden = self._parts[i], not self._hidden and is_hidden(name)
            if part == "**":
                after |= set() if hidden else {i}
            elif self._matchers[i].match(name) and (not hidden or part[0] == name[0]):
                after.add(i + 1)
        return self._close_states(after)

    def _close_states(self, states: set[int]) -> GlobStates:
        """Add the states after a `**`, which may match no folder at all."""
        for i, part in enumerate(self._parts):
            if i in states and part == "**":
                states.add(i + 1)
        return frozenset(states)


def split_glob(pattern: str) -> tuple[str, list[str]]:
    """Return the folder before the first part with a wildcard, and the remaining parts."""
    parts = pattern.split("/")
    first = next((i for i, part in enumerate(parts) if GLOB_MAGIC.search(part)), len(parts))
    return "/".join(parts[:first]) or "/", parts[first:]
