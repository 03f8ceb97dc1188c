"""Orientation and capture time from the EXIF block of an image.

Pillow's own reader makes a number of every value of a block: blocks of 64 KiB whose entries share their values take gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from stair_es.sources.image.tiff import TiffDirectories, TiffEntry

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
