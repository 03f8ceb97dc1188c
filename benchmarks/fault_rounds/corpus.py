"""The input of the ingests: small pictures, broken files, and a model that costs nothing, so that writing dominates a round."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from harness.photos import PHOTOS, list_photos
from PIL import Image
from support.plugin_metadata import write_entry_points

MODEL, MODEL_ID = "colors", "colors-1"
OTHER_MODEL = "other-colors"
_PLUGIN = PHOTOS.parent / "plugin" / "src"
_PX = 96
_BROKEN = 40


@dataclass(frozen=True)
class Corpus:
    """Files in a folder."""

    images: Path
    """A folder of different images."""
    broken: Path
    """A folder of broken files with names of images."""
    packages: Path
    """A folder for PYTHONPATH: the metadata of the example plugin, whose model is `MODEL`."""

    @property
    def uris(self) -> set[str]:
        """The URIs of the images."""
        return {path.as_uri() for path in self.images.iterdir()}

    @property
    def subset(self) -> str:
        """A glob that matches at least a tenth of the images."""
        return f"{self.images}/*0.jpg"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a command that knows `MODEL`, without the user's settings."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith("STAIR_ES_")}
        path = (str(self.packages), str(_PLUGIN), mine.get("PYTHONPATH"))
        return {**mine, "STAIR_ES_HOME": str(self.packages.parent / "home"), "PYTHONPATH": os.pathsep.join(filter(None, path))}


def make_corpus(folder: Path, images: int) -> Corpus:
    """Write a corpus, and register both models in this process."""
    made = Corpus(folder / "images", folder / "broken", folder / "packages")
    for each in (made.images, made.broken, made.packages):
        each.mkdir()
    small = [_shrink(photo) for photo in list_photos()]
    for i in range(images):
        (made.images / f"{i:06}.jpg").write_bytes(small[i % len(small)] + i.to_bytes(8, "big"))
    for i in range(_BROKEN):
        (made.broken / f"{i:06}.jpg").write_bytes(b"not an image")
    own = folder / "own-packages"
    write_entry_points(made.packages, "stair_es_example_plugin", f"{MODEL} = stair_es_example.colors:KIND")
    write_entry_points(own, "stair_es_faults", f"{OTHER_MODEL} = fault_rounds.other_colors:KIND")
    sys.path += [str(made.packages), str(_PLUGIN), str(own)]
    return made


def _shrink(photo: Path) -> bytes:
    into = BytesIO()
    with Image.open(photo) as image:
        image.thumbnail((_PX, _PX))
        image.save(into, "JPEG")
    return into.getvalue()
