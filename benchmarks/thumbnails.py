"""Measure bytes, encoding time and fidelity of thumbnails, by size, format and quality.

    python benchmarks/thumbnails.py                       # the bundled photos
    python benchmarks/thumbnails.py --folder FOLDER --sides 256,320

Pictures are prepared as ingest does: upright, with transparency on white, from a JPEG decoded to twice the encoder's size.
Fidelity is the mean PSNR (in dB, higher is better) of the thumbnail, enlarged to a tile of 240 x 240 CSS pixels on a 2x screen,
against the original at that size. One thread, and the best of `--rounds` for each picture.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from harness.photos import PHOTOS
from harness.program import build_parser, publish_result
from harness.result import ReportTable, Result
from PIL import Image, features

from stair_es.model.stair_mini.plugin import KIND
from stair_es.sources.image.decode import DecodeLimits, compute_contained_size, decode_image
from stair_es.sources.io.uris import IMAGE_SUFFIXES
from stair_es.types import ImageSpec

TILE_PX = 480
"""Longer side of a tile in pixels of a 2x screen."""


@dataclass(frozen=True, kw_only=True)
class Codec:
    """A format with its options."""

    name: str
    format: str
    options: Mapping[str, Any]


CODECS = (
    *(
        Codec(name=f"WebP {quality}, method {method}", format="WEBP", options={"quality": quality, "method": method})
        for quality, method in ((60, 0), (50, 2), (60, 2), (70, 2), (60, 4))
    ),
    *(
        Codec(
            name=f"AVIF {quality}, speed {speed}",
            format="AVIF",
            options={"quality": quality, "speed": speed, "max_threads": 1},
        )
        for quality, speed in ((50, 10), (60, 10), (50, 8), (60, 6))
    ),
    Codec(name="JPEG 75", format="JPEG", options={"quality": 75}),
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The figures of a codec at one size: means over the pictures."""

    codec: str
    side_px: int
    bytes: float
    ms: float
    psnr_db: float


def read_pictures(folder: Path) -> list[Image.Image]:
    """Return the pictures of a folder as they are in ingest before the thumbnail is made."""
    spec = ImageSpec(size_px=2 * KIND.card.image_spec.size_px)
    pictures = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            decoded = decode_image(path.read_bytes(), spec, DecodeLimits())
            pictures.append(Image.fromarray(decoded.pixels_HWC).crop(decoded.box))
    return pictures


def shrink_picture(picture: Image.Image, side_px: int) -> Image.Image:
    """Return the picture, shrunk to fit into a square of this side."""
    if max(picture.size) <= side_px:
        return picture
    size = compute_contained_size(*picture.size, side_px, "pad")
    return picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def compute_psnr(shown: Image.Image, original: Image.Image) -> float:
    """Compute the PSNR of a thumbnail, enlarged as a browser does, in dB."""
    large = shown.convert("RGB").resize(original.size, Image.Resampling.BILINEAR)
    error = float(np.mean((np.asarray(large, np.float64) - np.asarray(original, np.float64)) ** 2))
    return float(10 * np.log10(255**2 / max(error, 1e-3)))


def measure_codec(codec: Codec, pictures: list[Image.Image], side_px: int, rounds: int) -> Cell:
    """Measure one codec at one size."""
    sizes, times_ms, looks = [], [], []
    for picture in pictures:
        small, best_ms, data = shrink_picture(picture, side_px), float("inf"), b""
        for _ in range(rounds):
            buffer = io.BytesIO()
            start = time.perf_counter()
            small.save(buffer, codec.format, **codec.options)
            best_ms, data = min(best_ms, 1e3 * (time.perf_counter() - start)), buffer.getvalue()
        sizes.append(len(data))
        times_ms.append(best_ms)
        with Image.open(io.BytesIO(data)) as shown:
            looks.append(compute_psnr(shown, shrink_picture(picture, TILE_PX)))
    return Cell(
        codec=codec.name,
        side_px=side_px,
        bytes=statistics.mean(sizes),
        ms=statistics.mean(times_ms),
        psnr_db=statistics.mean(looks),
    )


def main() -> None:
    """Run the benchmark, and print its result."""
    parser = build_parser(__doc__)
    parser.add_argument("--folder", type=Path, default=PHOTOS)
    parser.add_argument("--sides", default="128,256,288,320", metavar="PX,...", help="longer sides (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    pictures = read_pictures(args.folder)
    if not pictures:
        parser.error(f"no pictures in {args.folder}")
    codecs = [codec for codec in CODECS if codec.format != "AVIF" or features.check("avif")]
    cells = [
        measure_codec(codec, pictures, side_px, args.rounds) for side_px in map(int, args.sides.split(",")) for codec in codecs
    ]
    rows = tuple(
        (
            str(cell.side_px),
            cell.codec,
            f"{cell.bytes:,.0f}",
            f"{cell.bytes * 4 / 3:,.0f}",
            f"{cell.ms:.2f}",
            f"{cell.psnr_db:.1f}",
        )
        for cell in cells
    )
    head = ("px", "codec", "bytes", "in the document (base64)", "encode, ms", "PSNR on a 2x screen, dB")
    about = f"{len(pictures)} pictures of {args.folder.name}, Pillow {PIL.__version__}"
    publish_result(Result(about=about, tables=(ReportTable(head=head, rows=rows),), figures={"cells": cells}), args.json)


if __name__ == "__main__":
    main()
