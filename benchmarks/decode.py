"""Measure how ingest decodes pictures: CPU time, what decoding large JPEGs at a smaller scale changes, thumbnails, and formats
that are decoded in a process apart.

    python benchmarks/decode.py                                       # the bundled photos, enlarged
    python benchmarks/decode.py --folder FOLDER --megapixels own --parts 16    # of large photographs, and of parts of them
    python benchmarks/decode.py --only thumbnails --sides 256,320

- CPU time: ms per picture in one thread, the best of `--rounds` for each, with thumbnails of 320 px. `full scale` is the same
  program without Pillow's draft mode, which decodes JPEGs at 1/2, 1/4 or 1/8. Pictures are enlarged, get grain, and are saved at
  quality 90.
- Changes: pixels are compared with those at full scale, as the mean difference of 0 to 255. So are those of the same picture
  saved again at quality 85. Changed token weight is 1 - sum(min) / sum(max) over the tokens of stair-mini, which gets the pixels
  of each fit. Pictures without enough pixels for a smaller scale are left out.
- Thumbnails: fidelity is the mean PSNR (in dB, higher is better) of the thumbnail, enlarged to a tile of 240 x 240 CSS pixels on
  a 2x screen, against the original at that size.
- Formats: time on the clock for pictures of 12 megapixels whose decoders run in a process apart, with and without that process.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import numpy as np
import PIL
import pillow_heif
from harness.photos import PHOTOS
from harness.program import build_parser, publish_result
from harness.result import Ratio, ReportTable, Result
from PIL import Image, features
from PIL.JpegImagePlugin import JpegImageFile

from stair_es.config.defaults import DEFAULT_MODEL, THUMBNAIL_PX
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.model.stair_mini.plugin import KIND
from stair_es.sources.image.decode import DecodeLimits, compute_contained_size, decode_image, shrink_to_thumbnail
from stair_es.sources.image.isolated import ISOLATED_FORMATS, IsolatedFormat, open_isolated
from stair_es.sources.image.isolated_worker import load_decoder
from stair_es.sources.io.uris import IMAGE_SUFFIXES
from stair_es.types import ImageSpec, ResizeMode

TILE_PX = 480
"""Longer side of a tile in pixels of a 2x screen."""
SPECS = {
    "squash 288": KIND.card.image_spec,
    "pad 224": ImageSpec(size_px=224),
    "crop 224": ImageSpec(size_px=224, fit="crop"),
    "stretch 384": ImageSpec(size_px=384, fit="stretch"),
}
"""Those of stair-mini, `stair-es train`, CLIP and VDR, and BLIP."""
CHANGES = ("pixels", "pixels if saved again", "token weight", "token weight if saved again")
LARGEST, GOAL_MS = "12", 70
MIN_MEGAPIXELS = 2
"""Smaller JPEGs are decoded at full scale for the input of stair-mini."""
TIMED = 8
"""Pictures of each size whose decoding is timed."""
GRAIN = 3.0
"""Standard deviation of the grain, of 255: then the finest details are as strong as in half of docs/models.md's wallpapers."""
LIMITS = DecodeLimits()


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


@dataclass(frozen=True, kw_only=True)
class Cost:
    """CPU time of decoding a picture of one size for one model, in ms: means over the pictures."""

    megapixels: str
    spec: str
    full_ms: float
    ms: float
    plain_ms: float
    """Without a thumbnail."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What changes if pictures are decoded at a smaller scale, and if they are saved again."""

    megapixels: str
    fit: str
    pictures: int
    means: Sequence[float]
    """The columns of `CHANGES`, over the pictures."""


@dataclass(frozen=True, kw_only=True)
class Isolation:
    """Time to decode a picture of one format, in ms: means over the pictures."""

    format: str
    bytes: float
    apart_ms: float
    inside_ms: float
    """By the same decoder in this process."""


@contextmanager
def decode_at_full_scale() -> Iterator[None]:
    """Switch Pillow's draft mode off."""
    with patch.object(JpegImageFile, "draft", lambda *_: None):
        yield


def list_pictures(folder: Path) -> list[Path]:
    """Return the picture files of a folder."""
    return [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES]


def read_picture(path: Path) -> Image.Image:
    """Return a picture, upright, with transparency on white, and at most twice as large as stair-mini needs."""
    decoded = decode_image(path.read_bytes(), ImageSpec(size_px=2 * KIND.card.image_spec.size_px), LIMITS)
    return Image.fromarray(decoded.pixels_HWC).crop(decoded.box)


