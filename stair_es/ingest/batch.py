"""The state of each image on its way through the stages. A batch keeps every image until it has its outcome.

A stage processes the images in its input state and passes the others through, so that no image is lost and a failed image is
data, not an exception.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from stair_es.cluster.documents import ImageFacts
from stair_es.cluster.ledger import Stored
from stair_es.sources.decode import Decoded
from stair_es.sources.item import Item, Unlisted
from stair_es.sources.values import weigh
from stair_es.sources.web.fetch import UrlAt
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from stair_es.types import Json

Kind: TypeAlias = Literal["written", "unchanged", "dead"]
Stage: TypeAlias = Literal["list", "check", "read", "decode", "enrich", "encode", "write"]
STAGES: tuple[Stage, ...] = ("check", "read", "decode", "enrich", "encode", "write")


@dataclass(frozen=True)
class Wanted:
    """An image after `check`: new, changed, or undecidable without its bytes."""

    item: Item
    stored: Stored | None = None
    """Its document in the sink, if there is one."""
    waited_for: str = ""
    """The key under which it was deferred, if it was: its host, or its own URI."""
    refused_after: int | None = None
    """How many images its host had served when this one was last refused; None if it never was."""


@dataclass(frozen=True)
class Deferred:
    """An image after `read` whose host asks to wait: it is fetched later."""

    item: Item
    host: str
    wait_s: float
    reason: str
    asked: bool = True
    """Whether this image was requested itself; otherwise another image of its host was refused."""


@dataclass(frozen=True)
class Touched:
    """An image after `read` with unchanged bytes, although the store reports another version."""

    item: Item
    id: str
    version: str


@dataclass(frozen=True)
class Loaded:
    """An image after `read`: new or changed bytes."""

    item: Item
    id: str
    """`_id` of its document."""
    data: bytes
    version: str | None
    sha256: str
    fingerprint: str


@dataclass(frozen=True)
class Ready:
    """An image after `decode` and `enrich`: pixels."""

    loaded: Loaded
    decoded: Decoded
    fields: Mapping[str, Json]


@dataclass(frozen=True)
class Encoded:
    """An image after `encode`: token weights."""

    item: Item
    id: str
    vector: SparseVector
    facts: ImageFacts
    fields: Mapping[str, Json]
    fingerprint: str


@dataclass(frozen=True)
class Outcome:
    """The final outcome of one image."""

    item: Item
    kind: Kind
    stage: Stage
    reason: str = ""
    id: str = ""
    """`_id` of its document, if it has one."""


State: TypeAlias = "Item | Wanted | Deferred | Touched | Loaded | Ready | Encoded | Outcome"
_S = TypeVar("_S")


@dataclass
class Batch:
    """A group of images on its way through the stages, with the time that each stage spent on it."""

    images: list[State]
    seconds: dict[Stage, float] = field(default_factory=dict)
    began_ns: dict[Stage, int] = field(default_factory=dict)
    """Start of each stage in nanoseconds since 1970, by the clock of the worker."""

    def outcomes(self) -> list[Outcome]:
        """Return the outcomes of the images: one each, after the last stage."""
        return self.only(Outcome)

    def only(self, kind: type[_S]) -> list[_S]:
        """Return the images in one state."""
        return [image for image in self.images if isinstance(image, kind)]

    def of(self, kind: type[_S]) -> list[tuple[int, _S]]:
        """Return the images in one state, with their positions in the batch."""
        return [(i, image) for i, image in enumerate(self.images) if isinstance(image, kind)]

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Add the time spent in the `with` block to the stage's seconds."""
        self.began_ns.setdefault(stage, time.time_ns())
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def bytes_of(listed: Item | Unlisted) -> int:
    """Return the approximate size of a listed image before it is fetched: fields, names, and bytes that were listed."""
    if isinstance(listed, Unlisted):
        return len(listed.uri) + len(listed.reason)
    place = getattr(listed.place, "__dict__", {}).values()
    return weigh(listed.fields) + len(listed.uri) + sum(len(value) for value in place if isinstance(value, (str, bytes)))


def host_of(item: Item) -> str:
    """Return the host that an image is fetched from; "" for an image without a URL."""
    return item.place.host if isinstance(item.place, UrlAt) else ""


def now() -> str:
    """Return the current time in the format of the field `ingested_at`; a resync compares these strings."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def item_of(state: State) -> Item:
    """Return the item of an image in any state."""
    if isinstance(state, Item):
        return state
    return state.loaded.item if isinstance(state, Ready) else state.item
