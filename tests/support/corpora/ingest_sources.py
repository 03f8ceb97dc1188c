"""Sources in tests: old copies of the example photos, a list of items, what a source lists, and a worker's configuration."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stair_es.cluster.bulk.throttle import BulkPolicy
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.ingest.sinks.cluster import ClusterSinkWriter
from stair_es.ingest.stages import WorkerConfig
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.plugins import list_package_versions
from stair_es.sources.base import ListingFailure, ReadLimits, SourceItem, SourceOptions
from stair_es.sources.image.decode import DecodeLimits
from stair_es.sources.registry import open_source

PHOTOS = Path(__file__).parents[3] / "examples" / "photos"
LONG_AGO = 1_700_000_000
"""Modification time: a file that has just changed is read again, and gets another version."""


def mark_settled(path: Path) -> Path:
    """Set a modification time long ago, so that it identifies the version of a file."""
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def copy_photo(photo: Path, to: Path, modified_at: float = LONG_AGO) -> None:
    """Copy a photo into a folder or to a path, as a file that was modified long ago."""
    os.utime(shutil.copy(photo, to), (modified_at, modified_at))


def copy_photos(folder: Path, count: int) -> Path:
    """Create a folder with the first photos, as files that were modified long ago."""
    folder.mkdir()
    for photo in sorted(PHOTOS.glob("*.jpg"))[:count]:
        copy_photo(photo, folder)
    return folder


class ListSource:
    """A source that lists the given items, and then fails with the given error, if any."""

    def __init__(self, items: Sequence[SourceItem | ListingFailure], uri: str = "given:", error: Exception | None = None) -> None:
        self._items, self.uri, self._error = items, uri, error
        self.ignored: dict[str, int] = {}

    def list_items(self) -> Iterator[SourceItem | ListingFailure]:
        """List the items."""
        yield from self._items
        if self._error:
            raise self._error


class Listing(list[SourceItem | ListingFailure]):
    """What a source lists, in its order."""

    @property
    def images(self) -> list[SourceItem]:
        """The items without failures."""
        return [each for each in self if isinstance(each, SourceItem)]

    @property
    def failures(self) -> list[ListingFailure]:
        """The failures without items."""
        return [each for each in self if isinstance(each, ListingFailure)]

    @property
    def kinds(self) -> str:
        """A letter for each: `i` for an image, `f` for a failure."""
        return "".join("i" if isinstance(each, SourceItem) else "f" for each in self)

    @property
    def image_positions(self) -> list[str]:
        """Where each image is in its table or tar."""
        return [each.uri.rpartition("#")[2] for each in self.images]

    @property
    def failed_positions(self) -> list[str]:
        """Where each failure is in its table or tar."""
        return [each.uri.rpartition("#")[2] for each in self.failures]


def list_source(argument: str | Path, **options: Any) -> Listing:  # noqa: ANN401
    """List a source; `options` are fields of `SourceOptions`."""
    return Listing(open_source(str(argument), SourceOptions(**options)).list_items())


def list_images(argument: str | Path, **options: Any) -> list[SourceItem]:  # noqa: ANN401
    """List a source in which nothing fails."""
    listed = list_source(argument, **options)
    assert listed.failures == []
    return listed.images


def read_data(item: SourceItem | ListingFailure) -> bytes:
    """Read an image by a pickled locator, as a worker does."""
    assert isinstance(item, SourceItem)
    read = pickle.loads(pickle.dumps(item.locator)).read(ReadLimits())
    assert read is not None
    return bytes(read.data)


def accept_items(listed: Sequence[SourceItem | ListingFailure]) -> list[SourceItem]:
    """Take over listed items in place of a run's accounting."""
    return [found for found in listed if isinstance(found, SourceItem)]


def build_worker_config(connection: Connection, policy: BulkPolicy | None = None) -> WorkerConfig:
    """Return the configuration of workers that write to an index which isn't there."""
    card = registry.resolve_model(ModelSpec(name="stair-mini")).card
    return WorkerConfig(
        writer=ClusterSinkWriter(cluster=Cluster(connection), index="none", policy=policy or BulkPolicy()),
        is_empty=True,
        model=ModelSpec(name="stair-mini", backend="onnx"),
        model_id=card.model_id,
        image_spec=card.image_spec,
        document=DocumentSettings(),
        read_limits=ReadLimits(),
        decode_limits=DecodeLimits(),
        packages=list_package_versions(),
    )
