"""Orientation and date are read without Pillow's reader, and as it reads them."""

import io
import tracemalloc
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.corpora.hostile_images import build_shared_exif
from support.strategies import draw_damaged_bytes

from stair_es.errors import DecodeError
from stair_es.sources.image.bombs import check_decompression_bomb
from stair_es.sources.image.exif import MAX_ENTRIES, TiffDirectories, find_exif_block, read_exif, read_xmp_orientation

PHOTOS = Path(__file__).parents[4] / "examples" / "photos"


def build_exif(orientation: int | None = 6, taken: str = "2024:05:06 07:08:09") -> Image.Exif:
    made = Image.Exif()
    if orientation is not None:
        made[0x0112] = orientation
    made[0x010F] = "a maker"
    made.get_ifd(0x8769)[0x9003] = taken
    return made


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_blocks_are_read_in_every_format(kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind, exif=build_exif())
    with Image.open(buffer) as image:
        image.load()
        assert read_exif(find_exif_block(image.info))[1] == "2024-05-06T07:08:09"
        if kind != "AVIF":  # of which the container says the orientation
            assert read_exif(find_exif_block(image.info))[0] == 6


def test_tiff_is_its_exif_block() -> None:
    made = build_exif()
    made[0x0132] = "2024:05:06 07:08:09"  # Pillow writes no directory below into a TIFF
    for big in (False, True):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "TIFF", exif=made, big_tiff=big)
        assert read_exif(buffer.getvalue()) == (6, "2024-05-06T07:08:09")


def test_blocks_of_other_programs_are_read() -> None:
    big_endian = b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0\x08\0\0" + bytes(4)
    assert read_exif(big_endian) == (8, None)
    assert read_exif(find_exif_block({"exif": b"Exif\0\0Exif\0\0" + big_endian})) == (8, None)
    assert read_exif(find_exif_block({"Raw profile type exif": "\nexif\n  26\n" + big_endian.hex()})) == (8, None)
    wrapped = "\n".join(big_endian.hex()[at : at + 20] for at in range(0, 60, 20))
    assert read_exif(find_exif_block({"Raw profile type exif": f"\nexif\n  26\n{wrapped}\n"})) == (8, None)
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    assert read_xmp_orientation({"xmp": xmp}) == read_xmp_orientation({"XML:com.adobe.xmp": xmp.decode()}) == 3
    assert read_xmp_orientation({}) is None


@pytest.mark.parametrize(
    "block", [b"", b"II", b"MM\0*", b"II*\0\xff\xff\xff\xff", b"x" * 99, bytes(999), b"II*\0\x08\0\0\0\xff\xff"]
)
def test_invalid_blocks_are_ignored(block: bytes) -> None:
    assert read_exif(block) == (None, None)


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_invalid_orientations_are_left_out(orientation: int) -> None:
    _, taken_at = read_exif(build_exif().tobytes()[6:])
    assert taken_at
    assert read_exif(build_exif(orientation).tobytes()[6:]) == (None, taken_at)


_EXIF_BLOCKS = st.integers(0, 20).map(lambda orientation: build_exif(orientation).tobytes()[6:])


@given(block=draw_damaged_bytes(_EXIF_BLOCKS) | st.binary())
def test_blocks_of_any_bytes_have_valid_facts_or_none(block: bytes) -> None:
    orientation, taken_at = read_exif(block)
    assert orientation in (None, *range(1, 9))
    assert taken_at is None or datetime.fromisoformat(taken_at)
    for data in (block, b"Exif\0\0" + block, b"\xff\xd8\xff\xe1\xff\xffExif\0\0" + block):
        find_exif_block({"exif": data})
        with suppress(DecodeError):
            check_decompression_bomb(data)


def test_shared_exif_values_cost_nothing() -> None:
    block = build_shared_exif(5_000, 300_000, tags=0x8FFF)
    assert read_exif(block) == (None, None)
    tiff = TiffDirectories(block)
    [below] = tiff.read_entries(tiff.first_offset)
    assert len([*tiff.read_entries(tiff.read_number(below) or 0)]) == MAX_ENTRIES


def test_photo_facts_match_pillow() -> None:
    for path in sorted(PHOTOS.glob("*.jpg"))[:50]:
        with Image.open(path) as image:
            assert (read_exif(find_exif_block(image.info))[0] or 1) == image.getexif().get(0x0112, 1)


@pytest.mark.parametrize(
    "info",
    [{"Raw profile type exif": "\n" * 4_000_000}, {"Raw profile type exif": "\n" * 1_000_000}, {"exif": b"Exif\0\0" * 400_000}],
)
def test_empty_blocks_use_no_memory(info: dict[str, str | bytes]) -> None:
    tracemalloc.start()
    find_exif_block(info)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000
