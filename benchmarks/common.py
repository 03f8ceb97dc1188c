"""What the benchmarks share: the machine in words, corpora made of the bundled photos, an index that goes away."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from stair_es import __version__
from stair_es.cluster.connect import Connection
from stair_es.config import THUMBNAIL_PX
from stair_es.model.starter import IMAGE_SPEC
from stair_es.node import ensure_running
from stair_es.sources.decode import DecodeLimits, decode

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

PHOTOS = Path(__file__).parents[1] / "examples" / "photos"


def machine() -> str:
    """Date, cores, platform and version: a number without them means nothing."""
    today = datetime.now(timezone.utc).date().isoformat()
    return f"{today}, {os.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}, stair-es {__version__}"


def thumbnails() -> list[str | None]:
    """Of the bundled photos, as ingest makes them."""
    paths = sorted(PHOTOS.glob("*.jpg"))
    return [decode(path.read_bytes(), IMAGE_SPEC, DecodeLimits(), THUMBNAIL_PX).thumbnail for path in paths]


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
def node(url: str | None) -> Iterator[tuple[Connection, OpenSearch, str]]:
    """Connection, client, and a name: all indices that start with it are deleted at the end."""
    connection = Connection(url=url or ensure_running(say=print), timeout_s=120)
    client = connection.client()
    name = f"bench-{uuid4().hex[:10]}"
    try:
        yield connection, client, name
    finally:
        found = client.indices.get(index=f"{name}*", params={"allow_no_indices": "true"})
        for index in found:
            client.indices.delete(index=index)
        client.close()
