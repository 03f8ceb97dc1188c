"""The locator of an image in a cell of a Parquet table."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from stair_es.errors import ReadError
from stair_es.sources.base import ReadLimits, ReadResult
from stair_es.sources.io.files import ListedFile
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.object_store import ObjectLocator
from stair_es.sources.io.open_file import open_raw
from stair_es.sources.io.parquet_rows import check_dictionary_sizes, open_parquet
from stair_es.sources.io.remote import translate_store_errors
from stair_es.sources.io.resolve import resolve_image_reference
from stair_es.sources.io.uris import get_base_uri
from stair_es.sources.limits import CELL_CACHE_BYTES, check_size
from stair_es.types import Json

_CACHED_ROWS = 48
"""Values cached behind a cursor, size permitting: threads read nearly in order."""
_MAX_CURSORS = 2
"""Open cursors: each holds a column chunk (the column of a whole row group) until it reaches its end."""


@dataclass(frozen=True)
class ParquetCellLocator:
    """A cell with bytes, or with the struct `{"bytes", "path"}` of Hugging Face datasets."""

    uri: str
    group: int
    row: int
    """Index within the row group."""
    column: str
    version: str | None = None
    """Version of the table when it was listed."""
    secret_url: str | None = field(default=None, repr=False)

    def read(self, limits: ReadLimits, known_version: str | None = None) -> ReadResult | None:
        """Return the cell's bytes, or those of the file that it names."""
        with translate_store_errors():
            value = _read_cell(self)
        if isinstance(value, bytes):
            check_size(len(value), limits.max_bytes)
        resolved = resolve_image_reference(value, get_base_uri(self.uri))
        if isinstance(resolved, str):
            raise ReadError(resolved, code="not-an-image-reference")
        return resolved.locator.read(limits, known_version if resolved.uri else None)

    def to_json(self) -> dict[str, Json] | None:
        """Return JSON for `restore_locator`."""
        value: dict[str, Json] = {"kind": "cell", "uri": self.uri, "group": self.group, "row": self.row}
        return {**value, "column": self.column, "version": self.version}


class _RowPassedError(Exception):
    """The cursor is past the row and no longer has its value."""


class _ColumnCursor:
    """Reads a column of a row group forward, row by row: a whole column, or even a few rows, may be gigabytes."""

    def __init__(self, cell: ParquetCellLocator) -> None:
        self._cell = cell
        self._lock = threading.Lock()
        self._values = OrderedDict[int, Any]()
        self._bytes = 0
        self._open = ExitStack()
        self._batches: Iterator[Any] | None = None
        self._next = self._rows = 0

    def read_row(self, row: int, *, rewind: bool) -> Any:  # noqa: ANN401  bytes or a struct
        """Return the value of a row.

        Raises:
            _RowPassedError: If the row has passed and `rewind` is not set.
            ReadError: If there is no such row.
        """
        with self._lock:
            if row in self._values:
                return self._values[row]
            if row < self._next and not rewind:
                raise _RowPassedError
            if self._batches is None or row < self._next:
                self._batches = self._rewind()
            value = None
            while self._next <= row:
                batch = next(self._batches, None)
                if batch is None:
                    raise ReadError("the table has fewer rows than when it was listed", code="table-shrunk")
                if self._next + _CACHED_ROWS > row:
                    value = batch.column(0)[0].as_py()
                    self._cache_value(self._next, value)
                self._next += 1
            if self._next == self._rows:
                self._close_file()  # the cached values serve threads that are slightly behind
            return value

    def _cache_value(self, row: int, value: Any) -> None:  # noqa: ANN401
        self._values[row] = value
        self._bytes += _count_bytes(value)
        while self._bytes > CELL_CACHE_BYTES or len(self._values) > _CACHED_ROWS:
            self._bytes -= _count_bytes(self._values.popitem(last=False)[1])

    def _rewind(self) -> Iterator[Any]:
        self.close()
        cell = self._cell
        local = cell.uri.startswith("file://")
        locator = FileLocator(cell.uri) if local else ObjectLocator(cell.uri, None, cell.secret_url)
        file = self._open.enter_context(open_raw(ListedFile(cell.uri, locator)))
        parquet_file = open_parquet(file)
        self._rows = parquet_file.metadata.row_group(cell.group).num_rows
        check_dictionary_sizes(parquet_file, file, cell.group, [cell.column])
        return iter(parquet_file.iter_batches(batch_size=1, row_groups=[cell.group], columns=[cell.column], use_threads=False))

    def close(self) -> None:
        self._close_file()
        self._values.clear()
        self._next = self._bytes = 0

    def _close_file(self) -> None:
        self._batches = None
        self._open.close()


def _count_bytes(value: Any) -> int:  # noqa: ANN401
    return len((value.get("bytes") if isinstance(value, dict) else value) or b"")


_cursors: OrderedDict[tuple[object, ...], _ColumnCursor] = OrderedDict()
_cursors_lock = threading.Lock()


def _read_cell(cell: ParquetCellLocator) -> Any:  # noqa: ANN401
    """Read a cell with the cursor shared by all threads, or with the thread's own cursor if that one is past the row."""
    try:
        return _get_cursor(cell, None).read_row(cell.row, rewind=False)
    except _RowPassedError:
        return _get_cursor(cell, threading.get_ident()).read_row(cell.row, rewind=True)


def _get_cursor(cell: ParquetCellLocator, thread: int | None) -> _ColumnCursor:
    """Return the process's cursor for the cell's column; only the most recent ones are kept."""
    key = (cell.uri, cell.group, cell.column, cell.version, thread)
    with _cursors_lock:
        cursor = _cursors.pop(key, None) or _ColumnCursor(cell)
        _cursors[key] = cursor
        while len(_cursors) > _MAX_CURSORS:
            _cursors.popitem(last=False)  # closed when the last thread that uses it drops it
        return cursor
