"""The bundled photos: as thumbnails, and as a folder of as many images as are needed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stair_es.config.defaults import THUMBNAIL_PX
from stair_es.model.stair_mini.plugin import KIND
from stair_es.sources.image.decode import DecodeLimits, decode_image

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


def make_thumbnails() -> list[str | None]:
    """Return the thumbnails of the bundled photos, as ingest makes them."""
    paths = sorted(PHOTOS.glob("*.jpg"))
    return [decode_image(path.read_bytes(), KIND.card.image_spec, DecodeLimits(), THUMBNAIL_PX).thumbnail for path in paths]


@contextmanager
def make_photo_folder(images: int) -> Iterator[Path]:
    """Yield a folder of `images` different files: the bundled photos over and over, each with some bytes more at its end."""
    photos = sorted(PHOTOS.glob("*.jpg"))
    with tempfile.TemporaryDirectory(prefix="stair-es-bench-") as folder:
        for i in range(images):
            photo = photos[i % len(photos)]
            (Path(folder) / f"{i:06}-{photo.name}").write_bytes(photo.read_bytes() + i.to_bytes(8, "big"))
        yield Path(folder)
