"""The interfaces of sources: protocols and values shared by built-in sources and plugins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from stair_es.config.defaults import MAX_BYTES, MAX_PIXELS
from stair_es.errors import ReadError, UsageError
from stair_es.sources.kinds.fields import estimate_json_bytes
from stair_es.types import Json


@dataclass(frozen=True, kw_only=True)
class UrlPolicy:
    """Limits on fetching images by URL."""

    schemes: tuple[str, ...] = ("https", "http")
    allow_private: bool = False
    """Allow loopback, private and link-local addresses. Off, so that a list cannot make requests to internal services."""
    timeout_s: float = 30.0
    """Timeout of a whole fetch with its redirects, not per read. Waiting for a slot of a busy host does not count."""
    max_redirects: int = 5
    per_host: int = 4
    """Concurrent fetches per host and process."""
    attempts: int = 3
    """Attempts on temporary errors: 429, 5xx, lost connections."""
    patience_s: float = 600.0
    """Total time an ingest waits for a host that asks to wait (Retry-After), while it continues with other hosts."""

    def __post_init__(self) -> None:
        if not self.schemes or not set(self.schemes) <= {"http", "https"}:
            raise UsageError(
                f"the URL schemes can't be {', '.join(self.schemes) or 'an empty list'}",
                "Allow https, http or both.",
                code="invalid-url-schemes",
            )
        if not 0 < self.timeout_s <= 86400:
            raise UsageError(
                f"the URL timeout can't be {self.timeout_s:g} s",
                "Give more than 0 s, and at most 86400 s (a day).",
                code="invalid-url-timeout",
            )
        if not 0 <= self.patience_s <= 86400:
            raise UsageError(
                f"the URL patience can't be {self.patience_s:g} s", "Give 0 s to 86400 s (a day).", code="invalid-url-patience"
            )
        if self.max_redirects < 0 or self.per_host < 1 or self.attempts < 1:
            raise UsageError(
                f"URL limits: max_redirects {self.max_redirects}, per_host {self.per_host}, attempts {self.attempts}",
                "max_redirects must be 0 or more, the others 1 or more.",
                code="invalid-url-limits",
            )


@dataclass(frozen=True, kw_only=True)
class ReadLimits:
    """Limits on reading the bytes of one image. Picklable: it travels to the workers."""

    max_bytes: int = MAX_BYTES
    """Larger objects are rejected, before reading where the store reports their size."""
    max_pixels: int = MAX_PIXELS
    """Of a page that is rendered; those of other images are checked when they are decoded."""
    url_policy: UrlPolicy = field(default_factory=UrlPolicy)
    defer: bool = False
    """Raise `RetryLater` when a host asks to wait, instead of waiting; the caller reads other images in between."""


@dataclass(frozen=True)
class ReadResult:
    """The bytes of an image."""

    data: bytes
    version: str | None = None
    """Version of these bytes as reported when reading them (an HTTP ETag); None if the store reports none."""
    modified_at: str | None = None
    """When the bytes were last modified, as reported by their store, in the format of `ingested_at`; None if unknown."""
    format: str | None = None
    """Format of the document whose page the image is; None for an image of its own."""
    fields: Mapping[str, Json] = field(default_factory=dict)
    """Further fields of the document in the index that only its bytes tell, such as the text of a page."""


class Locator(Protocol):
    """Locates the bytes of an image, or holds them. Small and picklable: workers read, the driver lists."""

    def read(self, limits: ReadLimits, known_version: str | None = None) -> ReadResult | None:
        """Return the bytes, or None if the store reports that `known_version`, of an earlier read, is still current.

        Raises:
            ReadError: If the image is missing, unreachable, forbidden or too large.
            RetryLater: If a host asks to wait and `limits.defer` is set.
        """

    def to_json(self) -> dict[str, Json] | None:
        """Return JSON from which `restore_locator` restores this locator; None if the bytes exist only in memory."""


@dataclass(frozen=True)
class SourceItem:
    """One image to ingest."""

    uri: str
    """Its identity: the same across runs and machines."""
    source: str
    """URI of the source that yielded it."""
    locator: Locator
    version: str | None = None
    """Changes with the bytes and is known without reading them (ETag, size and mtime). None if the store reports nothing."""
    fields: Mapping[str, Json] = field(default_factory=dict)
    """Further fields of its document, such as a caption or a license."""
    document_id: str = ""
    """`_id` of an existing document that gets its token weights; empty if the image has a document of its own."""
    listed_bytes: int = field(init=False, compare=False, repr=False)
    """Approximate size while it waits to be fetched: fields, names, and bytes that were listed. Each queue adds it up."""

    def __post_init__(self) -> None:
        """Estimate the size, once."""
        size = estimate_json_bytes(self.fields) + len(self.uri)
        for value in getattr(self.locator, "__dict__", {}).values():
            if isinstance(value, (str, bytes)):
                size += len(value)
        object.__setattr__(self, "listed_bytes", size)

    def __reduce__(self) -> tuple[type[SourceItem], tuple[object, ...]]:
        """Pickle the values without the names of the fields: all items of a run go through the driver."""
        return SourceItem, (self.uri, self.source, self.locator, self.version, self.fields, self.document_id)


@dataclass(frozen=True)
class ListingFailure:
    """A location that could not be listed. Its contents are unknown, so the failure must be reported."""

    uri: str
    source: str
    reason: str

    @property
    def listed_bytes(self) -> int:
        """Approximate size while it waits, as that of an item."""
        return len(self.uri) + len(self.reason)

    def to_item(self) -> SourceItem:
        """Convert it to an item without bytes, for run accounting."""
        return SourceItem(self.uri, self.source, UnreadableLocator("it was not listed"))


@dataclass(frozen=True)
class UnreadableLocator:
    """The locator of an entry that could not be listed, or whose source can't be read now."""

    reason: str
    value: dict[str, Json] | None = None

    def read(self, limits: ReadLimits, known_version: str | None = None) -> ReadResult | None:
        """Raise ReadError with the reason."""
        raise ReadError(self.reason, code="image-unavailable")

    def to_json(self) -> dict[str, Json] | None:
        """Return the value, with which a retry may succeed."""
        return self.value


