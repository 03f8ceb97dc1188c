"""The folder of a phone: photos in its formats, films, screenshots, documents, and what is broken."""

from __future__ import annotations

import colorsys
import io
from pathlib import Path

import pillow_heif
from PIL import Image

from support.corpora.documents import build_pdf
from support.corpora.raw_files import build_raw

pillow_heif.register_heif_opener()
PHOTOS = {"heic": 150, "jpg": 170, "dng": 40, "png": 60, "jxl": 10, "jp2": 10, "nef": 10}
"""Suffix -> number of pictures. The first 20 RAW files of a phone have a JPEG beside them."""
PAIRS = 20
DOCUMENTS, PAGES = 10, 2
"""PDF files, and the pages of each: a text and a picture."""
IGNORED = {".mov": 30, ".aae": 6}
"""Suffix -> number of files that aren't pictures: the films of Live Photos among them."""
BROKEN = {
    "IMG_BROKEN_1.heic": "image-damaged",
    "IMG_BROKEN_2.jpg": "image-damaged",
    "IMG_EMPTY.png": "file-empty",
    "IMG_BARE.dng": "no-raw-preview",
}
"""Name -> code of its reason."""


def build_phone_folder(folder: Path) -> Path:
    """Fill a folder with 500 files in the layout of a phone; return it."""
    count = 0
    for suffix, pictures in PHOTOS.items():
        for i in range(pictures):
            count += 1
            place = folder / f"{100 + i % 3}APPLE"
            place.mkdir(parents=True, exist_ok=True)
            alone = suffix == "nef" or (suffix == "dng" and i >= PAIRS)
            name = f"IMG_{'9' if alone else ''}{i:04}.{suffix.upper() if i % 2 else suffix}"
            (place / name).write_bytes(_encode_picture(suffix, count))
    good = encode_heif(_paint(0))
    broken = (good[: len(good) // 2], b"\xff\xd8\xff\xe0 broken", b"", build_raw("DNG", None))
    for name, data in zip(BROKEN, broken, strict=True):
        (folder / name).write_bytes(data)
    for i in range(DOCUMENTS):
        (folder / f"Contract {i}.pdf").write_bytes(build_pdf([f"lease of boat number{i}", _paint(1000 + i)]))
    for suffix, files in IGNORED.items():
        for i in range(files):
            (folder / f"IMG_{i:04}{suffix.upper()}").write_bytes(b"no picture")
    return folder


def encode_heif(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "HEIF", quality=70)
    return buffer.getvalue()


def _encode_picture(suffix: str, number: int) -> bytes:
    image = _paint(number)
    if suffix in ("dng", "nef"):
        return build_raw(suffix.upper(), image, orientation=6)
    if suffix == "heic":
        return encode_heif(image)
    buffer = io.BytesIO()
    image.save(buffer, {"jpg": "JPEG", "png": "PNG", "jxl": "JXL", "jp2": "JPEG2000"}[suffix])
    return buffer.getvalue()


def _paint(number: int) -> Image.Image:
    """Return a picture of its own colors."""
    image = Image.new("RGB", (96, 64), _pick_color(number))
    image.paste(_pick_color(number + 1), (0, 0, 8 + number % 80, 20))
    return image


def _pick_color(number: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(number * 0.381966 % 1, 0.9, 0.9)
    return int(255 * red), int(255 * green), int(255 * blue)
