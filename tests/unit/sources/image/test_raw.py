"""The picture in a RAW file, whoever made it."""

from __future__ import annotations

import struct

import pytest
from PIL import Image
from support.corpora.raw_files import RAW_FORMATS, build_directory, build_raw, encode_jpeg
from support.errors import expect_error

from stair_es.errors import DecodeError
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.sources.image.raw import read_raw
from stair_es.types import ImageSpec

SPEC = ImageSpec(size_px=64)
HALVES = Image.new("RGB", (120, 80), (200, 30, 20))
HALVES.paste((20, 30, 200), (0, 0, 120, 40))
"""Blue above red."""


@pytest.mark.parametrize("format_", RAW_FORMATS)
def test_the_largest_picture_is_found(format_: str) -> None:
    decoded = decode_image(build_raw(format_, HALVES), SPEC, DecodeLimits(), thumbnail_px=32)
    assert (decoded.format, decoded.width, decoded.height) == (format_, 120, 80)
    assert decoded.taken_at == (None if format_ == "RAF" else "2026-05-17T10:11:12")
    assert [int(value) // 64 for value in decoded.pixels_HWC[20, 32]] == [0, 0, 3]


@pytest.mark.parametrize("format_", [format_ for format_ in RAW_FORMATS if format_ != "RAF"])
def test_the_orientation_of_the_file_turns_a_picture_without_its_own(format_: str) -> None:
    decoded = decode_image(build_raw(format_, HALVES, orientation=6), SPEC, DecodeLimits())
    assert (decoded.width, decoded.height) == (80, 120)
    assert [int(value) // 64 for value in decoded.pixels_HWC[32, 52]] == [0, 0, 3]  # what was above is right


def test_the_orientation_of_the_picture_comes_first() -> None:
    exif = Image.Exif()
    exif[274] = 3
    turned = encode_jpeg(HALVES, exif=exif)
    decoded = decode_image(build_directory(b"II*\0", 6, b"Phone", "DNG") + turned, SPEC, DecodeLimits())
    assert (decoded.width, decoded.height) == (120, 80)
    assert [int(value) // 64 for value in decoded.pixels_HWC[20, 32]] == [3, 0, 0]


@pytest.mark.parametrize("format_", RAW_FORMATS)
def test_a_file_without_a_picture_is_named(format_: str) -> None:
    with expect_error("no-raw-preview", DecodeError):
        decode_image(build_raw(format_, None), SPEC, DecodeLimits())


def test_other_files_are_none() -> None:
    plain = build_directory(b"II*\0", 1, b"NIKON CORPORATION")  # a scanner's TIFF
    for data in (b"", b"II*\0", plain, encode_jpeg(HALVES), b"FUJIFILM", b"\0\0\0\x18ftypheic"):
        assert read_raw(data) is None


def test_pixels_that_begin_as_a_raw_file_are_pixels() -> None:
    gray = Image.frombytes("L", (8, 8), b"CR" + bytes(62))
    body = gray.tobytes()
    entries = [(256, 8), (257, 8), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 8), (279, 64)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHLHH", tag, 3, 1, value, 0) for tag, value in entries)
    decoded = decode_image(b"II*\0" + struct.pack("<L", 72) + body + directory + bytes(4), SPEC, DecodeLimits())
    assert decoded.format == "TIFF"


@pytest.mark.parametrize(
    "part", [b"\xff\xd8\xff\xe0\0\4ab\xff\xc0", b"\xff\xd8\xff\xdb", b"\xff\xd8\xff\xe0\xff\xff", b"\xff\xd8\xff\xe0\0\2" * 9]
)
def test_a_picture_that_is_cut_is_none(part: bytes) -> None:
    with expect_error("no-raw-preview", DecodeError):
        decode_image(build_directory(b"II*\0", 1, b"Phone", "DNG") + part, SPEC, DecodeLimits())
