"""What a source yields, and what a source is: the small Protocols that the built-in sources and those of plugins share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from stair_es.config import MAX_BYTES
from stair_es.errors import ReadError
from stair_es.sources.web.policy import UrlPolicy

if TYPE_CHECKING:
    from stair_es.types import Json


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What reading the bytes of one image may cost, and where it may go. Picklable: it travels to the workers."""

    max_bytes: int = MAX_BYTES
    """Larger objects are refused, before they are read where the store tells their size."""
    urls: UrlPolicy = field(default_factory=UrlPolicy)
    defer: bool = False
    """Raise `TryLater` where a host asks to wait, instead of waiting: the caller has other images to read meanwhile."""


@dataclass(frozen=True)
class Read:
    """The bytes of an image."""

    data: bytes
    version: str | None = None
    """Of these bytes, as the store told it on reading them (an HTTP ETag); None where it says nothing."""


class Place(Protocol):
    """Where the bytes of an image are, or the bytes themselves. Small and picklable: workers read, the driver lists."""

    def read(self, reading: Reading, known: str | None = None) -> Read | None:
        """The bytes. None if the store says that they still are those of version `known`.

        Raises:
            ReadError: Gone, unreachable, forbidden or too large, with the reason.
            TryLater: With `reading.defer`, a host asks to wait.
        """

    def to_json(self) -> dict[str, Json] | None:
        """What `places.from_json` makes the same place of; None where the place is only in memory."""


@dataclass(frozen=True)
class Item:
    """One image to take in."""

    uri: str
    """Its identity: stable from run to run and from machine to machine."""
    source: str
    """URI of the source that it was found in."""
    place: Place
    version: str | None = None
    """Changes with the bytes, and is known without reading them (ETag, size and mtime). None where the store tells nothing."""
    fields: Mapping[str, Json] = field(default_factory=dict)
    """Further fields of its document: a caption, a licence."""


@dataclass(frozen=True)
class Unlisted:
    """A place that should have been listed and couldn't be: what is in it is unknown, so it must not pass in silence."""

    uri: str
    source: str
    reason: str

    def as_item(self) -> Item:
        """For the books: an item without bytes."""
        return Item(self.uri, self.source, _Nowhere())


@dataclass(frozen=True)
class _Nowhere:
    """The place of what couldn't be listed."""

    def read(self, reading: Reading, known: str | None = None) -> Read | None:
        raise ReadError("it was never listed")

    def to_json(self) -> None:
        return None


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What is taken of the files below a folder, beside those that it holds in plain sight."""

    hidden: bool = False
    """Files and folders with hidden names (see `paths.is_hidden`)."""
    follow_links: bool = False
    """What links lead to that is outside of the folder."""


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What the user said about the sources of a run."""

    format: str | None = None
    """Name of a source kind (`stair-es plugins`); None to go by the argument."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Document field -> column of the table; `{"*": "*"}` for all columns by their own names; empty for the caption alone.

    A field `price:float` or `year:int` is called `price`, `year`, and holds numbers: columns of CSV are texts otherwise."""
    image_column: str | None = None
    """The column with the image's bytes, path or URL; None to find it by name and content."""
    walk: Walk = field(default_factory=Walk)
    reading: Reading = field(default_factory=Reading)


class Source(Protocol):
    """A place with images."""

    @property
    def uri(self) -> str:
        """What its items have as `source`. Carries no credentials."""

    @property
    def ignored(self) -> Mapping[str, int]:
        """Suffix -> how many files were passed over as no images; grows while `items` runs."""

    def items(self) -> Iterator[Item | Unlisted]:
        """The images, one after another: nothing is held that grows with their number.

        Raises:
            UsageError: The source doesn't exist or isn't what it was said to be.
            SourceError: It can't be read on.
        """


class SourceKind(Protocol):
    """What an entry point of the group `stair_es.sources` names: opens the sources that it claims."""

    name: str
    description: str
    """One line for `stair-es plugins`."""

    def claims(self, argument: str) -> bool:
        """Whether it would take this SOURCE argument, judged by the text alone."""

    def open(self, argument: str, options: SourceOptions) -> Source:
        """The source; nothing is read yet.

        Raises:
            UsageError: The argument can't be one of this kind.
            MissingExtra: A library that it needs isn't installed.
        """
