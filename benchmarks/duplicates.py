"""Count the copies and the different pictures that are folded, by the thresholds of `search.ranking`.

    python benchmarks/duplicates.py                              # the bundled photos
    python benchmarks/duplicates.py --images DIR --limit 100     # 100 random pictures of a folder

Copies are made with Pillow: resized, recompressed, brightened, slightly cropped. Frames of a burst are cut from one picture, as
if the camera moved, zoomed or turned in between. They count as different pictures.
"""

from __future__ import annotations

import io
import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.program import build_parser, publish_result
from harness.result import ReportTable, Result
from PIL import Image, ImageEnhance

from stair_es.model.base import ModelSpec
from stair_es.model.stair_mini.encoder import StairMiniEncoder
from stair_es.search.ranking import MAX_ASPECT_DIFFERENCE, MAX_BITS, MIN_COSINE, share_main_colors
from stair_es.sources.image.decode import DecodeLimits, decode_image

PHOTOS = Path(__file__).parents[1] / "examples" / "photos"
BITS = (0, 2, 3, 4, 5, 6, 8, 10)
COSINES = (0.0, 0.8, 0.9, 0.95)
Change = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True)
class Look:
    """The features of a picture that the rule uses."""

    hash: int | None
    aspect: float
    tokens: Mapping[str, float]
    colors: tuple[str, ...]


def cut(left: float = 0.0, top: float = 0.0, right: float = 0.0, bottom: float = 0.0) -> Change:
    """Return a function that crops shares of a picture's width and height."""
    return lambda image: image.crop(
        (
            round(left * image.width),
            round(top * image.height),
            round((1 - right) * image.width),
            round((1 - bottom) * image.height),
        )
    )


