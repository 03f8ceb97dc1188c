"""RAW files as cameras and phones lay them out, with a picture that they embed and noise for the sensor's data."""

from __future__ import annotations

import io
import random
import struct

from PIL import Image

MAKES = {
    "DNG": b"Phone",
    "NEF": b"NIKON CORPORATION",
    "ARW": b"SONY ",
    "PEF": b"PENTAX Corporation",
    "SRW": b"SAMSUNG",
    "RAW": b"?",
}
RAW_FORMATS = (*MAKES, "CR2", "CR3", "RAF", "ORF", "RW2")
_TAKEN_AT = b"2026:05:17 10:11:12\0"


def encode_jpeg(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def build_raw(format_: str, picture: Image.Image | None, orientation: int = 1) -> bytes:
    """Return a RAW file with a thumbnail and the picture as JPEGs; without a picture, with sensor data only."""
    jpegs = b"" if picture is None else encode_jpeg(picture.resize((16, 12))) + bytes(9) + encode_jpeg(picture, quality=95)
    noise = random.Random(3).randbytes(20_000)
    body = noise + b"\xff\xd8\xff\xe0 by chance" + jpegs + noise
    if format_ == "RAF":
        return b"FUJIFILMCCD-RAW 0201".ljust(160, b"\0") + body
    if format_ == "CR3":
        block = build_directory(b"II*\0", orientation, b"Canon")
        moov = _box(b"moov", _box(b"uuid", bytes(16) + _box(b"CMT1", block)))
        return _box(b"ftyp", b"crx \0\0\0\1crx isom") + moov + _box(b"mdat", body)
    magic = {"ORF": b"IIRO", "RW2": b"IIU\0"}.get(format_, b"II*\0")
    head = build_directory(magic, orientation, MAKES.get(format_, b"Canon"), format_)
    return head + body


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">L", len(content) + 8) + name + content


def build_directory(magic: bytes, orientation: int, make: bytes, format_: str = "") -> bytes:
    """Return a header with a directory of orientation, time and maker, and below it one of sensor data."""
    texts = make.ljust(32, b"\0") + _TAKEN_AT
    start = 16
    after = start + 2 + 6 * 12 + 4
    sensor = struct.pack("<H", 1) + struct.pack("<HHLHH", 262, 3, 1, 32803 if format_ in MAKES else 1, 0) + bytes(4)
    entries = [
        struct.pack("<HHLHH", 262, 3, 1, 2, 0),
        struct.pack("<HHLL", 271, 2, len(make), after),
        struct.pack("<HHLHH", 274, 3, 1, orientation, 0),
        struct.pack("<HHLL", 306, 2, len(_TAKEN_AT), after + 32),
        struct.pack("<HHLL", 330, 4, 1, after + len(texts)),
        struct.pack("<HHL4s", 50706 if format_ == "DNG" else 50707, 1, 4, b"\1\4\0\0"),
    ]
    head = magic + struct.pack("<L", start) + (b"CR\2\0" if format_ == "CR2" else bytes(4)) + bytes(4)
    return head + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4) + texts + sensor