@dataclass(frozen=True, kw_only=True)
class WalkOptions:
    """Which files below a folder are included, in addition to visible regular files."""

    hidden: bool = False
    """Include files and folders with hidden names (see `uris.is_hidden`)."""
    follow_links: bool = False
    """Follow symbolic links that lead out of the folder."""
    skip_raw_pairs: bool = False
    """Leave out a RAW file beside a picture of the same name."""


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """The user's options for the sources of a run."""

    format: str | None = None
    """Name of a source kind (`stair-es plugins`); None to infer it from the argument."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Document field -> column of the table; `{"*": "*"}` for all columns under their own names; empty for the caption only.

    A type suffix converts values to numbers: `price:float` and `year:int` fill the fields `price` and `year`. Columns of CSV
    are text otherwise.
    """
    image_column: str | None = None
    """Column with the image's bytes, path or URL; None to detect it by name and content."""
    walk: WalkOptions = field(default_factory=WalkOptions)
    read_limits: ReadLimits = field(default_factory=ReadLimits)


class Source(Protocol):
    """A location that contains images."""

    @property
    def uri(self) -> str:
        """Return the `source` of its items, without credentials."""

    @property
    def ignored(self) -> Mapping[str, int]:
        """Return suffix -> number of files skipped because they are not images; grows while `list_items` runs."""

    def list_items(self) -> Iterator[SourceItem | ListingFailure]:
        """Yield the images one by one, in memory that does not grow with their number.

        Raises:
            UsageError: If the source does not exist or has another format.
            SourceError: If listing cannot continue.
        """


class SourceKind(Protocol):
    """Target of an entry point in the group `stair_es.sources`: opens the sources that it recognizes."""

    name: str
    description: str
    """One line for `stair-es plugins`."""

    def can_open(self, argument: str) -> bool:
        """Return whether this kind accepts a SOURCE argument, judged by its text only."""

    def open(self, argument: str, options: SourceOptions) -> Source:
        """Return the source, without reading from it.

        Raises:
            UsageError: If the argument is not valid for this kind.
            MissingExtra: If a required library is not installed.
        """
