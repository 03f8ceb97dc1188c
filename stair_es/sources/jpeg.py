"""The segments of a JPEG before its pixels, as Pillow goes through them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

APP1, APP2 = 0xE1, 0xE2
"""Markers of the segments with EXIF and with the directory of further images."""
_START_OF_SCAN = 0xDA
_MARKER = re.compile(rb"\xff([\x01-\xc7\xc9-\xcf\xda-\xef\xfe])")
"""Passed over: bytes between segments, 255 before a marker and before 0, and markers after which no length comes."""
_FIRST = 0xC0
"""Below are no markers: Pillow stops there."""


def read_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the segments of a file before its first scan: marker, where its bytes begin after the length, and where they end."""
    at = 2
    while (found := _MARKER.search(data, at)) and (marker := found[1][0]) >= _FIRST and marker != _START_OF_SCAN:
        begins = found.end() + 2
        at = max(begins, found.end() + int.from_bytes(data[found.end() : begins], "big"))
        yield marker, begins, min(at, len(data))
