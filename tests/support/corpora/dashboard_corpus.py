"""The sample photos as a corpus that has something to see on every panel.

Three sources, labels, days on which and two places where they were taken, one image without any word, and one of pieces of words.

    python tests/support/corpora/dashboard_corpus.py URL INDEX
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from typer.testing import CliRunner

from stair_es.cli.main import app
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from support.corpora.camera_photos import build_camera_exif
from support.corpora.ingest_sources import PHOTOS

PLACES = {
    "alpine-path",
    "chinese-pavilion",
    "city-gate-at-night",
    "domed-cathedral",
    "fairytale-castle",
    "harbour-boats",
    "stone-arch-bridge",
    "windmills-on-a-canal",
}
THINGS = {
    "airplane-from-above",
    "astronaut",
    "dandelions",
    "drum-kit-and-guitar",
    "espresso",
    "frying-pan",
    "half-a-fig",
    "orange-dahlia",
    "paint-brushes",
    "photographer",
    "rocket-on-the-pad",
    "wall-clock",
}
KINDS = ("animals", "places", "things")
WORDLESS = "nothing-to-say"
PIECES = {"##sca": 0.5, "##pe": 0.25, "w": 0.125, "7": 0.0625}
LOCATIONS = {"animals": (46.95, 7.44), "places": (38.71, -9.14)}
"""Kind -> where its photos were taken; things were nowhere."""
_DATE_TIME, _GPS = 306, 0x8825
_UNDATED = 7
"""Every photo with this interval has no date."""


def get_kind(photo: Path) -> str:
    """Return what a photo shows, one of `KINDS`."""
    return "places" if photo.stem in PLACES else "things" if photo.stem in THINGS else "animals"


def copy_dated_photos(folder: Path, every: int = 1) -> Iterator[Path]:
    """Copy each `every`-th photo into three folders, most with a date."""
    for number, photo in enumerate(sorted(PHOTOS.glob("*.jpg"))[::every]):
        target = folder / get_kind(photo) / photo.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(photo) as image:
            exif = image.getexif()
            if number % _UNDATED:
                exif[_DATE_TIME] = f"2024:{1 + number % 11:02d}:{1 + number % 27:02d} 12:00:00"
            if location := LOCATIONS.get(get_kind(photo)):
                exif.get_ifd(_GPS).update(build_camera_exif(location).get_ifd(_GPS))
            image.save(target, quality=92, exif=exif)
    yield from (folder / kind for kind in KINDS)


def ingest_corpus(
    url: str, index: str, folder: Path, *, token_index: bool = True, vector: str = "rank_features", every: int = 1
) -> None:
    """Ingest each `every`-th photo of the corpus behind the alias `index`, with a companion index or without."""
    _ingest(url, index, *map(str, copy_dated_photos(folder, every)), "--vector", vector)
    with Cluster(Connection(url=url)) as cluster:
        hits = cluster.client.search(index=index, body={"size": 100})["hits"]["hits"]
        cluster.client.indices.put_mapping(index=index, body={"properties": {"top_labels": {"type": "keyword"}}})
        for hit in hits:
            labels = ["photo", get_kind(Path(hit["_source"]["name"]))]
            cluster.client.update(index=hit["_index"], id=hit["_id"], body={"doc": {"top_labels": labels}})
        first = hits[0]["_source"]
        copied = ("model", "ingested_at", "taken_at", "colors", "thumbnail", "fingerprint")
        copied_values = {name: first[name] for name in copied if name in first}
        for id_, place, tokens in ((WORDLESS, "file:///elsewhere", {}), ("pieces", "s3://elsewhere", PIECES)):
            written = {
                **copied_values,
                "uri": f"{place}/{id_}.png",
                "source": place,
                "tokens": tokens,
                "top_tokens": list(tokens),
                "sha256": "0" * 64,
            }
            cluster.client.index(index=index, id=id_, body=written, refresh=True)
    if token_index:
        _ingest(url, index, str(folder / "things"), "--vector", vector, "--token-index")


def _ingest(url: str, index: str, *more: str) -> None:
    result = CliRunner().invoke(app, ["ingest", *more, "--index", index, "--url", url, "--enrich", "exif:location=2"])
    if result.exit_code != 0:
        raise RuntimeError(f"{result.output}\n{result.exception!r}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        ingest_corpus(sys.argv[1], sys.argv[2], Path(made))
