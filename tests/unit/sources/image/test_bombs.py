"""Files that are slow on purpose are refused before they are read, and others aren't."""

import io
import struct
import tracemalloc
from pathlib import Path

import pytest
from PIL import Image
from support.corpora.hostile_images import build_animated_webp, build_shared_exif, build_tiff
from support.errors import expect_error

from stair_es.errors import DecodeError
from stair_es.sources.image.bombs import MAX_JPEG_SCANS, MAX_SLOW_BYTES, MAX_TIFF_TILES, check_decompression_bomb
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import ImageSpec
from stair_es.web.config import ServerLimits
from stair_es.web.thumbnails import render_image

PHOTOS = Path(__file__).parents[4] / "examples" / "photos"


def save_image(kind: str, mode: str = "RGB", **more: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (64, 48), 100).save(buffer, kind, **more)
    return buffer.getvalue()


def build_scans(count: int) -> bytes:
    """A progressive JPEG of so many scans, of which the last are the same."""
    data = save_image("JPEG", "L", progressive=True)
    begins, ends = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:ends] + data[begins:ends] * (count - data.count(b"\xff\xda")) + data[ends:]


def build_strips(count: int, order: str, big: bool, *, missing: int = 0) -> bytes:
    """A TIFF of one column, each of whose pixels is a strip; its directory ends `missing` bytes early."""
    tags = [(256, 4, 1, 1), (257, 4, 1, count), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, 4, count, 300), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, count, 300 + 4 * count)]
    head = (b"II" if order == "<" else b"MM") + struct.pack(
        order + ("HHHQ" if big else "HL"), *((43, 8, 0, 16) if big else (42, 8))
    )
    entries = b"".join(
        struct.pack(order + ("HHQ" if big else "HHL"), tag, kind, many)
        + (struct.pack(order + "H", value) if kind == 3 else struct.pack(order + "L", value)).ljust(8 if big else 4, b"\0")
        for tag, kind, many, value in tags
    )
    directory = head + struct.pack(order + ("Q" if big else "H"), len(tags)) + entries
    if missing:
        return directory[:-missing]
    return (directory + bytes(8)).ljust(300, b"\0") + struct.pack(order + "L", 300) * count + struct.pack(order + "L", 1) * count


def test_photos_and_program_output_are_read() -> None:
    for path in sorted(PHOTOS.glob("*.jpg")):
        check_decompression_bomb(path.read_bytes())
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "AVIF"):
        check_decompression_bomb(save_image(kind))
    check_decompression_bomb(save_image("JPEG", progressive=True))
    for data in (b"", b"II", b"MM\0*", b"II*\0\xff\xff\xff\xff", b"II+\0" + b"\xff" * 20, b"\xff\xd8\xff\xda"):
        check_decompression_bomb(data)


def test_a_jpeg_of_many_scans_is_rejected() -> None:
    few = build_scans(MAX_JPEG_SCANS)
    assert Image.open(io.BytesIO(few)).load()
    check_decompression_bomb(few)
    many = build_scans(MAX_JPEG_SCANS + 1)
    with pytest.raises(DecodeError, match="scans"):
        check_decompression_bomb(many)
    with pytest.raises(DecodeError, match="scans"):
        render_image(many, 32, "WEBP", DecodeLimits())
    with pytest.raises(DecodeError, match="scans"):
        decode_image(many, ImageSpec(size_px=32), DecodeLimits())


@pytest.mark.parametrize("kind", [b"P1", b"P2", b"P3"])
def test_a_long_plain_pnm_is_rejected(kind: bytes) -> None:
    check_decompression_bomb(kind.ljust(MAX_SLOW_BYTES))
    with expect_error("decoding-too-slow", DecodeError):
        check_decompression_bomb(kind.ljust(MAX_SLOW_BYTES + 1))


def build_segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 255, marker, len(data) + 2) + data


