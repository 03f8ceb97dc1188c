"""What the benchmarks share: their options, the machine in words, corpora of the bundled photos, an index that goes away."""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from result import Result

from stair_es import __version__
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.config.defaults import DEFAULT_MODEL, ENV_URL, THUMBNAIL_PX
from stair_es.embedded_node import ensure_running
from stair_es.model.stair_mini.plugin import KIND
from stair_es.sources.image.decode import DecodeLimits, decode_image

PHOTOS = Path(__file__).parents[1] / "examples" / "photos"


def options(doc: str | None) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    return parser


def add_model(parser: argparse.ArgumentParser) -> None:
    """`--model`."""
    parser.add_argument("--model", default=DEFAULT_MODEL, help="(default: %(default)s)")


def add_url(parser: argparse.ArgumentParser) -> None:
    """`--url`."""
    parser.add_argument("--url", default=os.environ.get(ENV_URL), help="a cluster of yours; else the embedded node")


def publish(result: Result, file: Path | None) -> None:
    """Print it, and write it where `--json` says."""
    print(f"{machine()}; {result.markdown()}", flush=True)
    save(result, file)


def save(result: Result, file: Path | None) -> None:
    """Write it, if there is where."""
    if file:
        values = {"machine": machine(), **result.to_dict()}
        file.write_text(json.dumps(values, indent=1, default=_plain), encoding="utf-8")


def _plain(value: object) -> object:
    """Arrays of hits as their mean, numbers of numpy as numbers, paths as text."""
    if isinstance(value, np.ndarray):
        return float(value.mean())
    return value.item() if isinstance(value, np.generic) else str(value)


def interval(ours: Sequence[NDArray[np.bool_]], theirs: Sequence[NDArray[np.bool_]], rounds: int = 10_000) -> tuple[float, ...]:
    """The difference of two recalls in points, and its 95 % interval: a paired bootstrap over queries, seeds averaged.

    Args:
        ours: For each seed the hits of each query.
        theirs: The same of the other.
        rounds: Resamplings.
    """
    apart = np.mean(ours, axis=0, dtype=float) - np.mean(theirs, axis=0, dtype=float)
    draws = np.random.default_rng(0).integers(len(apart), size=(rounds, len(apart)))
    low, high = np.quantile(apart[draws].mean(axis=1), (0.025, 0.975))
    return 100 * float(apart.mean()), 100 * float(low), 100 * float(high)


def machine() -> str:
    """Date, cores, platform and version: a number without them means nothing."""
    today = datetime.now(timezone.utc).date().isoformat()
    return f"{today}, {os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}, stair-es {__version__}"


def thumbnails() -> list[str | None]:
    """Of the bundled photos, as ingest makes them."""
    paths = sorted(PHOTOS.glob("*.jpg"))
    return [decode_image(path.read_bytes(), KIND.card.image_spec, DecodeLimits(), THUMBNAIL_PX).thumbnail for path in paths]


@contextmanager
def corpus(images: int) -> Iterator[Path]:
    """A folder of `images` different files: the bundled photos over and over, each with some bytes more at its end."""
    photos = sorted(PHOTOS.glob("*.jpg"))
    with tempfile.TemporaryDirectory(prefix="stair-es-bench-") as folder:
        for i in range(images):
            photo = photos[i % len(photos)]
            (Path(folder) / f"{i:06}-{photo.name}").write_bytes(photo.read_bytes() + i.to_bytes(8, "big"))
        yield Path(folder)


@contextmanager
def node(url: str | None) -> Iterator[tuple[Cluster, str]]:
    """A cluster, and a name: all indices that start with it are deleted at the end."""
    connection = Connection(url=url or ensure_running(), timeout_s=120)
    name = f"bench-{uuid4().hex[:10]}"
    with Cluster(connection) as cluster:
        try:
            yield cluster, name
        finally:
            found = cluster.client.indices.get(index=f"{name}*", params={"allow_no_indices": "true"})
            for index in found:
                cluster.client.indices.delete(index=index)
