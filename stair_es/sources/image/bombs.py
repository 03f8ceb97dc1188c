"""Reject files that take far more time or memory to decode than their pixels suggest, before or while reading them. Pure."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from itertools import islice

from stair_es.config.defaults import MAX_PIXELS
from stair_es.errors import DecodeError, DecompressionBomb
from stair_es.sources.image.exif import EXIF_HEADER, MAX_ENTRIES, MAX_EXIF_HEADERS, TiffDirectories, skip_exif_headers

APP1, APP2 = 0xE1, 0xE2
"""Markers of the segments with EXIF and with the index of further images (MPF)."""
_START_OF_SCAN = 0xDA
_MARKER = re.compile(rb"\xff([\x01-\xc7\xc9-\xcf\xda-\xef\xfe])")
"""Skips bytes between segments, 255 before a marker and before 0, and markers without a length."""
_FIRST = 0xC0
"""Values below are not markers: Pillow stops there."""


def read_jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the segments before the first scan of a JPEG: marker, start of the payload after the length, and end."""
    position = 2
    while (found := _MARKER.search(data, position)) and (marker := found[1][0]) >= _FIRST and marker != _START_OF_SCAN:
        start = found.end() + 2
        position = max(start, found.end() + int.from_bytes(data[found.end() : start], "big"))
        yield marker, start, min(position, len(data))


MAX_JPEG_SCANS = 64
"""Scans in all images of a JPEG. A progressive JPEG has about 10. Each scan visits all pixels and may be 60 bytes long."""
MAX_TIFF_TILES = 32_768
"""Strips or tiles of a TIFF, each of which costs some microseconds and half a kilobyte, even if it is small."""
MAX_TILE_PIXELS = 1 << 24
"""Pixels of a tile of a TIFF: libtiff decodes whole tiles, even if the image is small."""
MAX_TILE_OVERHEAD = 4
"""All tiles of a TIFF may have up to this many times the pixels allowed for an image, since they extend over its edges."""
MAX_TAG_NUMBERS = 1_000_000
"""Numbers in the directories of a TIFF or an EXIF block. Pillow makes an object of each, about 33 bytes for one of 2."""
MAX_EXIF_BYTES = 64_000_000
"""Total bytes referenced by the entries of an EXIF block: several may reference the same bytes, and each gets a copy."""
MAX_EXIF_SEGMENTS = 64
"""EXIF segments of a JPEG, 65,533 bytes each: Pillow copies the previous ones for each."""
MAX_DECODER_READS = 1_000_000
"""Read calls of a decoder. Decoders read large chunks, except for headers, and except decoders written in Python that read one
byte or pixel at a time: BMP with run lengths, PPM with other than 255 levels.
"""
MAX_SLOW_BYTES = MAX_SLOW_PIXELS = 4_000_000
"""Bytes and pixels of the other formats decoded in Python, 0.2 to 1 microsecond each: plain PNM, BMP with run lengths."""
MAX_PNM_COMMENTS = 1_000
"""Comments in a plain PNM: removing each one copies the rest of the file."""
DOUBLE_MEMORY_FORMATS = ("WEBP", "AVIF", "HEIF", "JXL", "JPEG2000")
"""Formats limited to half the pixels: their decoders hold an image two or three times in addition to the result."""
MAX_SIDE_PX = 1_000_000
"""Each row takes some bytes even if it is short, and resizing takes some for each pixel of a side."""
_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
"""Start of a scan. In compressed data a byte 255 is always followed by 0."""
_MPF = b"MPF\0"
_OFFSET_TAGS = (273, 324)
"""TIFF tags: offsets of the strips or tiles."""
_TILE_SIZE_TAGS = (322, 323)
"""TIFF tags: width and length of the tiles."""
_DIRECTORY_TAGS = (0x8769, 0x8825, 0xA005)
"""Tags that point to further directories, which Pillow reads completely: EXIF, GPS, interoperability."""
_OS2_HEADER = struct.pack("<L", 12)
"""Length of the OS/2 header, its first field. It has shorter sides and no compression; pixels may overlap those fields."""
_RUN_LENGTHS = (1, 2)
"""Values of a BMP's compression field."""


class ReadBudgetBytesIO(io.BytesIO):
    """An in-memory file that allows `MAX_DECODER_READS` reads, which bounds the time of decoders written in Python."""

    _reads = 0

    def read(self, size: int | None = -1) -> bytes:
        """Read as any file does; raise DecodeError if it is called too often."""
        self._reads += 1
        if self._reads > MAX_DECODER_READS:
            raise DecodeError(
                f"would take too long: decoding it takes more than {MAX_DECODER_READS:,} reads", code="decoding-too-slow"
            )
        return super().read(size)


def compute_max_pixels(format_: str | None, max_pixels: int) -> int:
    """Compute how many of the pixels allowed for an image those of a format may have."""
    return max_pixels // 2 if format_ in DOUBLE_MEMORY_FORMATS else max_pixels


def check_pixels(width: int, height: int, format_: str | None, max_pixels: int) -> None:
    """Raise DecompressionBomb if an image has more pixels, or a longer side, than is allowed for its format."""
    limit = compute_max_pixels(format_, max_pixels)
    if width * height > limit:
        raise DecompressionBomb(
            f"decompression bomb? {width} x {height} pixels exceed the limit of {limit}"
            + (f" for {format_}, half of the limit for other formats" if limit < max_pixels else "")
        )
    if max(width, height) > MAX_SIDE_PX:
        raise DecompressionBomb(f"decompression bomb? a side of {max(width, height)} pixels exceeds the limit of {MAX_SIDE_PX}")


