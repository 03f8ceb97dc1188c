"""Hostile images for tests. As a program it decodes them all under a memory limit and prints one JSON line for each.

PYTHONPATH=.:tests python tests/support/corpora/hostile_images.py
"""

from __future__ import annotations

import io
import json
import random
import resource
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pillow_heif
import pillow_jxl  # noqa: F401  registers itself
from PIL import Image

from stair_es.errors import DecodeError
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.system.decoder_logs import disable_decoder_logs
from stair_es.types import ImageSpec
from support.corpora.raw_files import build_raw, encode_jpeg

MAX_MIB = 1_200
"""That decoding one may take beside what the process has: 8 bytes for each of 128 million pixels, and some."""
MAX_CPU_S = 15.0


class HostileImage(NamedTuple):
    """One file."""

    name: str
    data: bytes
    expected_reason: str | None = ""
    """A part of the reason; None if it must become pixels; empty if either will do."""


def encode_image(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return image bytes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


pillow_heif.register_heif_opener()
ISOLATED = ("HEIF", "JXL", "JPEG2000")
RED = Image.new("RGB", (64, 48), (200, 30, 20))
NOISE = Image.effect_noise((96, 96), 80)


def list_images() -> Iterator[HostileImage]:
    """Yield them all."""
    yield from _damaged()
    yield from _webp()
    yield from _png()
    yield from _slow()
    yield from _tiff()
    yield from _jpeg()
    yield from _others()
    yield from _isolated()
    yield from _raw()


def _damaged() -> Iterator[HostileImage]:
    rng = random.Random(7)
    files = {
        kind: encode_image(NOISE.convert("RGB"), kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "PPM", *ISOLATED)
    }
    for mode, compression in (("1", "group4"), ("L", "tiff_lzw"), ("RGB", "jpeg"), ("RGB", "tiff_deflate"), ("L", "packbits")):
        files[f"TIFF {compression}"] = encode_image(NOISE.convert(mode), "TIFF", compression=compression)
    for kind, data in files.items():
        for i in range(3):
            flipped = bytearray(data)
            for _ in range(1 + 6 * i):
                flipped[rng.randrange(len(flipped))] = rng.randrange(256)
            yield HostileImage(f"{kind}, bytes flipped {i}", bytes(flipped))
        yield HostileImage(f"{kind}, cut", data[: len(data) // 2], "" if kind.startswith(("TIFF", "GIF", "BMP", "PPM")) else " ")


def build_animated_webp(side_px: int) -> bytes:
    """Return a dot on a huge canvas."""
    frame = encode_image(Image.new("RGB", (16, 16), "red"), "WEBP", lossless=True)[12:]
    canvas, dot = (struct.pack("<L", px - 1)[:3] * 2 for px in (side_px, 16))
    chunks = ((b"VP8X", b"\x12\0\0\0" + canvas), (b"ANIM", bytes(6)), (b"ANMF", bytes(6) + dot + b"\x28\0\0\0" + frame))
    body = b"WEBP" + b"".join(name + struct.pack("<L", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<L", len(body)) + body


def _webp() -> Iterator[HostileImage]:
    yield HostileImage("animated WebP of 128 million pixels", build_animated_webp(11_300), "limit of 64000000 for WEBP")
    yield HostileImage("animated WebP as large as is taken", build_animated_webp(7_990), None)
    yield HostileImage("animated WebP of 2^24 pixels a side", build_animated_webp(1 << 24))
    still = bytearray(encode_image(Image.new("RGB", (16, 16)), "WEBP", lossless=True))
    struct.pack_into("<L", still, 21, 11_299 | 11_299 << 14)
    yield HostileImage("still WebP of 128 million pixels", bytes(still), "limit of 64000000 for WEBP")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))


def build_png(
    width: int, height: int, *before: bytes, bits: int = 8, kind: int = 2, interlaced: int = 0, data: bytes = b""
) -> bytes:
    """Return a PNG with chunks before its data."""
    head = _chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, bits, kind, 0, 0, interlaced))
    packed = data or zlib.compress(bytes(height * (1 + width * 3)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(before) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def _zeros(size: int) -> bytes:
    packing = zlib.compressobj(1)
    return b"".join(packing.compress(bytes(1 << 20)) for _ in range(size >> 20)) + packing.flush()


def _png() -> Iterator[HostileImage]:
    bomb = _zeros(200 << 20)
    yield HostileImage("PNG of 65535 x 65535", build_png(65_535, 65_535, data=b"x"), "exceed the limit")
    yield HostileImage("PNG of (2^31 - 1)^2", build_png(2**31 - 1, 2**31 - 1, data=b"x"), "exceed the limit")
    yield HostileImage("PNG of 0 x 0", build_png(0, 0, data=b"x"), " ")
    yield HostileImage("PNG that says more than it has", build_png(5_000, 5_000, data=zlib.compress(bytes(99))), " ")
    yield HostileImage("PNG that has more than it says", build_png(8, 8, data=bomb))
    yield HostileImage(
        "PNG, 1 x 100 million", build_png(1, 100_000_000, bits=1, kind=0, data=bomb[:9]), "a side of 100000000 pixels"
    )
    yield HostileImage("PNG, iCCP of 200 MB", build_png(8, 8, _chunk(b"iCCP", b"x\0\0" + bomb)))
    yield HostileImage("PNG, zTXt of 200 MB", build_png(8, 8, _chunk(b"zTXt", b"x\0\0" + bomb)))
    yield HostileImage("PNG of 600,000 chunks", build_png(8, 8, *[_chunk(b"abCd", b"")] * 600_000), "reads")
    yield HostileImage(
        "PNG, EXIF whose entries share their values", build_png(8, 8, _chunk(b"eXIf", build_shared_exif(5_000, 300_000))), None
    )
    lines = _chunk(b"tEXt", b"Raw profile type exif\0" + b"\n" * 20_000_000)
    yield HostileImage("PNG, EXIF of 20 million empty lines", build_png(8, 8, lines), None)
    yield HostileImage(
        "PNG, 16 bit RGBA, interlaced", build_png(6_000, 6_000, bits=16, kind=6, interlaced=1, data=_zeros(300 << 20)), None
    )


def _bmp(width: int, height: int, body: bytes) -> bytes:
    """A BMP with run lengths."""
    head = struct.pack("<LllHHLLllLL", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + struct.pack("<LHHL", 1078 + len(body), 0, 0, 1078) + head + bytes(1024) + body


def _slow() -> Iterator[HostileImage]:
    yield HostileImage("PPM, comment of 20 MB", b"P6\n#" + b"x" * 20_000_000 + b"\n1 1\n255\nabc", "reads")
    yield HostileImage("PPM, 20 MB of spaces", b"P6\n" + b" " * 20_000_000 + b"\n1 1\n255\nabc", "reads")
    yield HostileImage("PPM, plain, 12 MB", b"P3\n1000 1000\n255\n" + b"100 " * 3_000_000, "plain PNM")
    yield HostileImage("PPM, plain, as large as is taken", b"P3\n1000 330\n255\n" + b"100 " * 990_000, None)
    yield HostileImage("PPM, plain, a million comments", b"P3\n1000 1000\n255\n" + b"#\n" * 1_000_000, "comments")
    yield HostileImage("PPM of 254 levels", b"P6\n2000 2000\n254\n" + bytes(12_000_000), "reads")
    yield HostileImage("PFM of numbers that are none", b"Pf\n64 64\n-1.0\n" + b"\0\0\xc0\x7f" * 4096, None)
    yield HostileImage("BMP of empty rows", _bmp(10_000, 2_000, b"\1\1\0\0" * 2_000), "run-length")
    yield HostileImage("BMP of rows of 2^31 pixels", _bmp(2**31 - 1, 2**31 - 1, b""), "run-length")
    yield HostileImage("BMP of 4 million moves by nothing", _bmp(2_000, 2_000, b"\0\2\0\0" * 4_000_000))
    yield HostileImage(
        "GIF of 5 million empty extensions", b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0) + b"!\x01\0" * 5_000_000, "reads"
    )
    jpeg = encode_image(RED, "JPEG")
    yield HostileImage("JPEG, 20 MB of nothing before its data", jpeg[:20] + bytes(20_000_000) + jpeg[20:], "reads")


def build_shared_exif(entries: int, size: int, *, tags: int = 0x1000) -> bytes:
    """Return an EXIF block whose second directory has entries that all share the whole block."""
    root = struct.pack("<HHHLLL", 1, 0x8769, 4, 1, 26, 0)
    shared = b"".join(struct.pack("<HHLL", tags + i, 3, size // 2, 0) for i in range(entries))
    return (b"II*\0\x08\0\0\0" + root + struct.pack("<H", entries) + shared + bytes(4)).ljust(size, b"\x11")


def build_tiff(*tags: tuple[int, int, int, int], side_px: int = 8, body: bytes = b"") -> bytes:
    """Return a TIFF with these tags (tag, type, count, value) added or replaced; `body` begins at 400."""
    required = [(256, 4, 1, side_px), (257, 4, 1, side_px), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 400)]
    required += [(277, 3, 1, 1), (278, 4, 1, side_px), (279, 4, 1, side_px * side_px)]
    entries = sorted({each[0]: each for each in (*required, *tags)}.values())
    packed = b"".join(
        struct.pack("<HHLHH", tag, type_, count, value, 0)
        if (type_, count) == (3, 1)
        else struct.pack("<HHLL", tag, type_, count, value)
        for tag, type_, count, value in entries
    )
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + bytes(4)).ljust(400, b"\0") + (body or bytes(64))


def _tiff() -> Iterator[HostileImage]:
    numbers = b"\x11\x22" * 5_000_000
    yield HostileImage(
        "TIFF with an orientation of 5 million numbers", build_tiff((274, 3, 5_000_000, 400), body=numbers), "numbers"
    )
    yield HostileImage("TIFF with samples of 5 million sizes", build_tiff((258, 3, 5_000_000, 400), body=numbers), "numbers")
    below = struct.pack("<H", 3000) + b"".join(struct.pack("<HHLL", 0x9000 + i, 3, 50_000, 400) for i in range(3000))
    yield HostileImage(
        "TIFF whose EXIF entries share their values", build_tiff((0x8769, 4, 1, 400), body=below + bytes(200_000)), "numbers"
    )
    yield HostileImage("TIFF whose directory is its own EXIF", build_tiff((0x8769, 4, 1, 8)), None)
    yield HostileImage("TIFF of 65535 samples", build_tiff((277, 3, 1, 65_535)), " ")
    yield HostileImage("TIFF of strips of 2^32 rows", build_tiff((278, 4, 1, 2**32 - 1)))
    yield HostileImage(
        "TIFF of a tile of 60000 x 60000", build_tiff((322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 400), (325, 4, 1, 9))
    )
    zeros = zlib.compress(bytes(26_000 * 26_000 // 16))  # a sixteenth of it takes no memory of the test
    tile = ((322, 4, 1, 26_000), (323, 4, 1, 26_000), (324, 4, 1, 400), (325, 4, 1, len(zeros)), (259, 3, 1, 8))
    yield HostileImage(
        "TIFF of a packed tile of 26000 x 26000", build_tiff(*tile, side_px=16, body=zeros), "tiles of 26000 x 26000"
    )
    tile = ((322, 4, 1, 4_096), (323, 4, 1, 4_096), (324, 4, 1, 400), (325, 4, 1, len(zeros)), (259, 3, 1, 8))
    yield HostileImage("TIFF of a tile as large as is taken", build_tiff(*tile, side_px=16, body=zeros), None)
    rows = ((278, 4, 1, 676_000_000 // 16), (279, 4, 1, len(zeros)), (259, 3, 1, 8))
    yield HostileImage("TIFF of a packed strip of 42 million rows", build_tiff(*rows, side_px=16, body=zeros))
    big = b"II" + struct.pack("<HHHQQ", 43, 8, 0, 16, 500_000)
    yield HostileImage(
        "BigTIFF of 500,000 tags",
        big + b"".join(struct.pack("<HHQQ", 1000 + i % 60_000, 3, 1, 1) for i in range(500_000)),
        "tags",
    )
    for mode in ("F", "I"):
        huge = Image.new(mode, (5_000, 5_000), 3)
        yield HostileImage(
            f"TIFF of 25 million pixels of the mode {mode}", encode_image(huge, "TIFF", compression="tiff_deflate"), None
        )
    infinite = np.array([[np.inf, -np.inf, np.nan, 3e38, -3e38, 0.5]] * 6, np.float32)
    yield HostileImage("TIFF of infinite numbers", encode_image(Image.fromarray(infinite), "TIFF"), None)


def _jpeg() -> Iterator[HostileImage]:
    jpeg = encode_image(RED, "JPEG")
    shared = build_shared_exif(5_000, 65_000)
    for name, head in (("\xe1", b"Exif\0\0"), ("\xe2", b"MPF\0")):
        part = b"\xff" + name.encode("latin-1") + struct.pack(">H", len(head + shared) + 2) + head + shared
        yield HostileImage(f"JPEG, {head[:3].decode()} whose entries share their values", jpeg[:2] + part + jpeg[2:], "numbers")
    for exif in (b"", bytes(60_000), b"II*\0\x08\0\0\0", b"II*\0\0\0\0\0", b"MM\0*\xff\xff\xff\xff", b"x" * 60_000):
        block = b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif
        yield HostileImage(f"JPEG, EXIF of {len(exif)} times {exif[:1]!r}{exif[4:5]!r}", jpeg[:2] + block + jpeg[2:], None)
    sized = jpeg.index(b"\xff\xc0") + 5
    yield HostileImage("JPEG that says 65535 x 65535", jpeg[:sized] + b"\xff\xff\xff\xff" + jpeg[sized + 4 :], "exceed the limit")
    yield HostileImage("JPEG that says 6000 x 6000", jpeg[:sized] + struct.pack(">HH", 6000, 6000) + jpeg[sized + 4 :])
    yield HostileImage("JPEG of EXIF in EXIF", b"\xff\xd8" + b"\xff\xe1\xff\xffExif\0\0" * 20_000 + bytes(1 << 16), " ")
    empty = jpeg[:2] + b"\xff\xe0\0\2" * 5_000_000 + jpeg[2:]
    yield HostileImage("JPEG of 5 million empty segments", empty, "reads")
    yield HostileImage("JPEG twice", jpeg + jpeg, None)


def _others() -> Iterator[HostileImage]:
    yield HostileImage("nothing", b"", "empty")
    for kind in ("ICO", "ICNS", "TGA", "PCX", "DDS", "IM", "EPS", "PDF", "SGI"):
        image = RED.resize((64, 64)).convert("RGBA") if kind in ("ICO", "ICNS") else RED
        yield HostileImage(kind, encode_image(image, kind), "not an image")
    for name, data in (
        ("SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("ELF", b"\x7fELF" + bytes(99)),
        ("ZIP", b"PK\3\4" + bytes(99)),
    ):
        yield HostileImage(name, data, "not an image")
    avif = encode_image(RED, "AVIF")
    offset = avif.index(b"ispe") + 8
    yield HostileImage(
        "AVIF that says 60000 x 60000", avif[:offset] + struct.pack(">LL", 60_000, 60_000) + avif[offset + 8 :], " "
    )
    large = encode_image(Image.new("RGB", (6_000, 6_000)), "AVIF", speed=10)
    offset = large.index(b"ispe") + 8
    yield HostileImage("AVIF that says 16 x 16", large[:offset] + struct.pack(">LL", 16, 16) + large[offset + 8 :])
    yield HostileImage("AVIF of 36 million pixels", large, None)


def _isolated() -> Iterator[HostileImage]:
    heif = encode_image(RED, "HEIF")
    offset = heif.index(b"ispe") + 8
    for width, height in ((60_000, 60_000), (2**31, 2**31), (8_000, 8_000), (0, 0)):
        sized = heif[:offset] + struct.pack(">LL", width, height) + heif[offset + 8 :]
        yield HostileImage(f"HEIF that says {width} x {height}", sized, "exceed" if width == 60_000 else "")
    for count in (2**32 - 1, 2**16):
        at = heif.index(b"iloc") + 8
        yield HostileImage(f"HEIF of {count} places", heif[:at] + struct.pack(">L", count) + heif[at + 4 :])
    jp2 = encode_image(RED, "JPEG2000")
    offset = jp2.index(b"\xff\x51") + 6
    for width, height in ((60_000, 60_000), (7_900, 7_900), (1, 2**31)):
        sized = jp2[:offset] + struct.pack(">LL", width, height) + jp2[offset + 8 :]
        header = jp2.index(b"ihdr") + 4
        yield HostileImage(f"JPEG 2000 that says {width} x {height}", sized)
        yield HostileImage(
            f"JPEG 2000 whose head says {height} x {width}",
            sized[:header] + struct.pack(">LL", height, width) + sized[header + 8 :],
        )
    yield HostileImage("JPEG XL of nothing", b"\xff\x0a" + bytes(2_000_000), " ")
    yield HostileImage("JPEG XL, boxes in boxes", b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0\0\0\x08jxlp" * 1_000_000, " ")
    yield HostileImage("JPEG 2000, boxes of nothing", b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\x08free" * 1_000_000, " ")
    yield HostileImage("HEIF, boxes of nothing", b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + b"\0\0\0\x08free" * 1_000_000, " ")
    yield HostileImage("HEIF of a short head", b"\0\0\0\x18ftypheic", " ")


def _raw() -> Iterator[HostileImage]:
    yield HostileImage("RAW of 10 million starts", build_raw("DNG", None) + b"\xff\xd8\xff\xe0" * 10_000_000, "without a picture")
    pictures = encode_jpeg(RED) * 20_000
    yield HostileImage("RAW of 20,000 pictures", build_raw("NEF", None) + pictures, None)
    below = struct.pack("<H", 1) + struct.pack("<HHLL", 330, 4, 1_000_000, 400) + struct.pack("<L", 400)
    numbers = build_tiff((330, 4, 1_000_000, 500), body=below.ljust(100, b"\0") + struct.pack("<L", 400) * 1_000_000)
    yield HostileImage("TIFF of a million directories", numbers, "numbers")
    yield HostileImage("RAW whose directory is below itself", build_tiff((330, 4, 1, 8), (262, 3, 1, 32803)), "without a picture")
    entries = struct.pack("<H", 4_096) + struct.pack("<HHLL", 330, 4, 1_000, 8) * 4_096
    below = b"".join(struct.pack("<L", 12 * i + 8) for i in range(1_000))
    yield HostileImage("TIFF of directories that overlap", b"II*\0\x08\0\0\0" + entries + below, " ")
    jpeg = bytearray(encode_jpeg(RED))
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, 65_535, 65_535)
    yield HostileImage("RAW whose picture says 65535 x 65535", build_raw("CR2", RED) + jpeg, "exceed the limit")


def _kib(field: str) -> int:
    return int(Path("/proc/self/status").read_text().partition(field)[2].split()[0])


def main() -> None:
    """Decode them all; the limit of the memory is for what is worse than counted."""
    disable_decoder_logs()  # as the command and the workers of Ray do
    limit = None
    for image in list_images():
        if limit is None:
            decode_image(encode_image(RED, "AVIF"), ImageSpec(size_px=64), DecodeLimits())
            limit = _kib("VmData:") * 1024
            resource.setrlimit(resource.RLIMIT_DATA, (limit + (1_600 << 20),) * 2)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, start, reason = _kib("VmRSS:"), time.process_time(), None
        try:
            decoded = decode_image(image.data, ImageSpec(size_px=64), DecodeLimits(), thumbnail_px=32)
            assert decoded.pixels_HWC.shape == (64, 64, 3)
        except DecodeError as error:
            reason = error.message[:300]
        used_mib = round((_kib("VmHWM:") - before) / 1024)
        cpu_s = round(time.process_time() - start, 2)
        line = {"name": image.name, "expected_reason": image.expected_reason, "reason": reason, "mib": used_mib, "cpu_s": cpu_s}
        print(json.dumps(line))


if __name__ == "__main__":
    main()
