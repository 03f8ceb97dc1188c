"""Read the labeled photographs that the gate and the scenes of stair-mini are trained with (`scripts/mini/photos.tsv`)."""

from __future__ import annotations

import csv
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mini_words import FOLDER
from PIL import Image, ImageOps

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from small_sets.fetch import Package, unpack_package

LABELS = FOLDER / "photos.tsv"
NOT_A_PHOTO = "drawing"
"""Label of drawings, renderings and abstract pictures, on which no scene is right."""
SOURCES = FOLDER / "photo_sources.tsv"
_LARGEST_PX = 800


@dataclass(frozen=True)
class LabeledPhoto:
    """A picture of a source and the scenes that a person sees in it."""

    source: str
    path: str
    words: frozenset[str]

    @property
    def is_photo(self) -> bool:
        """Whether it is a photograph."""
        return NOT_A_PHOTO not in self.words


def read_labels() -> list[LabeledPhoto]:
    """Return the labeled pictures, in the order of the file."""
    return [LabeledPhoto(row["source"], row["path"], frozenset(row["words"].split())) for row in _read_rows(LABELS)]


def read_sources() -> dict[str, Package]:
    """Return the repositories and packages of the labeled pictures, by name."""
    paths = defaultdict[str, list[str]](list)
    for photo in read_labels():
        paths[photo.source].append(photo.path)
    return {
        row["source"]: Package(
            name=row["source"],
            version=row["version"],
            digest=row["digest"],
            license=row["license"],
            credit=row["credit"],
            parts=tuple(paths[row["source"]]),
        )
        for row in _read_rows(SOURCES)
    }


def _read_rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened, dialect="excel-tab"))


def read_images(photos: Sequence[LabeledPhoto], downloads: Path) -> list[Image.Image]:
    """Return the images of labeled pictures, fetching their sources unless they are in `downloads`.

    Raises:
        SystemExit: If a source can't be fetched.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: unpack_package(each, downloads, Path(temporary)) for name, each in read_sources().items()}
        return [_read_image(folders[photo.source] / photo.path) for photo in photos]


def _read_image(file: Path) -> Image.Image:
    with Image.open(file) as opened:
        opened.draft("RGB", (_LARGEST_PX, _LARGEST_PX))
        image = ImageOps.exif_transpose(opened).convert("RGB")
    image.thumbnail((_LARGEST_PX, _LARGEST_PX))
    return image
