"""RAW files of cameras and phones: recognize them, and find the picture that they carry, a JPEG of the camera's own. Pure.

Developing the sensor's data would take a library and a second for each image, and give another picture than the camera shows.
All makers embed that picture, each in a place of its own, so the largest JPEG in the file is taken, wherever it is.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from stair_es.sources.image.exif import TiffDirectories

MAX_PREVIEWS = 4_096
"""Starts of JPEGs that are looked at in a file. Cameras embed up to four pictures; sensor data may be tiles of JPEGs."""
_MAX_SEGMENTS = 256
"""Segments of a JPEG before its first scan. Cameras write about ten."""
_MAGICS = {b"FUJIFILMCCD-RAW": "RAF", b"IIRO": "ORF", b"IIRS": "ORF", b"MMOR": "ORF", b"IIU\0": "RW2"}
_JPEG_START = re.compile(rb"\xff\xd8\xff[\xc4\xdb\xe0-\xef]")
_START_OF_SCAN, _FRAMES = b"\xda", (b"\xc0", b"\xc1", b"\xc2")
"""Markers of the header of a picture. Sensor data are JPEGs with another one, lossless."""
_DNG_VERSION, _MAKE, _COMPRESSION, _PHOTOMETRIC = 50706, 271, 259, 262
_SENSOR_PHOTOMETRICS = (32803, 34892)
"""Color filter array, and linear raw."""
_SENSOR_COMPRESSIONS = (32767, 32769, 32770, 34713, 65000, 65535)
"""Of Sony, Epson, Samsung, Nikon, Kodak and Pentax."""
_MAKERS = {"nikon": "NEF", "sony": "ARW", "pentax": "PEF", "ricoh": "PEF", "samsung": "SRW", "hasselblad": "3FR", "seiko": "ERF"}


@dataclass(frozen=True)
class RawFile:
    """What a RAW file has of a picture."""

    format: str
    """Such as DNG or NEF; RAW if the maker is unknown."""
    preview: bytes
    """The largest JPEG in it; empty if there is none."""
    exif: bytes
    """A block with orientation and capture time, for a JPEG that has none of its own."""


def read_raw(data: bytes) -> RawFile | None:
    """Read a RAW file; None for all other files."""
    format_, exif = _find_format(data), data
    if format_ is None:
        return None
    if format_ == "CR3" and (start := data.find(b"CMT1", 0, 1 << 16)) > 0:
        exif = data[start + 4 : start - 4 + int.from_bytes(data[start - 4 : start], "big")]
    return RawFile(format_, _find_largest_jpeg(data), exif if exif[:2] in (b"II", b"MM") else b"")


def _find_format(data: bytes) -> str | None:
    if data[4:12] == b"ftypcrx ":
        return "CR3"
    for magic, format_ in _MAGICS.items():
        if data.startswith(magic):
            return format_
    if not data.startswith((b"II*\0", b"MM\0*")):
        return None
    if data[8:11] == b"CR\x02":
        return "CR2"
    tiff, make, is_sensor = TiffDirectories(data), "", False
    for _, directory in tiff.list_directories():
        tags = {entry.tag: entry for entry in directory}
        if _DNG_VERSION in tags:
            return "DNG"
        make = make or (tiff.read_text(tags[_MAKE]) or "" if _MAKE in tags else "")
        is_sensor = is_sensor or any(
            tag in tags and tiff.read_number(tags[tag]) in values
            for tag, values in ((_PHOTOMETRIC, _SENSOR_PHOTOMETRICS), (_COMPRESSION, _SENSOR_COMPRESSIONS))
        )
    return _MAKERS.get(make.split(" ")[0].lower(), "RAW") if is_sensor else None


def _find_largest_jpeg(data: bytes) -> bytes:
    """Return the JPEG picture with the most pixels, to the start of the next one; empty if there is none."""
    starts = [found.start() for found in islice(_JPEG_START.finditer(data), MAX_PREVIEWS)]
    pixels, start = max(((_count_pixels(data, start), start) for start in starts), default=(0, 0))
    if not pixels:
        return b""
    scan = next((position for marker, position in _read_segments(data, start) if marker == _START_OF_SCAN), start + 2)
    after = _JPEG_START.search(data, scan)  # one before is a thumbnail in its head
    return data[start : after.start() if after else None]


def _count_pixels(data: bytes, start: int) -> int:
    """Return the pixels of the JPEG that starts there; 0 if it is none, since sensor data may begin like one by chance."""
    for marker, position in _read_segments(data, start):
        if marker in _FRAMES and len(data) >= position + 10:
            length, precision, height, width, components = struct.unpack_from(">HBHHB", data, position + 2)
            return int(width * height) if precision == 8 and length == 8 + 3 * components else 0
    return 0


def _read_segments(data: bytes, start: int) -> Iterator[tuple[bytes, int]]:
    """Yield marker and position of the segments of a JPEG to its first scan, as long as one follows the other."""
    position = start + 2
    for _ in range(_MAX_SEGMENTS):
        marker = data[position + 1 : position + 2]
        if data[position : position + 1] != b"\xff" or not marker:
            return
        yield marker, position
        if marker == _START_OF_SCAN:
            return
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
