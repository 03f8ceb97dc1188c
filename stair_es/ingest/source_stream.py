"""Iterate over the sources of a run, and track which ones were listed completely."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from stair_es.cluster.documents.document import check_field_names
from stair_es.errors import UsageError
from stair_es.optional import format_install_command
from stair_es.sources.base import ListingFailure, Source, SourceItem
from stair_es.sources.image.isolated import list_missing_formats
from stair_es.sources.io.uris import STDIN_URI
from stair_es.sources.kinds.fields import CopiedFields
from stair_es.sources.limits import MAX_FIELD_NAME_CHARS, NameCounter
from stair_es.types import is_utf8

logger = logging.getLogger(__name__)

_LEFT_OUT = (
    ("hidden", "hidden file or folder", "hidden files and folders", "with --hidden"),
    ("links", "link out of the source", "links out of the source", "with --follow-links"),
    ("pairs", "RAW file with a picture beside it", "RAW files with a picture beside them", "without --skip-raw-pairs"),
)
"""Reason, noun in the singular and the plural, and how to include them."""
_MAX_SUFFIXES = 5
"""Suffixes of ignored files that a message names."""


class SourceStream:
    """Iterates over the items of all sources. Iterate in one thread; the other members may be read from another."""

    def __init__(self, sources: Sequence[Source], columns: Mapping[str, str] | None = None) -> None:
        """Start with the first source. `columns` are those of `SourceOptions` to remark on."""
        self._copied = CopiedFields(columns or {})
        self._sources = list({source.uri: source for source in sources}.values())  # a source given twice is listed once
        self.complete: list[str] = []
        """URIs of the sources that were listed completely."""
        self.empty: list[str] = []
        """URIs of the complete sources without images."""
        self.dropped_columns = NameCounter()
        """Columns that can't be document fields: their names are reserved, too long, or invalid in every engine."""
        self.remarks: tuple[str, ...] = ()
        """What the user should know about fields and left-out images. Logged while listing: a long one ends with the run."""

    def __iter__(self) -> Iterator[SourceItem | ListingFailure]:
        for source in self._sources:
            failures = images = 0
            for found in map(_replace_invalid_uri, source.list_items()):
                if isinstance(found, SourceItem):
                    images += 1
                    found = self._drop_columns(found)
                    self._observe_fields(found)
                else:
                    failures += 1
                yield found
            if not failures and not getattr(source, "is_partial", False):
                self.complete.append(source.uri)
                if not images:
                    self.empty.append(source.uri)
        if not self._copied.is_complete:
            self._add_remarks(self._copied.list_remarks())
        self._add_remarks(self._describe_missing_formats())

    def _observe_fields(self, item: SourceItem) -> None:
        if not self._copied.is_complete:
            self._copied.observe_fields(item.fields)
            if self._copied.is_complete:
                self._add_remarks(self._copied.list_remarks())

    def _add_remarks(self, remarks: Iterable[str]) -> None:
        added = tuple(remarks)
        self.remarks += added
        for remark in added:
            logger.info("%s", remark)

    def _describe_missing_formats(self) -> Iterator[str]:
        """Yield a remark for each format whose images were left out: the command that installs what reads it."""
        ignored = self.ignored
        for missing in list_missing_formats():
            if found := {suffix: ignored[suffix] for suffix in sorted(missing.suffixes) if suffix in ignored}:
                yield f"{_join_counts(found)} left out. To read them: {format_install_command(missing.extra)}"

    def _drop_columns(self, item: SourceItem) -> SourceItem:
        if all(map(_is_document_field, item.fields)):
            return item
        for name in item.fields:
            if not _is_document_field(name):
                self.dropped_columns.add_name(name)
        return replace(item, fields={name: value for name, value in item.fields.items() if _is_document_field(name)})

    @property
    def is_partial(self) -> bool:
        """Whether only changed images of a source are listed."""
        return any(getattr(source, "is_partial", False) for source in self._sources)

    @property
    def source_uris(self) -> list[str]:
        """URIs of the sources, in the order of the arguments."""
        return [source.uri for source in self._sources]

    @property
    def fully_listed(self) -> frozenset[str]:
        """URIs of the sources for which an image that isn't listed is gone.

        Sources that were listed completely; but not an empty one, which may be an unmounted disk, and not stdin, which is a
        different stream each time.
        """
        return frozenset(self.complete) - {*self.empty, STDIN_URI}

    @property
    def ignored(self) -> Mapping[str, int]:
        """Suffix -> number of files skipped because they aren't images."""
        counts = NameCounter()
        for source in self._sources:
            for suffix, count in source.ignored.items():
                counts.add_name(suffix, count)
        return counts

    def describe_ignored(self) -> str:
        """Return the most frequent suffixes of the skipped files with their numbers; "" if there are none."""
        ignored = self.ignored
        common = dict(sorted(ignored.items(), key=lambda item: -item[1])[:_MAX_SUFFIXES])
        return _join_counts(common) + (", ..." if len(ignored) > len(common) else "")

    def describe_left_out(self) -> str:
        """Return a message about files that were left out by design, with the option that includes them; "" if there are none."""
        counts: Counter[str] = Counter()
        for source in self._sources:
            counts.update(getattr(source, "left_out", {}))  # sources of plugins may lack it
        return ", ".join(
            f"{counts[reason]:,} {singular if counts[reason] == 1 else plural} left out (include {how})"
            for reason, singular, plural, how in _LEFT_OUT
            if counts[reason]
        )


def _join_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {suffix or 'without suffix'}" for suffix, count in counts.items())


def _replace_invalid_uri(found: SourceItem | ListingFailure) -> SourceItem | ListingFailure:
    """Return the item, or an unlisted one if its URI is not valid Unicode (from a damaged table): no document can have it."""
    if found.uri.isascii() or is_utf8(found.uri):
        return found
    return ListingFailure(found.uri.encode(errors="backslashreplace").decode(), found.source, "its URI is not valid Unicode")


def _is_document_field(name: str) -> bool:
    return len(name) <= MAX_FIELD_NAME_CHARS and _is_field_name(name)


@lru_cache(maxsize=1024)
def _is_field_name(name: str) -> bool:
    try:
        check_field_names([name])
    except UsageError:
        return False
    return True
