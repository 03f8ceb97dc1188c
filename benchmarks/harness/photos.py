"""The bundled photos: files, captions, thumbnails, and a folder with any number of images."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stair_es.config.defaults import THUMBNAIL_PX
from stair_es.model.stair_mini.plugin import KIND
from stair_es.sources.image.decode import DecodeLimits, decode_image

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


def list_photos(folder: Path = PHOTOS) -> list[Path]:
    """Return the files of the bundled photos, or of another folder."""
    return sorted(folder.glob("*.jpg"))


def read_captions() -> dict[str, str]:
    """Return the caption of each bundled photo by the name of its file."""
    lines = (PHOTOS / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["file"]: row["caption"] for row in map(json.loads, lines)}


def make_thumbnails() -> list[str | None]:
    """Return the thumbnails of the bundled photos, as ingest makes them."""
    spec, limits = KIND.card.image_spec, DecodeLimits()
    return [decode_image(path.read_bytes(), spec, limits, THUMBNAIL_PX).thumbnail for path in list_photos()]


@contextmanager
def make_photo_folder(images: int) -> Iterator[Path]:
    """Yield a folder of `images` different files: repeated bundled photos, each with additional bytes at its end."""
    photos = list_photos()
    with tempfile.TemporaryDirectory(prefix="stair-es-bench-") as folder:
        for i in range(images):
            photo = photos[i % len(photos)]
            (Path(folder) / f"{i:06}-{photo.name}").write_bytes(photo.read_bytes() + i.to_bytes(8, "big"))
        yield Path(folder)
