"""Files lose where they were taken, and nothing else: the same length, the same pixels, the same other facts."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from support.corpora.camera_photos import LISBON_XMP, build_camera_exif, build_camera_photo, build_gps_block
from support.corpora.documents import build_pdf
from support.strategies import draw_damaged_bytes

from stair_es.sources.image.exif import find_exif_block, read_camera_facts, read_location
from stair_es.sources.image.strip import strip_location

MAX_PIXELS = 1_000_000
XMP = LISBON_XMP.encode()


def build_xmp_photo(kind: str) -> bytes:
    if kind != "PNG":
        return build_camera_photo(kind, xmp=XMP)
    texts = PngImagePlugin.PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", LISBON_XMP)
    return build_camera_photo(kind, pnginfo=texts)


def wrap_tiff(location: bytes) -> bytes:
    """Return a TIFF whose first directory points to a location behind its picture."""
    plain = bytearray(build_camera_photo("TIFF", exif=None))
    [first] = struct.unpack_from("<L", plain, 4)
    [count] = struct.unpack_from("<H", plain, first)
    entries = bytes(plain[first + 2 : first + 2 + 12 * count])
    block = location[26:]
    at = len(plain) + len(plain) % 2
    moved = bytearray(block)
    for place in range(struct.unpack_from("<H", block)[0]):
        if struct.unpack_from("<H", block, 2 + 12 * place)[0] in (2, 4):
            [offset] = struct.unpack_from("<L", block, 10 + 12 * place)
            struct.pack_into("<L", moved, 10 + 12 * place, offset - 26 + at)
    root = at + len(moved) + len(moved) % 2
    struct.pack_into("<L", plain, 4, root)
    directory = struct.pack("<H", count + 1) + entries + struct.pack("<HHLL", 0x8825, 4, 1, at) + bytes(4)
    return bytes(plain).ljust(at, b"\0") + bytes(moved).ljust(root - at, b"\0") + directory


def read_told(data: bytes) -> tuple[dict[int, object], bool]:
    """Return the location by Pillow, and whether a text tells it."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        texts = [value if isinstance(value, bytes) else str(value).encode() for value in image.info.values()]
        return dict(image.getexif().get_ifd(0x8825)), any(b"GPSLatitude" in text for text in texts)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
def test_location_is_removed_in_place(kind: str) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    data = build_xmp_photo(kind)
    assert read_told(data)[0]
    assert read_told(data)[1] is (kind != "AVIF" or b"GPSLatitude" in data)
    stripped = strip_location(data, MAX_PIXELS)
    assert stripped is not None
    assert len(stripped) == len(data)
    assert read_told(stripped) == ({}, False)
    assert b"2024-05-06T07:08:09Z" not in stripped
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(stripped)) as after:
        assert np.array_equal(np.asarray(before), np.asarray(after))
        block = find_exif_block(after.info)
        assert read_camera_facts(block) == read_camera_facts(find_exif_block(before.info))
        assert read_camera_facts(block).camera == "Canon EOS 80D"
    changed = [at for at, (one, other) in enumerate(zip(data, stripped, strict=True)) if one != other]
    assert len(changed) < 400
    assert strip_location(stripped, MAX_PIXELS) is stripped


def test_location_of_a_tiff_is_removed() -> None:
    data = wrap_tiff(build_gps_block())
    assert read_location(data)
    stripped = strip_location(data, MAX_PIXELS)
    assert stripped is not None
    assert len(stripped) == len(data)
    assert read_location(stripped) is None
    with Image.open(io.BytesIO(data)) as before, Image.open(io.BytesIO(stripped)) as after:
        assert np.array_equal(np.asarray(before), np.asarray(after))


def test_checksums_of_a_png_are_right() -> None:
    stripped = strip_location(build_xmp_photo("PNG"), MAX_PIXELS)
    assert stripped is not None
    at = 8
    while at < len(stripped):
        [size] = struct.unpack_from(">L", stripped, at)
        assert struct.unpack_from(">L", stripped, at + 8 + size)[0] == zlib.crc32(stripped[at + 4 : at + 8 + size])
        at += 12 + size


def test_other_pictures_of_a_file_lose_it_too() -> None:
    """Phones append another picture, such as the depth, each with its own block."""
    first = build_camera_photo()
    stripped = strip_location(first + build_camera_photo(), MAX_PIXELS)
    assert stripped is not None
    assert read_told(stripped[len(first) :]) == ({}, False)


def test_what_drones_write_is_removed() -> None:
    told = b'drone-dji:GpsLatitude="+38.7139" drone-dji:GpsLongtitude="-9.1394" drone-dji:Model="M3"'
    stripped = strip_location(build_camera_photo(xmp=XMP.replace(b"exif:FNumber", told + b" exif:FNumber")), MAX_PIXELS)
    assert stripped is not None
    assert b"38.71" not in stripped
    assert b'drone-dji:Model="M3" exif:FNumber="28/10"' in stripped


def test_a_block_for_the_location_alone_is_cleared() -> None:
    gps = build_gps_block()
    alone = b"II*\0" + struct.pack("<L", 26) + bytes(18) + gps[26:]
    data = build_camera_photo(exif=None) + b"CMT4" + alone
    stripped = strip_location(data, MAX_PIXELS)
    assert stripped is not None
    assert stripped.endswith(alone[:26] + bytes(len(alone) - 26))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_file_that_does_not_tell_stays_the_same(kind: str) -> None:
    data = build_camera_photo(kind, exif=build_camera_exif(location=None))
    assert strip_location(data, MAX_PIXELS) is data


def build_png(**texts: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name.replace("_", " "), text, zip=True)
    return build_camera_photo("PNG", exif=None, pnginfo=info)


@pytest.mark.parametrize(
    "data",
    [
        build_png(XMP=LISBON_XMP),
        build_png(Raw_profile_type_exif=f"\nexif\n  1\n{(b'Exif' + bytes(2) + build_gps_block()).hex()}\n"),
        build_png(Raw_profile_type_APP1=f"\ngeneric\n  1\n{(b'Exif' + bytes(2) + build_gps_block()).hex()}\n"),
        build_camera_photo(xmp=LISBON_XMP.replace('"38,', "38,").encode()),
        build_camera_photo(xmp=LISBON_XMP.encode("utf-16-le")),
        build_camera_photo() + b"\0\0\0\x1e\xa9xyz\0\x12\x15\xc7+38.7139-009.1394/",
        build_pdf(["a scan"]),
    ],
    ids=["zTXt", "hex", "hex APP1", "xml", "utf-16", "motion", "pdf"],
)
def test_what_cannot_be_changed_is_not_returned(data: bytes) -> None:
    assert strip_location(data, MAX_PIXELS) is None


@given(data=draw_damaged_bytes(st.sampled_from([build_xmp_photo("JPEG"), build_xmp_photo("PNG"), wrap_tiff(build_gps_block())])))
def test_any_bytes_keep_their_length_and_tell_nothing(data: bytes) -> None:
    stripped = None
    with suppress(Exception):  # as for a download, which then isn't offered
        stripped = strip_location(data, MAX_PIXELS)
    if stripped is not None:
        assert len(stripped) == len(data)
        with suppress(Exception):
            assert read_told(stripped)[1] is False


def test_many_blocks_take_no_time() -> None:
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", 512) + struct.pack("<HHLL", 0x8825, 4, 1, 8) * 512
    assert strip_location(build_camera_photo() + block * 511, MAX_PIXELS) is None
    assert strip_location(build_camera_photo() + b"II*\0" * 600, MAX_PIXELS) is None
