"""Remove where a photo was taken from its file, in place: not a byte moves, and no pixel changes.

The directory of the location is zeroed in each EXIF block of the file, wherever its format keeps them, and the values of XMP
become spaces. What a format compresses can't be changed so.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from itertools import chain

from stair_es.sources.image.exif import GPS_DIRECTORY, MAX_DIRECTORIES, TiffDirectories, find_exif_block, read_location
from stair_es.sources.image.isolated import find_isolated_format
from stair_es.sources.image.pillow import open_image

_TIFF_HEADER = re.compile(rb"II[*+]\0|MM\0[*+]|\A(?:II(?:RO|RS|U\0)|MMOR)")  # the latter of RAW files
_MAX_BLOCKS, _MAX_BLOCK_BYTES, _MAX_BLOCK_ENTRIES = 512, 1 << 20, 512
"""EXIF blocks in a file that are looked at, and how much of each. Some start by chance, in compressed pixels."""
_MAX_LOCATIONS = 4
"""Directories of locations in a block."""
_POINTER_TYPES = (4, 13, 16, 18)
_MAX_GPS_TAG, _MAX_GPS_ENTRIES, _MAX_VALUE_BYTES = 0x1F, 64, 4_096
_XMP_NAME = rb"[A-Za-z][\w.-]{0,40}:G[Pp][Ss]\w{1,40}"
"""Such as `exif:GPSLatitude`, and the names that drones write: `drone-dji:GpsLatitude`."""
_XMP_VALUE = re.compile(
    rb"(?<![\w.:-])" + _XMP_NAME + rb"\s{0,9}=\s{0,9}(?:\"[^\"<]{0,4096}\"|'[^'<]{0,4096}')"
    rb"|<(?P<tag>" + _XMP_NAME + rb")(?:\s[^<>]{0,4096})?>[^<]{0,4096}</(?P=tag)\s{0,9}>"
)
_TOLD = re.compile(
    rb"G\0?[Pp]\0?[Ss]\0?(?:D\0?e\0?s\0?t\0?)?L\0?(?:a\0?t|o\0?n)"  # left in a text of one or two bytes a character
    rb"|\xa9xyz.{0,8}[+-][0-9]|location\.ISO6709"  # of the video in a motion photo
    rb"|\bgeo:(?:lat|long)\b|[\w-]:L(?:atitude|ongitude)\b",
    re.DOTALL,
)
"""What tells a location in another form than those that are removed."""
_PNG_START, _PNG_TEXTS = b"\x89PNG\r\n\x1a\n", (b"tEXt", b"zTXt", b"iTXt")
_HEXADECIMAL = "Raw profile type"
_MAX_TEXT_BYTES = 1 << 24


def strip_location(data: bytes, max_pixels: int) -> bytes | None:
    """Return an image file without where it was taken, the same if it doesn't tell; None if it can't be removed.

    Raises:
        Exception: If it can't be opened; hostile bytes may raise anything.
    """
    isolated = find_isolated_format(data)
    if data.startswith(b"%PDF-") or (isolated and isolated.name == "JXL" and b"brob" in data):  # compressed
        return None
    stripped = bytearray(data)
    starts = [found.start() for found in _TIFF_HEADER.finditer(data)]
    if len(starts) > _MAX_BLOCKS or not all(_clear_block(data, stripped, start) for start in starts):
        return None
    for found in _XMP_VALUE.finditer(data) if re.search(rb":G[Pp][Ss]", data) else ():  # which is much faster
        stripped[found.start() : found.end()] = b" " * len(found[0])
    if data.startswith(_PNG_START):
        _mend_checksums(data, stripped)
    result = data if stripped == data else bytes(stripped)
    return None if _tells_location(result, max_pixels) else result


def _clear_block(data: bytes, stripped: bytearray, start: int) -> bool:
    """Clear the locations of the EXIF block at `start`, if there is one; return False if that isn't possible."""
    block = data if start == 0 else data[start : start + _MAX_BLOCK_BYTES]
    tiff = TiffDirectories(block, big=block[2:4] in (b"+\0", b"\0+"))
    if data[max(0, start - 4) : start] == b"CMT4":  # of Canon's CR3, a block for the location alone
        return _clear_directory(tiff, tiff.first_offset, stripped, start)
    if start and tiff.count_entries(tiff.first_offset) > _MAX_BLOCK_ENTRIES:
        return True  # by chance
    first = tiff.first_offset
    directories = (
        [entries for _, entries in tiff.list_directories()]
        if start == 0
        else [[*tiff.read_entries(offset)][:_MAX_BLOCK_ENTRIES] for offset in (first, tiff.find_next(first)) if offset > 0]
    )
    pointers = [
        entry for entries in directories for entry in entries if entry.tag == GPS_DIRECTORY and entry.type in _POINTER_TYPES
    ]
    offsets = {tiff.read_number(entry) or 0 for entry in pointers if entry.value_count == 1}
    is_known = len(offsets) <= _MAX_LOCATIONS and len(directories) < MAX_DIRECTORIES
    return is_known and all(_clear_directory(tiff, offset, stripped, start) for offset in offsets)


