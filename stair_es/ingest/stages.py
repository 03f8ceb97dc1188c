"""The four stages of an ingest: read -> decode -> encode -> write. Each is `Batch -> Batch`, in this process or on a worker.

A batch keeps every image that came in until it has its outcome: a stage works on the images that are in its state, and
passes the others through, so that none can get lost on the way and a failed image is data, not an exception.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import numpy as np

from stair_es.cluster.bulk import BulkPolicy, BulkWriter
from stair_es.cluster.connect import Connection
from stair_es.cluster.documents import DocumentSettings, ImageFacts, document, document_id, fingerprint
from stair_es.cluster.ledger import stored_fingerprints
from stair_es.errors import DecodeError
from stair_es.model.encoder import Encoder, ModelSpec
from stair_es.sources.decode import Decoded, DecodeLimits, decode
from stair_es.sources.listing import ImageRef
from stair_es.sources.read import read
from stair_es.types import ImageSpec, SparseVector

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

Kind: TypeAlias = Literal["written", "unchanged", "dead"]
Stage: TypeAlias = Literal["list", "read", "decode", "encode", "write"]
STAGES: tuple[Stage, ...] = ("read", "decode", "encode", "write")


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that a worker needs to build what it works with. Picklable: builders, never clients or models."""

    connection: Connection
    alias: str
    index: str
    """The concrete index behind `alias`."""
    fresh: bool
    """The index was created by this run: nothing in it can be unchanged."""
    model: ModelSpec
    model_id: str
    image_spec: ImageSpec
    document: DocumentSettings
    limits: DecodeLimits
    bulk: BulkPolicy


@dataclass(frozen=True)
class Loaded:
    """An image after `read`: new or changed bytes."""

    ref: ImageRef
    data: bytes
    sha256: str
    fingerprint: str


@dataclass(frozen=True)
class Ready:
    """An image after `decode`: pixels."""

    loaded: Loaded
    """Without its bytes."""
    decoded: Decoded


@dataclass(frozen=True)
class Encoded:
    """An image after `encode`: words."""

    vector: SparseVector
    facts: ImageFacts
    fingerprint: str


@dataclass(frozen=True)
class Outcome:
    """What became of one image."""

    ref: ImageRef
    kind: Kind
    stage: Stage
    reason: str = ""


State: TypeAlias = "ImageRef | Loaded | Ready | Encoded | Outcome"
_S = TypeVar("_S")


@dataclass
class Batch:
    """Some images on their way, and the seconds that each stage spent on them."""

    images: list[State]
    seconds: dict[Stage, float] = field(default_factory=dict)

    def outcomes(self) -> list[Outcome]:
        """The images' outcomes: one each, after the last stage."""
        return [image for image in self.images if isinstance(image, Outcome)]

    def _of(self, kind: type[_S]) -> list[tuple[int, _S]]:
        return [(i, image) for i, image in enumerate(self.images) if isinstance(image, kind)]


@contextmanager
def _timed(batch: Batch, stage: Stage) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        batch.seconds[stage] = batch.seconds.get(stage, 0.0) + time.perf_counter() - start


@lru_cache(maxsize=4)
def _client(connection: Connection) -> OpenSearch:
    """One client a process: workers build their own, clients don't travel."""
    return connection.client()


def read_batch(batch: Batch, job: Job) -> Batch:
    """Read and hash each image; those whose stored fingerprint is the same are `unchanged`."""
    with _timed(batch, "read"):
        for i, ref in batch._of(ImageRef):
            try:
                data = read(ref.uri, job.limits.max_bytes)
            except DecodeError as error:
                batch.images[i] = Outcome(ref, "dead", "read", error.message)
                continue
            sha256 = hashlib.sha256(data).hexdigest()
            batch.images[i] = Loaded(ref, data, sha256, fingerprint(sha256, job.model_id, job.document))
        if not job.fresh:
            _skip_unchanged(batch, job)
    return batch


def _skip_unchanged(batch: Batch, job: Job) -> None:
    loaded = batch._of(Loaded)
    ids = [document_id(image.ref.uri) for _, image in loaded]
    stored = stored_fingerprints(_client(job.connection), job.connection, job.index, ids)
    for (i, image), id_ in zip(loaded, ids, strict=True):
        if stored.get(id_) == image.fingerprint:
            batch.images[i] = Outcome(image.ref, "unchanged", "read")


def decode_batch(batch: Batch, job: Job) -> Batch:
    """Bytes to pixels, metadata and thumbnail."""
    with _timed(batch, "decode"):
        for i, image in batch._of(Loaded):
            try:
                decoded = decode(image.data, job.image_spec, job.limits, job.document.thumbnail_px)
            except DecodeError as error:
                batch.images[i] = Outcome(image.ref, "dead", "decode", error.message)
                continue
            batch.images[i] = Ready(Loaded(image.ref, b"", image.sha256, image.fingerprint), decoded)
    return batch


def encode_batch(batch: Batch, encoder: Encoder) -> Batch:
    """Pixels to words, all images of the batch in one call."""
    with _timed(batch, "encode"):
        ready = batch._of(Ready)
        if ready:
            vectors = encoder.encode_images(np.stack([image.decoded.pixels_HWC for _, image in ready]))
            for (i, image), vector in zip(ready, vectors, strict=True):
                batch.images[i] = Encoded(vector, _facts(image), image.loaded.fingerprint)
    return batch


def _facts(image: Ready) -> ImageFacts:
    loaded, decoded = image.loaded, image.decoded
    return ImageFacts(
        uri=loaded.ref.uri,
        source=loaded.ref.source,
        sha256=loaded.sha256,
        width=decoded.width,
        height=decoded.height,
        format=decoded.format,
        taken_at=decoded.taken_at,
        thumbnail=decoded.thumbnail,
    )


def write_batch(batch: Batch, job: Job) -> Batch:
    """Words into the index; what the cluster refuses for good is dead."""
    with _timed(batch, "write"):
        encoded = batch._of(Encoded)
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        documents = [
            (
                document_id(image.facts.uri),
                document(
                    image.vector,
                    image.facts,
                    model_id=job.model_id,
                    fingerprint=image.fingerprint,
                    ingested_at=now,
                    top_words=job.document.top_words,
                ),
            )
            for _, image in encoded
        ]
        writer = BulkWriter(client=_client(job.connection), connection=job.connection, alias=job.alias, policy=job.bulk)
        refused = writer.write(documents) if documents else {}
        for (i, image), (id_, _) in zip(encoded, documents, strict=True):
            ref = ImageRef(image.facts.uri, image.facts.source)
            reason = refused[id_]
            batch.images[i] = Outcome(ref, "written", "write") if reason is None else Outcome(ref, "dead", "write", reason)
    return batch


def batches(images: Sequence[ImageRef], size: int) -> list[Batch]:
    """The images in batches of `size`."""
    return [Batch(list(images[start : start + size])) for start in range(0, len(images), size)]