def read_jpeg(path: Path, megapixels: str) -> bytes:
    """Return the bytes of a picture file, or of a JPEG with this many pixels made of it."""
    if megapixels == "own":
        return path.read_bytes()
    picture = read_picture(path)
    scale = (float(megapixels) * 1e6 / (picture.width * picture.height)) ** 0.5
    large = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
    tile = np.random.default_rng(1).normal(0, GRAIN, (512, 512, 1)).astype(np.int16)
    grain = np.tile(tile, (large.height // 512 + 1, large.width // 512 + 1, 1))[: large.height, : large.width]
    return save_jpeg(Image.fromarray(np.clip(np.asarray(large) + grain, 0, 255).astype(np.uint8)), 90)


def save_jpeg(picture: Image.Image, quality: int, exif: bytes = b"") -> bytes:
    """Return the picture as a JPEG."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, exif=exif)
    return buffer.getvalue()


def measure_cost(megapixels: str, files: Sequence[Path], rounds: int) -> list[Cost]:
    """Measure the CPU time of decoding pictures of one size."""
    costs, jpegs = [], [read_jpeg(path, megapixels) for path in files]
    for name, spec in SPECS.items():
        ms = [measure_decoding_ms(data, spec, THUMBNAIL_PX, rounds) for data in jpegs]
        plain_ms = [measure_decoding_ms(data, spec, 0, rounds) for data in jpegs]
        with decode_at_full_scale():
            full_ms = [measure_decoding_ms(data, spec, THUMBNAIL_PX, rounds) for data in jpegs]
        full, scaled, plain = (statistics.mean(each) for each in (full_ms, ms, plain_ms))
        costs.append(Cost(megapixels=megapixels, spec=name, full_ms=full, ms=scaled, plain_ms=plain))
    return costs


def measure_decoding_ms(data: bytes, spec: ImageSpec, thumbnail_px: int, rounds: int) -> float:
    """Return the CPU time of decoding an image in the best round, in ms."""
    times_s = []
    for _ in range(rounds):
        start_s = time.process_time()
        decode_image(data, spec, LIMITS, thumbnail_px)
        times_s.append(time.process_time() - start_s)
    return 1e3 * min(times_s)


def cut_parts(data: bytes, parts: int) -> Iterator[bytes]:
    """Yield a JPEG, and parts of it with half to nine tenths of its sides, saved at quality 92."""
    yield data
    rng = np.random.default_rng(2)
    with Image.open(io.BytesIO(data)) as image:
        for across, down, left, upper in rng.uniform(size=(parts - 1, 4)):
            width, height = round(image.width * (0.5 + 0.4 * across)), round(image.height * (0.5 + 0.4 * down))
            x, y = round((image.width - width) * left), round((image.height - height) * upper)
            yield save_jpeg(image.crop((x, y, x + width, y + height)), 92, image.info.get("exif", b""))


def measure_changes(megapixels: str, files: Sequence[Path], parts: int, encoder: Encoder) -> list[Change]:
    """Measure what decoding at a smaller scale, and saving again at quality 85, do to pixels and tokens."""
    rows: dict[ResizeMode, list[Sequence[float]]] = {fit: [] for fit in get_args(ResizeMode)}
    for data in (part for path in files for part in cut_parts(read_jpeg(path, megapixels), parts)):
        with Image.open(io.BytesIO(data)) as image:
            saved = save_jpeg(image, 85, exif=image.info.get("exif", b""))
        for fit, values in rows.items():
            if row := compare_pixels(data, saved, replace(KIND.card.image_spec, fit=fit), encoder):
                values.append(row)
    return [
        Change(megapixels=megapixels, fit=fit, pictures=len(values), means=tuple(map(statistics.mean, zip(*values, strict=True))))
        for fit, values in rows.items()
        if values
    ]


def compare_pixels(data: bytes, saved: bytes, spec: ImageSpec, encoder: Encoder) -> Sequence[float]:
    """Return the columns of `CHANGES` for one picture; none if it isn't decoded at a smaller scale."""
    scaled = decode_image(data, spec, LIMITS).pixels_HWC
    with decode_at_full_scale():
        full, again = (decode_image(each, spec, LIMITS).pixels_HWC for each in (data, saved))
    if (scaled == full).all():
        return ()
    wanted, *vectors = encoder.encode_images(np.stack([full, scaled, again]))
    pixels = (float(np.abs(each.astype(float) - full).mean()) for each in (scaled, again))
    return [*pixels, *(compute_change(vector.to_dict(), wanted.to_dict()) for vector in vectors)]


def compute_change(weights: Mapping[str, float], wanted: Mapping[str, float]) -> float:
    """Return the share of token weight in which two vectors differ: 0 for equal ones, 1 if they share no token."""
    pairs = [(weights.get(token, 0.0), wanted.get(token, 0.0)) for token in {*weights, *wanted}]
    return 1 - sum(map(min, pairs)) / sum(map(max, pairs)) if pairs else 0.0


def measure_thumbnails(files: Sequence[Path], sides_px: Sequence[int], rounds: int) -> list[Cell]:
    """Measure all codecs at all sizes."""
    pictures = [read_picture(path) for path in files]
    codecs = [codec for codec in CODECS if codec.format != "AVIF" or features.check("avif")]
    return [measure_codec(codec, pictures, side_px, rounds) for side_px in sides_px for codec in codecs]


def shrink_to_tile(picture: Image.Image) -> Image.Image:
    """Return the picture as a tile of a 2x screen shows it."""
    if max(picture.size) <= TILE_PX:
        return picture
    return picture.resize(compute_contained_size(*picture.size, TILE_PX, "pad"), Image.Resampling.BICUBIC, reducing_gap=3.0)


def compute_psnr(shown: Image.Image, original: Image.Image) -> float:
    """Compute the PSNR of a thumbnail, enlarged as a browser does, in dB."""
    large = shown.convert("RGB").resize(original.size, Image.Resampling.BILINEAR)
    error = float(np.mean((np.asarray(large, np.float64) - np.asarray(original, np.float64)) ** 2))
    return float(10 * np.log10(255**2 / max(error, 1e-3)))


def measure_codec(codec: Codec, pictures: list[Image.Image], side_px: int, rounds: int) -> Cell:
    """Measure one codec at one size."""
    sizes, times_ms, looks = [], [], []
    for picture in pictures:
        small, best_ms, data = shrink_to_thumbnail(picture, side_px), float("inf"), b""
        for _ in range(rounds):
            buffer = io.BytesIO()
            start = time.perf_counter()
            small.save(buffer, codec.format, **codec.options)
            best_ms, data = min(best_ms, 1e3 * (time.perf_counter() - start)), buffer.getvalue()
        sizes.append(len(data))
        times_ms.append(best_ms)
        with Image.open(io.BytesIO(data)) as shown:
            looks.append(compute_psnr(shown, shrink_to_tile(picture)))
    return Cell(
        codec=codec.name,
        side_px=side_px,
        bytes=statistics.mean(sizes),
        ms=statistics.mean(times_ms),
        psnr_db=statistics.mean(looks),
    )


def measure_isolation(files: Sequence[Path], rounds: int) -> Iterator[Isolation]:
    """Measure what it costs to decode in a process apart."""
    pictures = [Image.open(io.BytesIO(read_jpeg(path, LARGEST))) for path in files]
    for kind in ISOLATED_FORMATS:
        load_decoder(kind.module, kind.name)  # which registers the encoder, too
        saved = [encode_picture(picture, kind.name) for picture in pictures]
        both: list[Callable[[bytes], object]] = [
            partial(open_isolated, kind=kind, max_pixels=LIMITS.max_pixels),
            partial(decode_inside, kind),
        ]
        apart_ms, inside_ms = ([measure_wall_ms(decode, data, rounds) for data in saved] for decode in both)
        yield Isolation(
            format=kind.name,
            bytes=statistics.mean(map(len, saved)),
            apart_ms=statistics.mean(apart_ms),
            inside_ms=statistics.mean(inside_ms),
        )


def decode_inside(kind: IsolatedFormat, data: bytes) -> bytes:
    """Decode a picture in this process."""
    decoded: bytes = load_decoder(kind.module, kind.name)(io.BytesIO(data), "").tobytes()
    return decoded


def encode_picture(picture: Image.Image, format_: str) -> bytes:
    """Return the picture as a file of a format, as small as a phone makes it."""
    buffer = io.BytesIO()
    options = {"quality_mode": "rates", "quality_layers": [16]} if format_ == "JPEG2000" else {"quality": 60}
    picture.save(buffer, format_, **options)
    return buffer.getvalue()


def measure_wall_ms(decode: Callable[[bytes], object], data: bytes, rounds: int) -> float:
    """Return the time of the best round on the clock, in ms, after one that isn't counted."""
    decode(data)
    times_s = []
    for _ in range(rounds):
        start_s = time.perf_counter()
        decode(data)
        times_s.append(time.perf_counter() - start_s)
    return 1e3 * min(times_s)


def build_isolation_table(costs: Sequence[Isolation]) -> ReportTable:
    """Return the table of formats."""
    head = ("format", "kB", "in a process apart, ms", "in this process, ms", "ratio")
    rows = (
        (c.format, f"{c.bytes / 1e3:,.0f}", f"{c.apart_ms:.0f}", f"{c.inside_ms:.0f}", f"{c.apart_ms / c.inside_ms:.2f}")
        for c in costs
    )
    return ReportTable(head=head, rows=tuple(rows), heading="Formats that are decoded apart")


def build_cost_table(costs: Sequence[Cost]) -> ReportTable:
    """Return the table of CPU times."""
    head = ("megapixels", "model's input", "full scale, ms", "ms", "without thumbnail, ms", "ratio to full scale")
    rows = (
        (c.megapixels, c.spec, f"{c.full_ms:.1f}", f"{c.ms:.1f}", f"{c.plain_ms:.1f}", f"{c.ms / c.full_ms:.2f}") for c in costs
    )
    return ReportTable(head=head, rows=tuple(rows), heading="CPU time of decoding")


def build_change_table(changes: Sequence[Change]) -> ReportTable:
    """Return the table of changed pixels and tokens."""
    rows = ((c.megapixels, c.fit, str(c.pictures), *(f"{mean:.3f}" for mean in c.means)) for c in changes)
    heading = "Changes of pixels and token weights, compared with the full scale"
    return ReportTable(head=("megapixels", "fit", "pictures", *CHANGES), rows=tuple(rows), heading=heading)


def build_thumbnail_table(cells: Sequence[Cell]) -> ReportTable:
    """Return the table of thumbnails."""
    head = ("px", "codec", "bytes", "in the document (base64)", "encode, ms", "PSNR on a 2x screen, dB")
    rows = (
        (str(c.side_px), c.codec, f"{c.bytes:,.0f}", f"{c.bytes * 4 / 3:,.0f}", f"{c.ms:.2f}", f"{c.psnr_db:.1f}") for c in cells
    )
    return ReportTable(head=head, rows=tuple(rows), heading="Thumbnails")


def build_ratios(costs: Sequence[Cost], changes: Sequence[Change]) -> Iterator[Ratio]:
    """Yield the goals: milliseconds for the largest photographs, and less change than by saving again."""
    for cost in costs:
        if cost.megapixels == LARGEST:
            yield Ratio(what=f"ms for {LARGEST} megapixels, {cost.spec}", against="", value=cost.ms, goal=GOAL_MS, at_most=True)
    for change in changes:
        pixels, saved_pixels, weight, saved_weight = change.means
        for what, value, saved in (("pixels", pixels, saved_pixels), ("token weights", weight, saved_weight)):
            yield Ratio(
                what=f"changed {what}, {change.megapixels} megapixels, {change.fit}",
                against="saving again at quality 85",
                value=value / saved,
                at_most=True,
            )


def main() -> None:
    """Run the benchmark, and print its result."""
    pillow_heif.register_heif_opener()
    parser = build_parser(__doc__)
    parser.add_argument("--folder", type=Path, default=PHOTOS)
    parser.add_argument("--only", choices=("cost", "changes", "thumbnails", "formats"), help="one of the four parts")
    parser.add_argument("--megapixels", default=f"0.3,1,2,{LARGEST}", metavar="N,...|own", help="sizes (default: %(default)s)")
    parser.add_argument("--images", type=int, help="images whose changes are measured (default: all)")
    parser.add_argument("--parts", type=int, default=1, help="the picture and this many less one of its parts (default: 1)")
    parser.add_argument("--sides", default="128,256,288,320", metavar="PX,...", help="of thumbnails (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    files, sizes = list_pictures(args.folder), args.megapixels.split(",")
    if not files:
        parser.error(f"no pictures in {args.folder}")
    costs: list[Cost] = []
    changes: list[Change] = []
    cells: list[Cell] = []
    formats: list[Isolation] = []
    if args.only in (None, "cost"):
        costs = [cost for size in sizes for cost in measure_cost(size, files[:: max(1, len(files) // TIMED)], args.rounds)]
    if args.only in (None, "changes"):
        encoder = registry.load_encoder(ModelSpec(name=DEFAULT_MODEL))
        large = [size for size in sizes if size == "own" or float(size) >= MIN_MEGAPIXELS]
        changes = [change for size in large for change in measure_changes(size, files[: args.images], args.parts, encoder)]
    if args.only in (None, "thumbnails"):
        cells = measure_thumbnails(files, [int(side) for side in args.sides.split(",")], args.rounds)
    if args.only in (None, "formats"):
        formats = list(measure_isolation(files[:: max(1, len(files) // TIMED)][:2], args.rounds))
    tables = (build_cost_table(costs), build_change_table(changes), build_thumbnail_table(cells), build_isolation_table(formats))
    publish_result(
        Result(
            about=f"{len(files)} pictures of {args.folder.name}, Pillow {PIL.__version__}",
            tables=tuple(table for table in tables if table.rows),
            ratios=tuple(build_ratios(costs, changes)),
            figures={"costs": costs, "changes": changes, "cells": cells, "formats": formats},
        ),
        args.json,
    )


if __name__ == "__main__":
    main()
