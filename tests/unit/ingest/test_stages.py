"""The stages of an ingest, without a cluster or a model."""

from __future__ import annotations

import io
import tracemalloc
from dataclasses import dataclass

from PIL import Image

from stair_es.cluster.bulk.writer import BulkPolicy
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

IMAGES, MB = 6, 1 << 20


@dataclass(frozen=True)
class _PaddedLocator:
    """A small picture with much behind it."""

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
        model_id="stair-mini-2",
        image_spec=registry.resolve_model(ModelSpec(name="stair-mini")).card.image_spec,
        document=DocumentSettings(),
        read_limits=ReadLimits(),
        decode_limits=DecodeLimits(),
    )
    batch = Batch([Pending(SourceItem(f"file:///{number}.png", "file:///", _PaddedLocator(40 * MB))) for number in range(IMAGES)])
    tracemalloc.start()
    try:
        prepared = prepare_batch(config, batch)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [image.fetched.item.uri for image in prepared.select_state(Prepared)] == [
        f"file:///{number}.png" for number in range(IMAGES)
    ]
    assert peak < PREPARED_BYTES + 120 * MB  # the last one read, and the copies that reading makes
    assert set(prepared.seconds) == {"read", "decode"}


def test_the_size_of_a_waiting_image_includes_its_fields() -> None:
    item = SourceItem(
        "file:///a.png", "file:///", InlineBytes(b"x" * 1000), fields={"caption": "x" * 10_000, "tags": ["a"] * 100}
    )
    assert 17_000 < estimate_listed_bytes(item) < 20_000


def test_the_size_of_a_waiting_image_includes_its_names() -> None:
    url = "https://images.test/" + "x" * 10_000
    assert 20_000 < estimate_listed_bytes(SourceItem(url, "list:", UrlLocator(url))) < 21_000
    assert 10_000 < estimate_listed_bytes(ListingFailure(url, "list:", "line 7 isn't UTF-8")) < 11_000
