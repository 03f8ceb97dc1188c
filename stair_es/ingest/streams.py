"""The sources of a run, one after another, and how far each came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from stair_es.cluster.documents import check_fields
from stair_es.errors import UsageError
from stair_es.sources.item import Item, Source, Unlisted
from stair_es.sources.opened import STDIN

_LEFT_OUT = (
    ("hidden", "hidden file or folder", "hidden files and folders", "--hidden"),
    ("links", "link out of the source", "links out of the source", "--follow-links"),
)
"""Reason, what it is about, one and several, and the option that takes it in."""


class Streams:
    """Iterates over all items of all sources. Iterated in one thread; the rest may be asked from another."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self.complete: list[str] = []
        """URIs of the sources that were listed to their end, nothing left out."""
        self.empty: list[str] = []
        """Those among them that hold no image."""
        self.dropped: set[str] = set()
        """Names of columns that can't be fields of a document: stair-es has fields of these names, or no engine takes them."""

    def __iter__(self) -> Iterator[Item | Unlisted]:
        for source in self._sources:
            holes = images = 0
            for found in map(_named, source.items()):
                if isinstance(found, Item):
                    images += 1
                    found = self._carried(found)
                else:
                    holes += 1
                yield found
            if not holes:
                self.complete.append(source.uri)
                if not images:
                    self.empty.append(source.uri)

    def _carried(self, item: Item) -> Item:
        if all(map(_is_field, item.fields)):
            return item
        self.dropped.update(name for name in item.fields if not _is_field(name))
        return replace(item, fields={name: value for name, value in item.fields.items() if _is_field(name)})

    @property
    def names(self) -> list[str]:
        """The sources' URIs, in the order of the arguments."""
        return [source.uri for source in self._sources]

    @property
    def whole(self) -> frozenset[str]:
        """URIs of the sources of which it can be said that what they didn't name is gone.

        Those that were listed to their end. Not one that is empty, as an unmounted disk is, and not stdin: another stream each
        time.
        """
        return frozenset(self.complete) - {*self.empty, STDIN}

    @property
    def ignored(self) -> Mapping[str, int]:
        """Suffix -> files that were passed over as no images."""
        total: Counter[str] = Counter()
        for source in self._sources:
            total.update(source.ignored)
        return total

    def describe_left_out(self) -> str:
        """Return what was left out on purpose, and what takes it; empty if nothing was."""
        total: Counter[str] = Counter()
        for source in self._sources:
            total.update(getattr(source, "left_out", {}))  # sources of plugins may have no such thing
        said = [
            f"{total[reason]:,} {one if total[reason] == 1 else several} left out (taken with {option})"
            for reason, one, several, option in _LEFT_OUT
            if total[reason]
        ]
        return ", ".join(said)


def _named(found: Item | Unlisted) -> Item | Unlisted:
    """As it is, unless its URI is no text (half a character from a damaged table): no document can have it."""
    try:
        found.uri.encode()
    except UnicodeEncodeError:
        return Unlisted(found.uri.encode(errors="backslashreplace").decode(), found.source, "its URI is not valid Unicode")
    return found


@lru_cache(maxsize=1024)
def _is_field(name: str) -> bool:
    try:
        check_fields([name])
    except UsageError:
        return False
    return True
