"""Where the bytes of an image are. Small, picklable values that read for themselves; JSON and back for retries."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stair_es.errors import ReadError, UsageError
from stair_es.sources.cells import CellOf
from stair_es.sources.item import Place, Read, Reading
from stair_es.sources.limits import within
from stair_es.sources.object_places import MemberOf, ObjectAt
from stair_es.sources.paths import file_version, open_regular
from stair_es.sources.web.fetch import UrlAt

if TYPE_CHECKING:
    from stair_es.types import Json


@dataclass(frozen=True)
class FileAt:
    """A file on this machine."""

    uri: str

    def read(self, reading: Reading, known: str | None = None) -> Read | None:
        """The file's bytes; see `Place.read`."""
        try:
            with open_regular(self.uri) as file:
                status = os.fstat(file.fileno())
                version = file_version(status)
                if known is not None and version == known:
                    return None
                within(status.st_size, reading.max_bytes)
                data = file.read(reading.max_bytes + 1)
        except OSError as error:
            raise ReadError(f"can't be read: {error.strerror or error}") from error
        within(len(data), reading.max_bytes)
        return Read(data, version)

    def to_json(self) -> dict[str, Json] | None:
        """For `from_json`."""
        return {"kind": "file", "uri": self.uri}


@dataclass(frozen=True)
class Inline:
    """Bytes that are in memory already, because their source can't be asked for them again."""

    data: bytes = field(repr=False)

    def read(self, reading: Reading, known: str | None = None) -> Read | None:
        """The bytes; see `Place.read`."""
        within(len(self.data), reading.max_bytes)
        return Read(self.data)

    def to_json(self) -> dict[str, Json] | None:
        """None: only in memory."""
        return None


def from_json(value: Mapping[str, Json]) -> Place:
    """The place that `to_json` of another run wrote down.

    Raises:
        UsageError: It isn't one.
    """
    match value:
        case {"kind": "file", "uri": str(uri)}:
            return FileAt(uri)
        case {"kind": "url", "url": str(url)}:
            return UrlAt(url)
        case {"kind": "object", "uri": str(uri), "size": int() | None as size}:
            return ObjectAt(uri, size)
        case {
            "kind": "member",
            "uri": str(uri),
            "offset": int(offset),
            "size": int(size),
            "version": str() | None as version,
        } if offset >= 0 and size >= 0:
            return MemberOf(uri, offset, size, version)
        case {"kind": "cell", "uri": str(uri), "group": int(group), "row": int(row), "column": str(column)}:
            return CellOf(uri, group, row, column)
        case _:
            raise UsageError("not the place of an image", "Give a file that stair-es ingest --dead-letters wrote.")
