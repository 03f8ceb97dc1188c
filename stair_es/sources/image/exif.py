"""Directories of TIFF files and of EXIF blocks in other images, parsed as untrusted input: orientation and capture time. Pure.

Pillow's own reader makes a number of every value of a block: blocks of 64 KiB whose entries share their values take gigabytes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from PIL import Image

MAX_ENTRIES = 4_096
"""Entries read per directory. Programs and cameras write a few dozen."""
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Type -> bytes of one value."""
_BYTE_TYPES = (1, 2, 6, 7)
"""Types of bytes, which readers keep as bytes; each value of another type becomes a number."""
_NUMBERS = {3: "H", 4: "L", 8: "h", 9: "l", 13: "L", 16: "Q", 17: "q", 18: "Q"}
_MAX_TEXT_CHARS = 64


TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> transpose that makes it upright. `ImageOps.exif_transpose` also rewrites EXIF and fails if it is broken."""


class TiffEntry(NamedTuple):
    """The entry of one tag in a directory."""

    tag: int
    type: int
    value_count: int
    """Declared number of values."""
    offset: int
    """Offset of the values."""
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

    def read_numbers(self, entry: TiffEntry, max_count: int) -> list[int]:
        """Return an entry's whole numbers, at most `max_count` of them."""
        format_ = _NUMBERS.get(entry.type, "")
        count = min(entry.number_count, max_count) if format_ else 0
        return [self._unpack(format_, entry.offset + i * _SIZES[entry.type]) for i in range(count)]

    def find_next(self, offset: int) -> int:
        """Return the offset of the directory after the one at `offset`; 0 or -1 if there is none."""
        start = offset + (8 if self._big else 2)
        return self._unpack("Q" if self._big else "L", start + self.count_entries(offset) * self._entry.size)

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


_EXIF_DIRECTORY, _ORIENTATION, _DATE_TIME_ORIGINAL, _DATE_TIME = 0x8769, 0x0112, 0x9003, 0x0132
EXIF_HEADER = b"Exif\0\0"
MAX_EXIF_HEADERS = 64
"""Maximum number of repeated EXIF headers: skipping one takes 11 more bytes."""
_EXIF_HEADERS = re.compile(rb"(?:Exif\0\0){0,%d}" % MAX_EXIF_HEADERS)
_MAX_HEX_CHARS = 1 << 20
"""Characters: eight times as many as the longest block of a JPEG has."""
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=\"|>)([1-8])")


def find_exif_block(info: Mapping[Any, Any]) -> bytes:
    """Return the EXIF block from the metadata that Pillow read; empty if there is none."""
    block = info.get("exif") or _from_hex(info.get("Raw profile type exif"))
    return skip_exif_headers(block) if isinstance(block, bytes) else b""


def skip_exif_headers(block: bytes) -> bytes:
    """Return a block without its EXIF headers, at most `MAX_EXIF_HEADERS` of them: Pillow skips all of them."""
    return block[_EXIF_HEADERS.match(block).end() :]  # type: ignore[union-attr]  # may be empty


def read_exif(block: bytes) -> tuple[int | None, str | None]:
    """Return the orientation (1 to 8) and the local time (ISO 8601) of a TIFF or an EXIF block, each None if it is missing."""
    tiff = TiffDirectories(block, big=block[2:4] in (b"+\0", b"\0+"))
    root = _index_by_tag(tiff, tiff.first_offset)
    exif = _index_by_tag(tiff, tiff.read_number(root[_EXIF_DIRECTORY]) or -1) if _EXIF_DIRECTORY in root else {}
    orientation = tiff.read_number(root[_ORIENTATION]) if _ORIENTATION in root else None
    dates = (tiff.read_text(entries[tag]) for entries, tag in ((exif, _DATE_TIME_ORIGINAL), (root, _DATE_TIME)) if tag in entries)
    return orientation if orientation in range(1, 9) else None, _convert_to_iso(next(filter(None, dates), None))


def read_xmp_orientation(info: Mapping[Any, Any]) -> int | None:
    """Return the orientation from XMP, for images without one in EXIF."""
    for name in ("xmp", "XML:com.adobe.xmp"):
        text = info.get(name, b"")
        found = _XMP_ORIENTATION.search(text if isinstance(text, bytes) else str(text).encode(errors="replace"))
        if found:
            return int(found[1])
    return None


def _index_by_tag(tiff: TiffDirectories, offset: int) -> dict[int, TiffEntry]:
    """Return the entries of a directory by tag, of duplicates the first."""
    return {entry.tag: entry for entry in reversed([*tiff.read_entries(offset)])} if offset >= 0 else {}


def _from_hex(text: object) -> bytes:
    """Parse what ImageMagick writes into a PNG: a name, a length, and the block in hexadecimal."""
    if not isinstance(text, str) or len(text) > _MAX_HEX_CHARS:
        return b""
    try:
        return bytes.fromhex("".join(text.split("\n", 3)[3:]))  # ignores line ends
    except ValueError:
        return b""


def _convert_to_iso(text: str | None) -> str | None:
    try:
        return datetime.strptime(text, "%Y:%m:%d %H:%M:%S").isoformat() if text else None
    except ValueError:
        return None