def test_overlapping_jpeg_blocks_use_no_memory() -> None:
    bomb = b"\xff\xd8" + b"\xff\xe1\xff\xffExif\0\0" * 20_000 + bytes(1 << 16)  # 1.3 GB, were each of them a segment
    tracemalloc.start()
    check_decompression_bomb(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.parametrize(
    "before",
    [
        b"",
        build_segment(0xFE, build_segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\0\0")),
        build_segment(0xFE, build_segment(0xE2, b"MPF\0II*\0\x08\0\0\0\0\0")),
        b"junk\xff\0junk\xff\xff\xff",
        b"\xff\xd0\xff\xe0\0\0\xff\xe0\0\1",
    ],
)
@pytest.mark.parametrize(("marker", "head"), [(0xE1, b"Exif\0\0"), (0xE1, b"Exif\0\0" * 2), (0xE2, b"MPF\0")])
def test_the_directory_that_pillow_reads_is_checked(before: bytes, marker: int, head: bytes) -> None:
    shared = build_segment(marker, head + build_shared_exif(5_000, 65_000))
    with pytest.raises(DecodeError, match="numbers"):
        check_decompression_bomb(b"\xff\xd8" + before + shared + save_image("JPEG")[2:])


def test_segments_of_exif_are_joined() -> None:
    block, plain = build_shared_exif(5_000, 65_000), save_image("JPEG")
    parts = b"".join(build_segment(0xE1, b"Exif\0\0" + block[at : at + 1000]) for at in range(0, len(block), 1000))
    with Image.open(io.BytesIO(plain[:2] + parts[: 3 * 1010] + plain[2:])) as image:
        assert image.info["exif"] == b"Exif\0\0" + block[:3000]
    with pytest.raises(DecodeError, match="segments"):
        check_decompression_bomb(plain[:2] + parts + plain[2:])
    parts = build_segment(0xE1, b"Exif\0\0" + block[:30_000]) + build_segment(0xE1, b"Exif\0\0" + block[30_000:])
    with pytest.raises(DecodeError, match="numbers"):
        check_decompression_bomb(plain[:2] + parts + plain[2:])
    with pytest.raises(DecodeError, match="begins"):
        check_decompression_bomb(plain[:2] + build_segment(0xE1, b"Exif\0\0" * 100) + plain[2:])
    harmless = b"".join(struct.pack("<HHLL", i, 3, 1, 1) for i in range(5_000))
    with pytest.raises(DecodeError, match="tags"):
        check_decompression_bomb(
            plain[:2] + build_segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 5_000) + harmless) + plain[2:]
        )


def test_formats_of_double_memory_have_half_the_pixel_limit() -> None:
    dot, spec = build_animated_webp(100), ImageSpec(size_px=32)
    assert decode_image(dot, spec, DecodeLimits(max_pixels=20_000)).width == 100
    with pytest.raises(DecodeError, match=r"100 x 100.*9999.*WEBP"):
        decode_image(dot, spec, DecodeLimits(max_pixels=19_999))
    with pytest.raises(DecodeError, match="for WEBP"):
        render_image(build_animated_webp(7_990), 32, "WEBP", ServerLimits().decode_limits)


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
def test_a_tiff_of_many_strips_is_rejected(order: str, big: bool) -> None:
    few = build_strips(100, order, big)
    with Image.open(io.BytesIO(few)) as image:
        assert (image.size, len(image.tile)) == ((1, 100), 100)
    check_decompression_bomb(few)
    for odd in (build_strips(MAX_TIFF_TILES + 1, order, big), build_strips(MAX_TIFF_TILES + 1, order, big, missing=30)):
        with pytest.raises(DecodeError, match="strips"):
            check_decompression_bomb(odd)


def test_tiles_that_are_larger_than_their_image_are_rejected() -> None:
    def build_tiles(width: int, length: int, kind: int = 4, count: int = 1) -> bytes:
        return build_tiff((322, kind, 1, width), (323, kind, 1, length), (324, 4, count, 400), (325, 4, count, 400))

    check_decompression_bomb(build_tiles(4_096, 4_096))
    check_decompression_bomb(build_tiles(4_096, 4_096, count=29))  # with the strip that it names too
    for kind in (4, 9):
        with pytest.raises(DecodeError, match="26000 x 26000"):
            check_decompression_bomb(build_tiles(26_000, 26_000, kind))
    with pytest.raises(DecodeError, match="656,000,000"):
        check_decompression_bomb(build_tiles(1_000_000, 16, count=40))
    check_decompression_bomb(build_tiles(1_000_000, 16, count=40), max_pixels=200_000_000)
    twice = build_tiff((322, 4, 1, 26_000), (323, 4, 1, 26_000), (324, 4, 1, 400), (0x8000, 4, 1, 0))
    twice = twice.replace(struct.pack("<HHLL", 0x8000, 4, 1, 0), struct.pack("<HHLL", 322, 4, 1, 16))
    with pytest.raises(DecodeError, match="tiles of 26000"):
        check_decompression_bomb(twice)


def test_a_directory_below_of_many_tags_is_rejected() -> None:
    harmless = b"".join(struct.pack("<HHLL", i, 3, 1, 1) for i in range(4_096))
    below = struct.pack("<H", 4_100) + harmless + struct.pack("<HHLL", 0x9000, 3, 3_000_000, 400) * 4  # 12 million numbers
    with pytest.raises(DecodeError, match="tags"):
        check_decompression_bomb(build_tiff((0x8769, 4, 1, 400), body=below + bytes(6_000_000)))


def test_a_bmp_of_os2_is_read() -> None:
    row = bytes([1, 2, 3] * 8)
    bmp = b"BM" + struct.pack("<LHHLLHHHH", 26 + 8 * len(row), 0, 0, 26, 12, 8, 8, 1, 24) + row * 8
    assert decode_image(bmp, ImageSpec(size_px=32), DecodeLimits()).width == 8
    bmp = bmp[:26] + b"\xff\xff\xff\x7f\1" + bmp[31:]  # which say run lengths in other headers
    assert decode_image(bmp, ImageSpec(size_px=32), DecodeLimits()).width == 8
