"""What a store of documents reports: what is stored, and the outcomes of writes. Values that any sink returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class StoredVersion:
    """The stored state of an image."""

    id: str
    uri: str
    sha256: str
    fingerprint: str
    version: str | None
    label_fields: Mapping[str, Any] = field(default_factory=dict)
    """The fields of labels from elsewhere, which an ingest keeps while the image is the same."""


@dataclass(frozen=True, kw_only=True)
class IndexedDocument:
    """A document in the index."""

    id: str
    uri: str
    source: str
    delete_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of a bulk action that deletes this version of the document, and no later one."""


@dataclass(frozen=True)
class BulkRequestStats:
    """Size, duration and result of one bulk request."""

    size_bytes: int
    documents: int
    seconds: float
    busy: bool
    """429, 5xx, lost or timed out: for the whole request, or some of its documents."""
    too_large: bool = False
    """Whether the response was 413."""


@dataclass
class BulkResult:
    """Outcomes of the documents of one call."""

    outcomes: dict[str, str | None] = field(default_factory=dict)
    """`{_id: None}` for each stored document, `{_id: reason}` for each permanently rejected one."""
    requests: list[BulkRequestStats] = field(default_factory=list)
