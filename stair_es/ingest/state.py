"""The state of each image on its way through the stages. A batch keeps every image until it has its outcome.

A stage processes the images in its input state and passes the others through, so that no image is lost and a failed image is
data, not an exception.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal, NamedTuple, TypeAlias, TypeVar, get_args

from stair_es.cluster.documents.document import ImageMetadata, TextMetadata, make_document_id
from stair_es.sources.base import ListingFailure, SourceItem
from stair_es.sources.http.locator import UrlLocator
from stair_es.sources.image.decode import DecodedImage
from stair_es.store import StoredVersion
from stair_es.types import Json, SparseVector

OutcomeKind: TypeAlias = Literal["written", "unchanged", "failed", "forgotten"]
"""`forgotten`: left out, since it is on the list of forgotten images; see `sinks.forgotten`."""
OUTCOME_KINDS: tuple[OutcomeKind, ...] = get_args(OutcomeKind)
IngestStage: TypeAlias = Literal["list", "check", "read", "decode", "enrich", "encode", "write"]
STAGES: tuple[IngestStage, ...] = ("check", "read", "decode", "enrich", "encode", "write")


class Pending(NamedTuple):
    """An image after `check`: new, changed, or undecidable without its bytes. A tuple for the same reason as `Outcome`."""

    item: SourceItem
    stored: StoredVersion | None = None
    """Its document in the sink, if there is one."""
    deferral_key: str = ""
    """The key under which it was deferred, if it was: its host, or its own URI."""
    served_when_refused: int | None = None
    """How many images its host had served when this one was last refused; None if it never was."""


@dataclass(frozen=True)
class Deferred:
    """An image after `read` whose host asks to wait: it is fetched later."""

    item: SourceItem
    host: str
    wait_s: float
    reason: str
    was_requested: bool = True
    """Whether this image was requested itself; otherwise another image of its host was refused."""


@dataclass(frozen=True)
class VersionChanged:
    """An image after `read` with unchanged bytes, although the store reports another version."""

    item: SourceItem
    id: str
    version: str
    modified_at: str | None


@dataclass(frozen=True)
class Fetched:
    """An image after `read`: new or changed bytes. A text stays in this state until it is encoded."""

    item: SourceItem
    id: str
    data: bytes
    """Empty after `enrich`."""
    size_bytes: int
    version: str | None
    modified_at: str | None
    sha256: str
    fingerprint: str
    format: str | None = None
    """See `ReadResult`, as for `fields`."""
    fields: Mapping[str, Json] = field(default_factory=dict)
    label_fields: Mapping[str, Json] = field(default_factory=dict)
    """Those that its document has, if its bytes are the same."""


@dataclass(frozen=True)
class Prepared:
    """An image after `decode` and `enrich`: pixels."""

    fetched: Fetched
    decoded: DecodedImage
    fields: Mapping[str, Json]
    labels: Mapping[str, float] = field(default_factory=dict)
    """Of enrichers."""

    def drop_bytes(self, label_fields: Mapping[str, Json]) -> Prepared:
        """Return it without the bytes of its file, which only enrichers need, and with the fields of its labels."""
        fetched = replace(self.fetched, data=b"", label_fields=label_fields)
        return replace(self, fetched=fetched, decoded=replace(self.decoded, exif=b""))


@dataclass(frozen=True)
class Encoded:
    """An image after `encode`: token weights."""

    item: SourceItem
    id: str
    vector: SparseVector
    metadata: ImageMetadata | TextMetadata
    fields: Mapping[str, Json]
    fingerprint: str
    label_fields: Mapping[str, Json] = field(default_factory=dict)


class Outcome(NamedTuple):
    """The final outcome of one image. A tuple, since the driver creates one for each image of all its workers."""

    item: SourceItem
    kind: OutcomeKind
    stage: IngestStage
    reason: str = ""
    id: str = ""
    """`_id` of its document, if it has one."""


ImageState: TypeAlias = "SourceItem | Pending | Deferred | VersionChanged | Fetched | Prepared | Encoded | Outcome"
_S = TypeVar("_S")


@dataclass
class Batch:
    """A group of images on its way through the stages, with the time that each stage spent on it."""

    images: list[ImageState]
    seconds: dict[IngestStage, float] = field(default_factory=dict)
    began_ns: dict[IngestStage, int] = field(default_factory=dict)
    """Start of each stage in nanoseconds since 1970, by the clock of the worker."""

    def get_outcomes(self) -> list[Outcome]:
        """Return the outcomes of the images: one each, after the last stage."""
        return self.select_state(Outcome)

    def select_state(self, kind: type[_S]) -> list[_S]:
        """Return the images in one state."""
        return [image for image in self.images if isinstance(image, kind)]

    def enumerate_state(self, kind: type[_S]) -> list[tuple[int, _S]]:
        """Return the images in one state, with their positions in the batch."""
        return [(i, image) for i, image in enumerate(self.images) if isinstance(image, kind)]

    @contextmanager
    def time_stage(self, stage: IngestStage) -> Iterator[None]:
        """Add the time spent in the `with` block to the stage's seconds."""
        self.began_ns.setdefault(stage, time.time_ns())
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def add_times(self, other: Batch) -> None:
        """Add the times of another batch: seconds are summed, and the earlier start counts."""
        for stage, seconds in other.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        for stage, began_ns in other.began_ns.items():
            self.began_ns[stage] = min(began_ns, self.began_ns.get(stage, began_ns))


def estimate_listed_bytes(listed: SourceItem | ListingFailure) -> int:
    """Return the approximate size of a listed image before it is fetched."""
    return listed.listed_bytes


def estimate_pending_bytes(image: Pending) -> int:
    """Return the approximate size of a waiting image, as `estimate_listed_bytes` does."""
    return image.item.listed_bytes


def get_document_id(item: SourceItem) -> str:
    """Return the `_id` of the document of an item, unless ids go by content."""
    return item.document_id or make_document_id(item.uri)


def get_item_host(item: SourceItem) -> str:
    """Return the host that an image is fetched from; "" for an image without a URL."""
    return item.locator.host if isinstance(item.locator, UrlLocator) else ""


def get_timestamp() -> str:
    """Return this machine's time in the format of `ingested_at`. It may be wrong: no document is removed because of it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def get_image_item(state: ImageState) -> SourceItem:
    """Return the item of an image in any state."""
    if isinstance(state, SourceItem):
        return state
    return state.fetched.item if isinstance(state, Prepared) else state.item


def mark_failed(batch: Batch, stage: IngestStage, reason: str) -> Batch:
    """Mark each image of the batch that has no outcome yet as failed, and return the batch."""
    for i, state in enumerate(batch.images):
        if not isinstance(state, Outcome):
            batch.images[i] = Outcome(get_image_item(state), "failed", stage, reason)
    return batch