def _clear_directory(tiff: TiffDirectories, offset: int, stripped: bytearray, start: int) -> bool:
    """Clear a directory of a location and its values; return False if it is none."""
    count, entries = tiff.count_entries(offset), [*tiff.read_entries(offset)]
    is_location = all(entry.tag <= _MAX_GPS_TAG and entry.available_bytes <= _MAX_VALUE_BYTES for entry in entries)
    if not is_location or count > _MAX_GPS_ENTRIES or len(entries) < count:
        return False
    spans = [(entry.offset, entry.offset + entry.available_bytes) for entry in entries]
    for begin, end in [*spans, (offset, tiff.find_end(offset))]:
        stripped[start + begin : start + end] = bytes(end - begin)
    return True


def _tells_location(data: bytes, max_pixels: int) -> bool:
    """Return whether a file still says where it was taken, as far as its metadata can be read."""
    with open_image(data, max_pixels) as image:
        values = [
            value if isinstance(value, bytes) else value.encode(errors="replace")
            for value in image.info.values()
            if isinstance(value, str | bytes)
        ]
        is_tiff = _TIFF_HEADER.match(data) is not None
        block = find_exif_block(image.info)
    if is_tiff and read_location(data) is not None:
        return True
    if data.startswith(_PNG_START):
        for name, text in _read_png_texts(data):
            if name.startswith(_HEXADECIMAL) and name != f"{_HEXADECIMAL} exif":
                return True  # can't be read here, and may have any metadata
            values.append(text)
            block = block or find_exif_block({name: text.decode("latin-1")})
    return read_location(block) is not None or any(map(_TOLD.search, chain([data], values)))


def _list_png_chunks(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and length of the content of each chunk of a PNG."""
    at = len(_PNG_START)
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield at + 8, size
        at += size + 12


def _mend_checksums(data: bytes, stripped: bytearray) -> None:
    for start, size in _list_png_chunks(data):
        content = bytes(stripped[start - 4 : start + size])
        if content != data[start - 4 : start + size]:
            stripped[start + size : start + size + 4] = zlib.crc32(content).to_bytes(4, "big")


def _read_png_texts(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield keyword and text of the texts of a PNG, before and after its pixels, decompressed."""
    for start, size in _list_png_chunks(data):
        kind, content = data[start - 4 : start], data[start : start + size]
        if kind not in _PNG_TEXTS:
            continue
        name, _, text = content.partition(b"\0")
        is_compressed = kind == b"zTXt" or (kind == b"iTXt" and text[:1] == b"\1")
        text = text[1:] if kind == b"zTXt" else text[2:].split(b"\0", 2)[-1] if kind == b"iTXt" else text
        yield name.decode("latin-1"), zlib.decompressobj().decompress(text, _MAX_TEXT_BYTES) if is_compressed else text
