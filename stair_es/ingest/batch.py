"""Images on their way through the stages. A batch keeps every image that came in until it has its outcome.

A stage works on the images that are in its state and passes the others through, so that none can get lost on the way and a
failed image is data, not an exception.
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
    """An image after `check`: new, changed, or not to be told without its bytes."""

    item: Item
    stored: Stored | None = None
    """Its document, if the sink has one."""
    waited_for: str = ""
    """What it was kept back for, if it was: its host, or its own URI."""
    refused_after: int | None = None
    """How many answers its host had given when it was refused last; None if it never was."""


@dataclass(frozen=True)
class Deferred:
    """An image after `read` whose host asks to wait: it is to be read later."""

    item: Item
    host: str
    wait_s: float
    reason: str
    asked: bool = True
    """Whether it was asked for itself; else only others of its host."""


@dataclass(frozen=True)
class Touched:
    """An image after `read` whose bytes are the stored ones, though the store calls them another version now."""

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
    """An image after `encode`: words."""

    item: Item
    id: str
    vector: SparseVector
    facts: ImageFacts
    fields: Mapping[str, Json]
    fingerprint: str


@dataclass(frozen=True)
class Outcome:
    """What became of one image."""

    item: Item
    kind: Kind
    stage: Stage
    reason: str = ""
    id: str = ""
    """`_id` of its document, where it has one."""


State: TypeAlias = "Item | Wanted | Deferred | Touched | Loaded | Ready | Encoded | Outcome"
_S = TypeVar("_S")


@dataclass
class Batch:
    """Some images on their way, and the time that each stage spent on them."""

    images: list[State]
    seconds: dict[Stage, float] = field(default_factory=dict)
    began_ns: dict[Stage, int] = field(default_factory=dict)
    """When each stage began, in nanoseconds since 1970, by the clock of whoever worked on it."""

    def outcomes(self) -> list[Outcome]:
        """The images' outcomes: one each, after the last stage."""
        return self.only(Outcome)

    def only(self, kind: type[_S]) -> list[_S]:
        """The images in one state."""
        return [image for image in self.images if isinstance(image, kind)]

    def of(self, kind: type[_S]) -> list[tuple[int, _S]]:
        """The images in one state, with their positions."""
        return [(i, image) for i, image in enumerate(self.images) if isinstance(image, kind)]

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Adds what it encloses to the stage's seconds."""
        self.began_ns.setdefault(stage, time.time_ns())
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def bytes_of(listed: Item | Unlisted) -> int:
    """What an image weighs before its bytes are read: its fields, its names, and its bytes if it was listed with them."""
    if isinstance(listed, Unlisted):
        return len(listed.uri) + len(listed.reason)
    place = getattr(listed.place, "__dict__", {}).values()
    return weigh(listed.fields) + len(listed.uri) + sum(len(value) for value in place if isinstance(value, (str, bytes)))


def host_of(item: Item) -> str:
    """The host that an image is fetched from; empty for one that isn't behind a URL."""
    return item.place.host if isinstance(item.place, UrlAt) else ""


def now() -> str:
    """The time as documents have it in `ingested_at`: one form everywhere, since a resync compares them as they are."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def item_of(state: State) -> Item:
    """The image that a state is about."""
    if isinstance(state, Item):
        return state
    return state.loaded.item if isinstance(state, Ready) else state.item
