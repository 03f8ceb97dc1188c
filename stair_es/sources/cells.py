"""The bytes in a cell of a Parquet table."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stair_es.errors import ReadError
from stair_es.extras import need
from stair_es.sources.item import Read, Reading
from stair_es.sources.limits import within
from stair_es.sources.remote import reading as plainly

if TYPE_CHECKING:
    from stair_es.types import Json

_ROWS = 16
"""Cells that are in memory at a time, for each of the last few stretches."""
_STRETCHES = 3
_CURSORS = 4


@dataclass(frozen=True)
class CellOf:
    """A cell with bytes, or with the `{"bytes", "path"}` of Hugging Face."""

    uri: str
    """Of the table."""
    group: int
    row: int
    """Within the row group."""
    column: str
    version: str | None = None
    """Of the table, when it was listed."""
    secret_url: str | None = field(default=None, repr=False)

    def read(self, reading: Reading, known: str | None = None) -> Read | None:
        """The cell's bytes, or those of the file that it names; see `Place.read`."""
        from stair_es.sources.references import refer
        from stair_es.sources.tables import base_of

        with plainly():
            value = _cursor(self).at(self.row)
        if isinstance(value, bytes):
            within(len(value), reading.max_bytes)
        referred = refer(value, base_of(self.uri))
        if isinstance(referred, str):
            raise ReadError(referred)
        return referred.place.read(reading, known if referred.uri else None)

    def to_json(self) -> dict[str, Json] | None:
        """For `places.from_json`."""
        whole: dict[str, Json] = {"kind": "cell", "uri": self.uri, "group": self.group, "row": self.row}
        return {**whole, "column": self.column, "version": self.version}


class _Cursor:
    """A column of a row group, read forwards in stretches: rows come nearly in order, and a whole column may be gigabytes."""

    def __init__(self, cell: CellOf) -> None:
        self._cell = cell
        self._lock = threading.Lock()
        self._stretches: OrderedDict[int, Any] = OrderedDict()
        self._open = ExitStack()
        self._batches: Iterator[Any] | None = None
        self._next = 0

    def at(self, row: int) -> Any:  # noqa: ANN401  bytes or a struct
        """The value of a row."""
        wanted = row // _ROWS
        with self._lock:
            if wanted not in self._stretches and (self._batches is None or wanted < self._next):
                self._rewind()
            while wanted not in self._stretches:
                batch = next(self._batches, None) if self._batches else None
                if batch is None:
                    raise ReadError("the table has fewer rows than when it was listed")
                self._stretches[self._next] = batch
                self._next += 1
                while len(self._stretches) > _STRETCHES:
                    self._stretches.popitem(last=False)
            return self._stretches[wanted].column(0)[row % _ROWS].as_py()

    def _rewind(self) -> None:
        from stair_es.sources.files import Found
        from stair_es.sources.object_places import ObjectAt
        from stair_es.sources.opened import raw
        from stair_es.sources.places import FileAt

        self.close()
        cell = self._cell
        local = cell.uri.startswith("file://")
        place = FileAt(cell.uri) if local else ObjectAt(cell.uri, None, cell.secret_url)
        file = self._open.enter_context(raw(Found(cell.uri, place)))
        whole = need("pyarrow.parquet", "tables").ParquetFile(file, pre_buffer=False)
        self._batches = iter(
            whole.iter_batches(batch_size=_ROWS, row_groups=[cell.group], columns=[cell.column], use_threads=False)
        )

    def close(self) -> None:
        """Let go of the file."""
        self._open.close()
        self._stretches.clear()
        self._batches, self._next = None, 0


_cursors: OrderedDict[tuple[str, int, str, str | None], _Cursor] = OrderedDict()
_guard = threading.Lock()


def _cursor(cell: CellOf) -> _Cursor:
    """The process's cursor of the cell's column; only the last few are kept."""
    key = (cell.uri, cell.group, cell.column, cell.version)
    with _guard:
        found = _cursors.pop(key, None) or _Cursor(cell)
        _cursors[key] = found
        while len(_cursors) > _CURSORS:
            _cursors.popitem(last=False)  # closed when the last thread that reads it lets it go
        return found
