"""Files that take far longer to read than the number of their pixels says: refused before they are read. Pure."""

from __future__ import annotations

import re
import struct

from stair_es.errors import DecodeError

MAX_SCANS = 64
"""Of a JPEG, all images in it together. A progressive one has about 10. Each goes over all pixels and may be 60 bytes long."""
MAX_PIECES = 32_768
"""Strips or tiles of a TIFF, each of which costs some microseconds and half a kilobyte however small it is."""
_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
"""What begins one. In data that is compressed no byte 255 comes before another one than 0."""
_PLACES = (273, 324)
"""Tags of a TIFF: where its strips or tiles are."""


def check_cost(data: bytes) -> None:
    """Nothing, if the file can be read in a time that goes with its pixels.

    Raises:
        DecodeError: It can't.
    """
    if data.startswith(b"\xff\xd8"):
        scans = sum(1 for _ in _SCAN.finditer(data))
        if scans > MAX_SCANS:
            raise DecodeError(f"decompression bomb? {scans:,} scans exceed the limit of {MAX_SCANS}")
    elif data.startswith((b"II", b"MM")):
        ways = (False, True) if 43 in data[2:4] else (False,)  # of a large TIFF in the other order decoders think differently
        pieces = max(_pieces(data, big=big) for big in ways)
        if pieces > MAX_PIECES:
            raise DecodeError(f"decompression bomb? {pieces:,} strips or tiles exceed the limit of {MAX_PIECES:,}")


def _pieces(data: bytes, *, big: bool) -> int:
    """As the first directory says, so far as it can be read: the decoder makes do with that, too."""
    order = "<" if data[:1] == b"I" else ">"
    entry, found = struct.Struct(order + ("HHQ8x" if big else "HHL4x")), 0
    try:
        (at,) = struct.unpack_from(order + ("Q" if big else "L"), data, 8 if big else 4)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
        at += 8 if big else 2
        for number in range(count):
            tag, _, many = entry.unpack_from(data, at + number * entry.size)
            found += many if tag in _PLACES else 0
    except (struct.error, OverflowError):
        pass
    return found
