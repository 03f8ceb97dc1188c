"""Directories of TIFF files and of EXIF blocks in other images, parsed as untrusted input: what they say of a picture. Pure.

Pillow's own reader makes a number of every value of a block: blocks of 64 KiB whose entries share their values take gigabytes.
"""

from __future__ import annotations

import math
import re
import struct
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from PIL import Image

MAX_ENTRIES = 4_096
"""Entries read per directory. Programs and cameras write a few dozen."""
MAX_DIRECTORIES = 32
"""Directories listed per file."""
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Type -> bytes of one value."""
_BYTE_TYPES = (1, 2, 6, 7)
"""Types of bytes, which readers keep as bytes; each value of another type becomes a number."""
_NUMBERS = {3: "H", 4: "L", 8: "h", 9: "l", 13: "L", 16: "Q", 17: "q", 18: "Q"}
_RATIONALS = {5: "L", 10: "l"}
"""Type of a pair of numbers -> the type of each."""
_MAX_TEXT_BYTES = 64


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

    def read_rationals(self, entry: TiffEntry, max_count: int) -> list[float]:
        """Return an entry's fractions, at most `max_count` of them; one without a value (0/0, 1/0) is NaN."""
        format_ = _RATIONALS.get(entry.type, "")
        count = min(entry.available_bytes // 8, max_count) if format_ else 0
        pairs = (
            (self._unpack(format_, entry.offset + 8 * i), self._unpack(format_, entry.offset + 8 * i + 4)) for i in range(count)
        )
        return [above / below if below else math.nan for above, below in pairs]

    def index_entries(self, offset: int | None) -> dict[int, TiffEntry]:
        """Return the entries of the directory at `offset` by tag, of duplicates the first; none without an offset."""
        return {entry.tag: entry for entry in reversed([*self.read_entries(offset)])} if offset and offset > 0 else {}

    def list_directories(self) -> Iterator[tuple[int, list[TiffEntry]]]:
        """Yield offset and entries of the directories of a TIFF and of those below them, at most `MAX_DIRECTORIES`."""
        offsets = [self.first_offset]
        for offset in offsets:  # which grows
            entries = [*self.read_entries(offset)]
            yield offset, entries
            below = [entry for entry in entries if entry.tag == _SUB_DIRECTORIES][:MAX_DIRECTORIES]
            found = [number for entry in below for number in self.read_numbers(entry, MAX_DIRECTORIES)]
            for number in (*found, self.find_next(offset)):
                if number > 0 and number not in offsets and len(offsets) < MAX_DIRECTORIES:
                    offsets.append(number)

    def find_end(self, offset: int) -> int:
        """Return the offset after the entries of the directory at `offset`."""
        return offset + (8 if self._big else 2) + self.count_entries(offset) * self._entry.size

    def find_next(self, offset: int) -> int:
        """Return the offset of the directory after the one at `offset`; 0 or -1 if there is none."""
        return self._unpack("Q" if self._big else "L", self.find_end(offset))

    def read_text(self, entry: TiffEntry) -> str | None:
        """Return an entry's text to its first NUL, at most 64 bytes of it, without control characters."""
        if entry.type not in _BYTE_TYPES:
            return None
        raw = self._data[entry.offset : entry.offset + min(entry.available_bytes, _MAX_TEXT_BYTES)].partition(b"\0")[0]
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
        return " ".join("".join(" " if unicodedata.category(char)[0] == "C" else char for char in text).split())

    def _unpack(self, format_: str, offset: int) -> int:
        try:
            return int(struct.unpack_from(self._order + format_, self._data, offset)[0]) if offset >= 0 else -1
        except (struct.error, OverflowError):
            return -1


_SUB_DIRECTORIES, _EXIF_DIRECTORY, GPS_DIRECTORY = 330, 0x8769, 0x8825
_ORIENTATION, _DATE_TIME_ORIGINAL, _DATE_TIME = 0x0112, 0x9003, 0x0132
_MAKE, _MODEL, _LENS, _ISO, _EXPOSURE_INDEX = 0x010F, 0x0110, 0xA434, 0x8827, 0x8832
_F_NUMBER, _EXPOSURE_TIME, _FOCAL_LENGTH = 0x829D, 0x829A, 0x920A
_UNKNOWN_ISO = 65_535
"""Stands for any larger one, which is elsewhere."""
_MAX_ISO, _MAX_APERTURE, _MAX_EXPOSURE_S, _MAX_FOCAL_MM = 10_000_000, 1_000.0, 1_000_000.0, 1_000_000.0
"""Above, a value is an error of the program that wrote it."""
_LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE = 1, 2, 3, 4
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
    tiff, root, exif = _read_directories(block)
    orientation = tiff.read_number(root[_ORIENTATION]) if _ORIENTATION in root else None
    dates = (tiff.read_text(entries[tag]) for entries, tag in ((exif, _DATE_TIME_ORIGINAL), (root, _DATE_TIME)) if tag in entries)
    return orientation if orientation in range(1, 9) else None, _convert_to_iso(next(filter(None, dates), None))


@dataclass(frozen=True, kw_only=True)
class CameraFacts:
    """What a camera has written of a picture; None where it is missing or impossible."""

    camera: str | None = None
    """Maker and model, without a maker that the model repeats."""
    lens: str | None = None
    iso: int | None = None
    aperture: float | None = None
    """The f-number."""
    exposure_s: float | None = None
    focal_mm: float | None = None
    """Of the lens, not that of 35 mm film."""


def read_camera_facts(block: bytes) -> CameraFacts:
    """Read what a TIFF or an EXIF block says of the camera."""
    tiff, root, exif = _read_directories(block)
    make, model, lens = (
        (tiff.read_text(tags[tag]) or "") if tag in tags else "" for tags, tag in ((root, _MAKE), (root, _MODEL), (exif, _LENS))
    )
    isos = (tiff.read_number(exif[tag]) or 0 for tag in (_ISO, _EXPOSURE_INDEX) if tag in exif)

    def read_fraction(tag: int, largest: float) -> float | None:
        value = next(iter(tiff.read_rationals(exif[tag], 1)), math.nan) if tag in exif else math.nan
        return float(f"{value:.6g}") if 0 < value <= largest else None

    return CameraFacts(
        camera=_name_camera(make, model) or None,
        lens=lens or None,
        iso=next((iso for iso in isos if 0 < iso <= _MAX_ISO and iso != _UNKNOWN_ISO), None),
        aperture=read_fraction(_F_NUMBER, _MAX_APERTURE),
        exposure_s=read_fraction(_EXPOSURE_TIME, _MAX_EXPOSURE_S),
        focal_mm=read_fraction(_FOCAL_LENGTH, _MAX_FOCAL_MM),
    )


def read_location(block: bytes) -> tuple[float, float] | None:
    """Read latitude and longitude in degrees from a TIFF or an EXIF block; None if they are missing or impossible.

    A camera without a fix writes 0, 0: there is only sea.
    """
    tiff, root, _ = _read_directories(block)
    gps = tiff.index_entries(tiff.read_number(root[GPS_DIRECTORY])) if GPS_DIRECTORY in root else {}
    latitude = _read_degrees(tiff, gps.get(_LATITUDE), gps.get(_LATITUDE_REF), "NS", 90)
    longitude = _read_degrees(tiff, gps.get(_LONGITUDE), gps.get(_LONGITUDE_REF), "EW", 180)
    return None if latitude is None or longitude is None or latitude == longitude == 0 else (latitude, longitude)


def _read_degrees(
    tiff: TiffDirectories, entry: TiffEntry | None, ref: TiffEntry | None, signs: str, largest: int
) -> float | None:
    """Read degrees, minutes and seconds with the letter of their direction."""
    values = tiff.read_rationals(entry, 3) if entry else []
    sign = (tiff.read_text(ref) or "").upper()[:1] if ref else ""
    if len(values) < 3 or not sign or sign not in signs or not all(0 <= value < 60 for value in values[1:]):
        return None
    degrees = values[0] + values[1] / 60 + values[2] / 3600
    if not 0 <= degrees <= largest:
        return None
    return -degrees if sign in "SW" else degrees


def _name_camera(make: str, model: str) -> str:
    """Join maker and model, without a maker that the model repeats: `NIKON D750` of `NIKON CORPORATION` and `NIKON D750`."""
    first = make.partition(" ")[0].casefold()
    return model if first and model.casefold().startswith(first) else f"{make} {model}".strip()


def _read_directories(block: bytes) -> tuple[TiffDirectories, dict[int, TiffEntry], dict[int, TiffEntry]]:
    """Return the directories of a TIFF or an EXIF block, the first one, and that of the camera, by tag."""
    tiff = TiffDirectories(block, big=block[2:4] in (b"+\0", b"\0+"))
    root = tiff.index_entries(tiff.first_offset)
    return tiff, root, tiff.index_entries(tiff.read_number(root[_EXIF_DIRECTORY])) if _EXIF_DIRECTORY in root else {}


def read_xmp_orientation(info: Mapping[Any, Any]) -> int | None:
    """Return the orientation from XMP, for images without one in EXIF."""
    for name in ("xmp", "XML:com.adobe.xmp"):
        text = info.get(name, b"")
        found = _XMP_ORIENTATION.search(text if isinstance(text, bytes) else str(text).encode(errors="replace"))
        if found:
            return int(found[1])
    return None


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
