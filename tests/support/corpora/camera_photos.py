"""Photos with what a camera writes into them: maker, lens, exposure and where it was."""

from __future__ import annotations

import io
import struct
from typing import Any

from PIL import Image
from PIL.TiffImagePlugin import IFDRational

LISBON = (38.7139, -9.1394)
LISBON_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    'xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:GPSLatitude="38,42.834N" exif:GPSLongitude="9,8.364W" exif:FNumber="28/10">'
    "<exif:GPSTimeStamp>2024-05-06T07:08:09Z</exif:GPSTimeStamp></rdf:Description></rdf:RDF></x:xmpmeta>"
)


def split_degrees(degrees: float) -> tuple[float, float, float]:
    minutes = abs(degrees) % 1 * 60
    return float(int(abs(degrees))), float(int(minutes)), minutes % 1 * 60


def build_camera_exif(location: tuple[float, float] | None = LISBON, **tags: Any) -> Image.Exif:  # noqa: ANN401  values of EXIF
    """Build the block of a camera; `tags` are tags of the first directory, the camera's or the location's, by `a1_b2_c3`."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Canon", "Canon EOS 80D"
    camera = exif.get_ifd(0x8769)
    fractions = {0x829D: IFDRational(28, 10), 0x829A: IFDRational(1, 200), 0x920A: IFDRational(35)}
    camera |= {0x8827: 100, **fractions, 0xA434: "EF-S17-55mm f/2.8 IS USM"}
    if location:
        latitude, longitude = location
        exif.get_ifd(0x8825).update(
            {
                0: b"\2\3\0\0",
                1: "S" if latitude < 0 else "N",
                2: split_degrees(latitude),
                3: "W" if longitude < 0 else "E",
                4: split_degrees(longitude),
            }
        )
    for name, value in tags.items():
        directory = exif.get_ifd(0x8825) if name.startswith("gps_") else camera if name.startswith("camera_") else exif
        directory[int(name.rpartition("_")[2], 16)] = value
    return exif


def build_camera_photo(kind: str = "JPEG", size: tuple[int, int] = (64, 48), **options: Any) -> bytes:  # noqa: ANN401  of Pillow
    """Build the file of a photo, with EXIF and XMP unless `options` have other ones."""
    buffer = io.BytesIO()
    given = {"exif": build_camera_exif(), **options}
    Image.effect_noise(size, 60).convert("RGB").save(buffer, kind, **{name: value for name, value in given.items() if value})
    return buffer.getvalue()


def build_gps_block(
    latitude: tuple[tuple[int, int], ...] = ((38, 1), (42, 1), (5004, 100)),
    longitude: tuple[tuple[int, int], ...] = ((9, 1), (8, 1), (2184, 100)),
    refs: tuple[bytes, bytes] = (b"N", b"W"),
    type_: int = 5,
) -> bytes:
    """Build an EXIF block with a location as these fractions, byte by byte: Pillow writes no wrong ones."""
    values = b"".join(struct.pack("<2L", *pair) for pair in (*latitude, *longitude))
    root, gps, at = 8, 26, 26 + 2 + 4 * 12 + 4
    entries = [
        struct.pack("<HHL4s", 1, 2, 2, refs[0]),
        struct.pack("<HHLL", 2, type_, len(latitude), at),
        struct.pack("<HHL4s", 3, 2, 2, refs[1]),
        struct.pack("<HHLL", 4, type_, len(longitude), at + 8 * len(latitude)),
    ]
    head = b"II*\0" + struct.pack("<L", root) + struct.pack("<HHHLLL", 1, 0x8825, 4, 1, gps, 0)
    return head + struct.pack("<H", 4) + b"".join(entries) + bytes(4) + values
