"""The stages of an ingest, without a cluster or a model."""

from __future__ import annotations

import io
import pickle
import tracemalloc
from dataclasses import dataclass

import pytest
from PIL import Image

from stair_es.cluster.bulk.throttle import BulkPolicy
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.ingest.sinks.cluster import ClusterSinkWriter
from stair_es.ingest.stages import WorkerConfig, prepare_batch
from stair_es.ingest.state import Batch, Pending, Prepared, estimate_listed_bytes
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.sources.base import ListingFailure, ReadLimits, ReadResult, SourceItem
from stair_es.sources.http.locator import UrlLocator
from stair_es.sources.image.decode import DecodeLimits
from stair_es.sources.io.local_file import InlineBytes
from stair_es.sources.limits import PREPARED_BYTES

MB = 1 << 20


@dataclass(frozen=True)
class _PaddedLocator:
    """A small image, followed by many bytes."""

    size_bytes: int

    def read(self, limits: ReadLimits, known_version: str | None = None) -> ReadResult | None:
        file = io.BytesIO()
        Image.new("RGB", (8, 8), "red").save(file, "PNG")
        file.write(bytes(self.size_bytes))
        return ReadResult(file.getvalue())

    def to_json(self) -> None:
        return None


def test_large_images_are_decoded_before_all_are_read() -> None:
    connection = Connection(url="http://127.0.0.1:1")
    config = WorkerConfig(
        writer=ClusterSinkWriter(cluster=Cluster(connection), index="no", policy=BulkPolicy()),
        is_empty=True,
        model=ModelSpec(name="stair-mini"),
        model_id="stair-mini-3",
        image_spec=registry.resolve_model(ModelSpec(name="stair-mini")).card.image_spec,
        document=DocumentSettings(),
        read_limits=ReadLimits(),
        decode_limits=DecodeLimits(),
    )
    uris = [f"file:///{number}.png" for number in range(6)]
    batch = Batch([Pending(SourceItem(uri, "file:///", _PaddedLocator(40 * MB))) for uri in uris])
    tracemalloc.start()
    try:
        prepared = prepare_batch(config, batch)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [image.fetched.item.uri for image in prepared.select_state(Prepared)] == uris
    assert peak < PREPARED_BYTES + 120 * MB  # the last one read, and the copies that reading makes
    assert set(prepared.seconds) == {"read", "decode"}


LONG_URL = "https://images.test/" + "x" * 10_000


@pytest.mark.parametrize(
    ("listed", "min_bytes", "max_bytes"),
    [
        (
            SourceItem("file:///a", "/", InlineBytes(b"x" * 1000), fields={"caption": "x" * 10_000, "tags": ["a"] * 100}),
            17_000,
            20_000,
        ),
        (SourceItem(LONG_URL, "list:", UrlLocator(LONG_URL)), 20_000, 21_000),
        (ListingFailure(LONG_URL, "list:", "not UTF-8"), 10_000, 11_000),
    ],
    ids=["fields", "names", "failure"],
)
def test_the_size_of_a_waiting_image_includes_its_texts(
    listed: SourceItem | ListingFailure, min_bytes: int, max_bytes: int
) -> None:
    assert min_bytes < estimate_listed_bytes(listed) < max_bytes
    loaded = pickle.loads(pickle.dumps(listed))
    assert (loaded, loaded.listed_bytes) == (listed, listed.listed_bytes)
