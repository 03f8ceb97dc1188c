"""Directories of TIFF files, and of EXIF blocks in other images, parsed as untrusted input. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

MAX_ENTRIES = 4_096
"""Entries read per directory. Programs and cameras write a few dozen."""
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Type -> bytes of one value."""
_BYTE_TYPES = (1, 2, 6, 7)
"""Types of bytes, which readers keep as bytes; each value of another type becomes a number."""
_NUMBERS = {3: "H", 4: "L", 8: "h", 9: "l", 13: "L", 16: "Q", 17: "q", 18: "Q"}
_MAX_TEXT_CHARS = 64


class TiffEntry(NamedTuple):
    """The entry of one tag in a directory."""

    tag: int
    type: int
    value_count: int
    """Declared number of values."""
    offset: int
    available_bytes: int
    """Bytes of the values that are in the file."""

    @property
    def number_count(self) -> int:
        """Return how many numbers a reader makes of it."""
        return 0 if self.type in _BYTE_TYPES else self.available_bytes // _SIZES.get(self.type, 1)


class TiffDirectories:
    """The directories of a TIFF or an EXIF block."""

    def __init__(self, data: bytes, *, big: bool = False) -> None:
        """Wrap a TIFF file, or an EXIF block without its `Exif` header, without parsing it; `big` for a BigTIFF."""
        self._data, self._big = data, big
        self._order = "<" if data[:1] == b"I" else ">"
        self._entry = struct.Struct(self._order + ("HHQ8s" if big else "HHL4s"))

    @property
    def first_offset(self) -> int:
        """Return the offset of the first directory; -1 if it is missing."""
        return self._unpack("Q", 8) if self._big else self._unpack("L", 4)

    def count_entries(self, offset: int) -> int:
        """Return the declared number of entries of the directory at `offset`."""
        return max(0, self._unpack("Q" if self._big else "H", offset))

    def read_entries(self, offset: int) -> Iterator[TiffEntry]:
        """Yield the entries of the directory at `offset` that are in the file, at most `MAX_ENTRIES`."""
        start, inline = offset + (8 if self._big else 2), 8 if self._big else 4
        for i in range(min(self.count_entries(offset), MAX_ENTRIES)):
            position = start + i * self._entry.size
            try:
                tag, type_, count, value = self._entry.unpack_from(self._data, position)
            except struct.error:
                return
            size = count * _SIZES.get(type_, 0)
            if size <= inline:
                value_offset = position + self._entry.size - inline
            else:
                (value_offset,) = struct.unpack(self._order + ("Q" if self._big else "L"), value)
            yield TiffEntry(tag, type_, count, value_offset, min(size, max(0, len(self._data) - value_offset)))

    def read_number(self, entry: TiffEntry) -> int | None:
        """Return an entry's first value if it is a whole number."""
        value = self._unpack(_NUMBERS[entry.type], entry.offset) if entry.type in _NUMBERS and entry.value_count else -1
        return value if value >= 0 else None

    def read_text(self, entry: TiffEntry) -> str | None:
        """Return an entry's text, at most 64 characters."""
        if entry.type not in _BYTE_TYPES:
            return None
        end = entry.offset + min(entry.available_bytes, _MAX_TEXT_CHARS)
        return self._data[entry.offset : end].decode("latin-1").strip("\0 ")

    def _unpack(self, format_: str, offset: int) -> int:
        try:
            return int(struct.unpack_from(self._order + format_, self._data, offset)[0]) if offset >= 0 else -1
        except (struct.error, OverflowError):
            return -1