def shrink(factor: int) -> Change:
    """Return a function that makes a picture smaller."""
    return lambda image: image.resize((max(1, image.width // factor), max(1, image.height // factor)), Image.Resampling.LANCZOS)


COPIES: Mapping[str, tuple[Change, str, int]] = {
    "half the size": (shrink(2), "JPEG", 90),
    "a quarter of the size": (shrink(4), "JPEG", 80),
    "JPEG of quality 30": (lambda image: image, "JPEG", 30),
    "WebP of quality 50": (lambda image: image, "WEBP", 50),
    "15 % brighter": (lambda image: ImageEnhance.Brightness(image).enhance(1.15), "JPEG", 90),
    "1 % cut off each side": (cut(0.01, 0.01, 0.01, 0.01), "JPEG", 90),
    "2 % cut off each side": (cut(0.02, 0.02, 0.02, 0.02), "JPEG", 90),
    "5 % cut off the left": (cut(left=0.05), "JPEG", 90),
}
BURSTS: Mapping[str, tuple[Change, Change]] = {
    "camera moved by 5 %": (cut(right=0.05), cut(left=0.05)),
    "camera moved by 10 %": (cut(right=0.1), cut(left=0.1)),
    "zoomed by 15 %": (lambda image: image, cut(0.065, 0.065, 0.065, 0.065)),
    "turned by 3 degrees": (
        cut(0.04, 0.04, 0.04, 0.04),
        lambda image: cut(0.04, 0.04, 0.04, 0.04)(image.rotate(3, Image.Resampling.BICUBIC)),
    ),
}


def look_at(encoder: StairMiniEncoder, image: Image.Image, image_format: str = "JPEG", quality: int = 92) -> Look:
    """Encode a picture as a file, and extract its features as ingest does."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, quality=quality)
    decoded = decode_image(buffer.getvalue(), encoder.image_spec, DecodeLimits())
    [vector] = encoder.encode_images(decoded.pixels_HWC[None])
    bits = None if decoded.perceptual_hash is None else int(decoded.perceptual_hash, 16)
    return Look(bits, decoded.width / decoded.height, vector.to_dict(), decoded.colors)


def compare_looks(look: Look, other: Look) -> tuple[int, float]:
    """Return the number of differing bits and the cosine; other shapes or colors, and plain colors, count as all bits."""
    if look.hash is None or other.hash is None or abs(math.log(look.aspect / other.aspect)) > MAX_ASPECT_DIFFERENCE:
        return 64, 0.0
    if not share_main_colors(look.colors, other.colors):
        return 64, 0.0
    norm = math.hypot(*look.tokens.values()) * math.hypot(*other.tokens.values())
    cosine = sum(weight * other.tokens.get(token, 0.0) for token, weight in look.tokens.items()) / norm if norm else 0.0
    return (look.hash ^ other.hash).bit_count(), cosine


def count_folded(pairs: Sequence[tuple[int, float]], bits: int, cosine: float) -> int:
    """Count the pairs within the thresholds."""
    return sum(pair[0] <= bits and pair[1] >= cosine for pair in pairs)


def read_pictures(folder: Path, limit: int | None) -> list[Image.Image]:
    """Read the pictures of a folder, with transparency on white."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".png", ".webp"))
    if limit is not None and limit < len(files):
        files = random.Random(20).sample(files, limit)
    pictures = []
    for file in files:
        with Image.open(file) as opened:
            image = opened.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        pictures.append(white.convert("RGB"))
    return pictures


def measure_folder(encoder: StairMiniEncoder, folder: Path, limit: int | None) -> tuple[ReportTable, ReportTable]:
    """Return the tables of the thresholds, and of the kinds of copies at the chosen thresholds."""
    pictures = read_pictures(folder, limit)
    looks = [look_at(encoder, image) for image in pictures]
    different = list(itertools.starmap(compare_looks, itertools.combinations(looks, 2)))
    copies = {
        name: [
            compare_looks(look, look_at(encoder, change(image), image_format, quality))
            for look, image in zip(looks, pictures, strict=True)
        ]
        for name, (change, image_format, quality) in COPIES.items()
    }
    bursts = {
        name: [compare_looks(look_at(encoder, first(image)), look_at(encoder, second(image))) for image in pictures]
        for name, (first, second) in BURSTS.items()
    }
    all_copies, all_bursts = (list(itertools.chain(*kinds.values())) for kinds in (copies, bursts))
    rows = []
    for bits, cosine in itertools.product(BITS, COSINES):
        right, wrong = count_folded(all_copies, bits, cosine), count_folded(different, bits, cosine)
        burst = count_folded(all_bursts, bits, cosine)
        mark = " (chosen)" if (bits, cosine) == (MAX_BITS, MIN_COSINE) else ""
        recall, share = f"{100 * right / len(all_copies):.1f} %", f"{100 * burst / len(all_bursts):.1f} %"
        rows.append((f"{bits}{mark}", f"{cosine:g}", recall, f"{wrong}", f"{100 * right / max(1, right + wrong):.1f} %", share))
    kinds = [
        (name, f"{count_folded(pairs, MAX_BITS, MIN_COSINE)} of {len(pairs)}") for name, pairs in {**copies, **bursts}.items()
    ]
    heading = f"{folder.name}: {len(pictures)} pictures, {len(different):,} pairs of them, {len(all_copies)} copies"
    head = (
        "bits at most",
        "cosine at least",
        "recall of copies",
        "different pairs folded",
        "precision",
        "frames of bursts folded",
    )
    return (
        ReportTable(heading=heading, head=head, rows=tuple(rows)),
        ReportTable(heading=f"{folder.name}, thresholds as chosen", head=("kind", "folded"), rows=tuple(kinds)),
    )


def main() -> None:
    """Print two tables for each folder."""
    parser = build_parser(__doc__)
    parser.add_argument(
        "--images", type=Path, action="append", metavar="DIR", help="a folder of pictures (default: the bundled photos)"
    )
    parser.add_argument("--limit", type=int, help="number of random pictures of each folder")
    args = parser.parse_args()
    encoder = StairMiniEncoder(ModelSpec(name="stair-mini"))
    tables = [table for folder in args.images or [PHOTOS] for table in measure_folder(encoder, folder, args.limit)]
    publish_result(Result(about="tokens by stair-mini, hashes by ImageHash", tables=tuple(tables)), args.json)


if __name__ == "__main__":
    main()
