"""Pictures with texts: the photographs of a Debian package, and drawings of small sets."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from small_sets.fetch import PACKAGES, unpack_package

from stair_es.model.stair_mini.plugin import KIND
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import Pixels

PACKAGE = PACKAGES["tuxpaint"]
LIST = Path(__file__).parents[1] / "data" / "tuxpaint_photos.txt"
SETS = ("test_drawings", "test_clipart", "test_style", "test_concepts")
PHOTOS = "photographs"


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Pictures, each with a text."""

    name: str
    pixels_BHWC: Pixels
    texts: tuple[str, ...]
    """Of each picture."""
    concepts: tuple[str, ...]
    """Concept of each picture. Pictures with the same concept are right for each other's texts."""

    @property
    def queries(self) -> dict[str, str]:
        """Each distinct text, and its concept."""
        return dict(zip(self.texts, self.concepts, strict=True))


def read_photos(stamps: Path) -> Gallery:
    """Read the listed photographs and their English descriptions, both from the package.

    Raises:
        SystemExit: If a listed file isn't in the folder.
    """
    paths = [stamps / line for line in LIST.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    missing = [path for path in paths if not (path.is_file() and path.with_suffix(".txt").is_file())]
    if missing:
        raise SystemExit(f"{len(missing)} of {len(paths)} photographs are missing in {stamps}, such as {missing[0]}")
    texts = tuple(path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()[0].strip() for path in paths)
    return Gallery(name=PHOTOS, pixels_BHWC=read_pixels(paths), texts=texts, concepts=texts)


def read_set(sets: Path, name: str) -> Gallery:
    """Read one of the small sets.

    Raises:
        SystemExit: If the set is missing.
    """
    path = sets / f"{name}.jsonl"
    if not path.is_file():
        raise SystemExit(f"{path} is missing: run benchmarks/small_sets/build.py --out {sets}")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return Gallery(
        name=name,
        pixels_BHWC=read_pixels([sets / row["image"] for row in rows]),
        texts=tuple(row["captions"][0] for row in rows),
        concepts=tuple(row["concept"] for row in rows),
    )


def read_pixels(paths: Sequence[Path]) -> Pixels:
    """Read images as the encoder receives them."""
    return np.stack([decode_image(path.read_bytes(), KIND.card.image_spec, DecodeLimits()).pixels_HWC for path in paths])


def add_gallery_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the galleries."""
    parser.add_argument("--tuxpaint", type=Path, help=f"folder of the unpacked Debian package {PACKAGE.name}")
    parser.add_argument("--sets", type=Path, help="output of benchmarks/small_sets/build.py: also measure its drawings")


def read_galleries(args: argparse.Namespace) -> list[Gallery]:
    """Return the photographs, and the drawings if sets are named."""
    drawings = [read_set(args.sets, name) for name in SETS] if args.sets else []
    with tempfile.TemporaryDirectory() as temporary:
        stamps = args.tuxpaint or unpack_package(PACKAGE, Path(temporary), Path(temporary))
        return [read_photos(stamps), *drawings]
