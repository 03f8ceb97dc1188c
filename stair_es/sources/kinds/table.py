"""Base of all tables: which column has the image, how a row becomes an item, and isolation of bad rows and files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from stair_es.errors import SourceError, UsageError
from stair_es.sources.base import ListingFailure, Source, SourceItem, SourceOptions
from stair_es.sources.io.files import FileLister, FileSource, ListedFile
from stair_es.sources.io.open_file import create_file_lister
from stair_es.sources.io.resolve import ResolvedImage, resolve_image_reference
from stair_es.sources.io.uris import IMAGE_SUFFIXES, get_base_uri, has_source_suffix
from stair_es.sources.kinds.fields import CHECKED_ROWS, describe_row_error, select_fields
from stair_es.sources.limits import MAX_REPORTED_NAMES, NameCounter, join_names

COLUMN_REMEDY = "Specify columns with --field FIELD=COLUMN and --image-column COLUMN."
"""Remedy for missing columns in an ingest of images; other commands replace it by their own options."""


class ColumnTracker:
    """Tracks which requested columns no row has had yet. For one listing."""

    def __init__(self, columns: Iterable[str]) -> None:
        self._missing = [name for name in dict.fromkeys(columns) if name != "*"]
        self._names = NameCounter()
        self._rows = 0

    def observe_row(self, names: Collection[str]) -> None:
        """Record the columns of a row."""
        self._rows += 1
        if not self._missing:
            return
        self._missing = [name for name in self._missing if name not in names]
        for name in islice(names, MAX_REPORTED_NAMES):
            self._names.add_name(str(name))

    def check_missing(self, uri: str, *, at_end: bool = False) -> None:
        """Raise UsageError if a requested column is missing in the first rows, or `at_end` in all of them.

        A corpus without its captions is worse than an abort.
        """
        if self._missing and self._rows and (at_end or self._rows >= CHECKED_ROWS):
            where = uri if at_end else f"{uri}, in its first {self._rows} rows,"
            raise build_missing_column_error(where, self._missing[0], self._names)


def build_missing_column_error(where: str, name: str, names: Iterable[str]) -> UsageError:
    """Return the error for a missing column."""
    return UsageError(f"{where} has no column {name!r}", f"It has: {join_names(names)}. {COLUMN_REMEDY}", code="no-such-column")


IMAGE_COLUMNS = (
    *("image", "img", "image_bytes", "jpg", "jpeg", "png", "webp", "bytes"),
    *("image_path", "img_path", "path", "filepath", "file_path", "file", "file_name", "filename"),
    *("image_url", "img_url", "url", "image_uri", "uri", "link", "src"),
)
"""Names of image columns, in order of preference, case-insensitive."""


class TableSource(FileSource, ABC):
    """A source of rows in one or more files. Subclasses convert a file to items."""

    def __init__(self, files: FileLister, options: SourceOptions) -> None:
        super().__init__(files)
        self._options = options

    def list_items(self) -> Iterator[SourceItem | ListingFailure]:
        """Yield one item per row. A file that cannot be read to its end yields a `ListingFailure`; the others are read."""
        first = True
        for file in self._files.list_files():
            if isinstance(file, ListingFailure):
                yield file
                continue
            try:
                yield from self._read_rows(file)
            except (SourceError, UsageError) as error:
                if first and isinstance(error, UsageError):
                    raise  # a missing column: reported once, not for each file
                yield ListingFailure(file.uri, self.uri, error.message)
            first = False

    @property
    def _named_columns(self) -> list[str]:
        return [*self._options.columns.values(), *([self._options.image_column] if self._options.image_column else [])]

    @abstractmethod
    def _read_rows(self, table: ListedFile) -> Iterator[SourceItem | ListingFailure]:
        """Yield the images of one file."""

    def _try_item(
        self, row: Mapping[str, Any], column: str | None, table: ListedFile, position: str
    ) -> SourceItem | ListingFailure:
        """Convert a row like `_build_item`; any error becomes one `ListingFailure`."""
        try:
            return self._build_item(row, column, table, position)
        except Exception as error:  # noqa: BLE001  the following rows must be read
            return ListingFailure(f"{table.uri}#{position}", self.uri, describe_row_error(error))

    def _build_item(
        self, row: Mapping[str, Any], column: str | None, table: ListedFile, position: str
    ) -> SourceItem | ListingFailure:
        """Convert a row.

        `position`: such as `line=7`, the row's name in the file, for images without a URI.
        """
        where = f"{table.uri}#{position}"
        if column is None:
            return ListingFailure(where, self.uri, f"no column with an image (--image-column); there are: {join_names(row)}")
        resolved = resolve_image_reference(row.get(column), get_base_uri(table.uri))
        if isinstance(resolved, str):
            return ListingFailure(where, self.uri, resolved)
        return self._build_resolved_item(resolved, select_fields(row, self._options.columns, column), where, table)

    def _build_resolved_item(
        self, resolved: ResolvedImage, fields: Mapping[str, Any], where: str, table: ListedFile
    ) -> SourceItem:
        version = f"{table.version}#{where.rpartition('#')[2]}" if table.version else None
        return resolved.to_item(where, self.uri, version, fields)

    def _check_columns(self, names: Sequence[str], table: ListedFile) -> None:
        """Raise UsageError if a column that the user named does not exist."""
        missing = [name for name in self._named_columns if name != "*" and name not in names]
        if missing:
            raise build_missing_column_error(table.uri, missing[0], names)


@dataclass(frozen=True)
class TableKind:
    """Opens tables whose names have one of some suffixes."""

    name: str
    description: str
    suffixes: frozenset[str]
    source: type[TableSource]

    def can_open(self, argument: str) -> bool:
        """Return whether the argument has such a suffix."""
        return has_source_suffix(argument, self.suffixes)

    def open(self, argument: str, options: SourceOptions) -> Source:
        """Return the source, without reading from it."""
        return self.source(create_file_lister(argument, self.suffixes, options.walk), options)


def find_image_column(row: Mapping[str, Any] | Sequence[str], named: str | None = None) -> str | None:
    """Return the image column: `named`, else by its name, else the first value that looks like an image's path or URL."""
    if named is not None:
        return named if named in row else None
    lower = {str(name).lower(): str(name) for name in reversed(list(row))}
    by_name = next((lower[name] for name in IMAGE_COLUMNS if name in lower), None)
    if by_name is not None or not isinstance(row, Mapping):
        return by_name
    suffixes = tuple(IMAGE_SUFFIXES)
    return next(
        (
            str(name)
            for name, value in row.items()
            if isinstance(value, str) and value[-300:].partition("?")[0].lower().endswith(suffixes)
        ),
        None,
    )