def check_decompression_bomb(data: bytes, max_pixels: int = MAX_PIXELS) -> None:
    """Raise DecodeError if the time and memory to decode a file are out of proportion to its pixels."""
    if data.startswith(b"\xff\xd8"):
        _check_jpeg(data)
    elif data.startswith((b"II", b"MM")):
        _check_tiff(data, max_pixels)
    elif data.startswith((b"P1", b"P2", b"P3")):
        if len(data) > MAX_SLOW_BYTES:
            raise DecodeError(
                f"would take too long: {len(data):,} bytes of plain PNM exceed the limit of {MAX_SLOW_BYTES:,}",
                code="decoding-too-slow",
            )
        if (comments := data.count(b"#")) > MAX_PNM_COMMENTS:
            raise DecodeError(
                f"would take too long: {comments:,} comments exceed the limit of {MAX_PNM_COMMENTS:,}", code="decoding-too-slow"
            )
    elif data.startswith(b"BM") and len(data) >= 34 and data[14:18] != _OS2_HEADER:
        width, height = struct.unpack_from("<ll", data, 18)
        if data[30] in _RUN_LENGTHS and abs(width * height) > MAX_SLOW_PIXELS:
            raise DecodeError(
                f"would take too long: {abs(width * height):,} pixels of run-length encoded BMP exceed the limit of"
                f" {MAX_SLOW_PIXELS:,}",
                code="decoding-too-slow",
            )


def _check_jpeg(data: bytes) -> None:
    scans = sum(1 for _ in _SCAN.finditer(data))
    if scans > MAX_JPEG_SCANS:
        raise DecompressionBomb(f"decompression bomb? {scans:,} scans exceed the limit of {MAX_JPEG_SCANS}")
    exif, mpf = [], b""
    for marker, start, end in islice(read_jpeg_segments(data), MAX_DECODER_READS):
        if marker == APP1 and data.startswith(EXIF_HEADER, start, end):
            exif.append(data[start + len(EXIF_HEADER) : end])
            if len(exif) > MAX_EXIF_SEGMENTS:
                raise DecompressionBomb(f"decompression bomb? more than {MAX_EXIF_SEGMENTS} EXIF segments")
        elif marker == APP2 and data.startswith(_MPF, start, end):
            mpf = data[start + len(_MPF) : end]
    block = skip_exif_headers(b"".join(exif))  # Pillow joins them
    if block.startswith(EXIF_HEADER):
        raise DecompressionBomb(f"decompression bomb? its EXIF begins more than {MAX_EXIF_HEADERS} times")
    _check_directories(TiffDirectories(block), MAX_EXIF_BYTES)
    _check_directories(TiffDirectories(mpf), MAX_EXIF_BYTES)  # Pillow takes the last of these


def _check_tiff(data: bytes, max_pixels: int) -> None:
    for big in (False, True) if 43 in data[2:4] else (False,):  # decoders disagree about a BigTIFF in the other byte order
        tiff = TiffDirectories(data, big=big)
        root = [*tiff.read_entries(tiff.first_offset)]
        tiles = sum(entry.value_count for entry in root if entry.tag in _OFFSET_TAGS)
        if tiles > MAX_TIFF_TILES:
            raise DecompressionBomb(f"decompression bomb? {tiles:,} strips or tiles exceed the limit of {MAX_TIFF_TILES:,}")
        width, length = (max((tiff.read_number(e) or 0 for e in root if e.tag == tag), default=0) for tag in _TILE_SIZE_TAGS)
        if width * length > MAX_TILE_PIXELS:
            raise DecompressionBomb(
                f"decompression bomb? tiles of {width} x {length} pixels exceed the limit of {MAX_TILE_PIXELS:,}"
            )
        if (all_pixels := tiles * width * length) > (max_tile_pixels := max(MAX_TILE_PIXELS, MAX_TILE_OVERHEAD * max_pixels)):
            raise DecompressionBomb(f"decompression bomb? {all_pixels:,} pixels of tiles exceed the limit of {max_tile_pixels:,}")
        _check_directories(tiff, max(MAX_EXIF_BYTES, len(data)))


def _check_directories(tiff: TiffDirectories, max_bytes: int) -> None:
    """Check the data that Pillow reads in the first directory and those that it points to, as far as they are readable."""
    root = [*tiff.read_entries(tiff.first_offset)]
    offsets = [offset for entry in root if entry.tag in _DIRECTORY_TAGS and (offset := tiff.read_number(entry)) is not None]
    directories = {tiff.first_offset: root, **{offset: [*tiff.read_entries(offset)] for offset in offsets}}
    entries = [*root, *(entry for offset in offsets for entry in directories[offset])]
    numbers = sum(entry.number_count for entry in entries)
    total_bytes = sum(entry.available_bytes for entry in entries)
    if numbers > MAX_TAG_NUMBERS or total_bytes > max_bytes:
        raise DecompressionBomb(f"decompression bomb? its tags hold {numbers:,} numbers and {total_bytes:,} bytes")
    for offset, entries_read in directories.items():
        if (count := tiff.count_entries(offset)) > MAX_ENTRIES and len(entries_read) == MAX_ENTRIES:
            raise DecompressionBomb(f"decompression bomb? {count:,} tags exceed the limit of {MAX_ENTRIES:,}")
