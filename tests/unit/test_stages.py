"""The stages of an ingest, without a cluster or a model."""

from __future__ import annotations

import io
import tracemalloc
from dataclasses import dataclass

from PIL import Image

from stair_es.cluster.bulk import BulkPolicy
from stair_es.cluster.connect import Connection
from stair_es.cluster.documents import DocumentSettings
from stair_es.ingest.batch import Batch, Ready, Wanted, bytes_of
from stair_es.ingest.cluster_writer import ClusterWriter
from stair_es.ingest.stages import Job, prepare_batch
from stair_es.model import catalogue
from stair_es.model.encoder import ModelSpec
from stair_es.sources.decode import DecodeLimits
from stair_es.sources.item import Item, Read, Reading, Unlisted
from stair_es.sources.limits import PREPARED_BYTES
from stair_es.sources.local_file import Inline
from stair_es.sources.web.fetch import UrlAt

IMAGES, MB = 6, 1 << 20


@dataclass(frozen=True)
class _Padded:
    """A small picture with much behind it."""

    size_bytes: int

    def read(self, reading: Reading, known: str | None = None) -> Read | None:
        file = io.BytesIO()
        Image.new("RGB", (8, 8), "red").save(file, "PNG")
        file.write(bytes(self.size_bytes))
        return Read(file.getvalue())

    def to_json(self) -> None:
        return None


def test_large_images_are_decoded_before_all_are_read() -> None:
    connection = Connection(url="http://127.0.0.1:1")
    job = Job(
        writer=ClusterWriter(connection=connection, index="no", policy=BulkPolicy()),
        fresh=True,
        model=ModelSpec(name="stair-mini"),
        model_id="stair-mini-2",
        image_spec=catalogue.resolve("stair-mini").image_spec,
        document=DocumentSettings(),
        reading=Reading(),
        limits=DecodeLimits(),
    )
    batch = Batch([Wanted(Item(f"file:///{number}.png", "file:///", _Padded(40 * MB))) for number in range(IMAGES)])
    tracemalloc.start()
    try:
        prepared = prepare_batch(batch, job)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [image.loaded.item.uri for image in prepared.only(Ready)] == [f"file:///{number}.png" for number in range(IMAGES)]
    assert peak < PREPARED_BYTES + 120 * MB  # the last one read, and the copies that reading makes
    assert set(prepared.seconds) == {"read", "decode"}


def test_what_waits_weighs_its_fields_too() -> None:
    item = Item("file:///a.png", "file:///", Inline(b"x" * 1000), fields={"caption": "x" * 10_000, "tags": ["a"] * 100})
    assert 17_000 < bytes_of(item) < 20_000


def test_what_waits_weighs_its_names_too() -> None:
    url = "https://images.test/" + "x" * 10_000
    assert 20_000 < bytes_of(Item(url, "list:", UrlAt(url))) < 21_000
    assert 10_000 < bytes_of(Unlisted(url, "list:", "line 7 isn't UTF-8")) < 11_000
