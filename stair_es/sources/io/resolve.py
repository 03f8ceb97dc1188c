"""Resolve an entry of a list or table to a locator: a path, a URL, or the bytes themselves."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stair_es.sources.base import Locator, SourceItem
from stair_es.sources.http.locator import UrlLocator
from stair_es.sources.http.urls import find_credentials_error
from stair_es.sources.io.local_file import FileLocator, InlineBytes
from stair_es.sources.io.object_store import ObjectLocator
from stair_es.sources.io.remote import strip_credentials
from stair_es.sources.io.uris import from_file_uri, get_file_version, get_scheme, to_file_uri
from stair_es.sources.limits import MAX_REFERENCE_CHARS
from stair_es.types import Json

TABLE_SCHEMES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hf", "memory"})
"""Schemes allowed in tables. Not all that fsspec supports: an untrusted table must not make us log in to servers."""
_DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)

_BASE64_IMAGE = re.compile(r"(?:/9j/|iVBORw0KGgo|R0lGOD|UklGR|SUkqA|TU0AK|AAAA.GZ0eX)[A-Za-z0-9+/\s]{64}")
"""How a JPEG, PNG, GIF, WebP, TIFF, AVIF or HEIC begins: no path is as long, without a dot."""


@dataclass(frozen=True)
class ResolvedImage:
    """An image named by a row. `uri` is None for bytes: they are identified by their row."""

    uri: str | None
    locator: Locator
    version: str | None = None

    def to_item(self, where: str, source: str, version: str | None, fields: Mapping[str, Json]) -> SourceItem:
        """Return the item of the row `where`, whose version is that of bytes in it."""
        if self.uri is None:
            return SourceItem(where, source, self.locator, version, fields)
        return SourceItem(self.uri, source, self.locator, self.version, fields)


def resolve_image_reference(value: Any, base: str) -> ResolvedImage | str:  # noqa: ANN401  a value of any table
    """Resolve a cell to an image, or return why that is not possible.

    Args:
        value: The cell: a path relative to `base`, an absolute one, a URL, a `data:` URI, bytes, also in base64, or
            `{"bytes", "path"}`.
        base: URL of the table's folder, without a trailing slash.
    """
    if isinstance(value, Mapping):
        inner = value.get("bytes") or value.get("path")
        if isinstance(inner, Mapping):
            return "the image is a nested object, not a path, a URL or bytes"
        return _decode_base64(inner) if isinstance(inner, str) and value.get("bytes") else resolve_image_reference(inner, base)
    if isinstance(value, (bytes, bytearray)):
        return ResolvedImage(None, InlineBytes(bytes(value))) if value else "the image is empty (0 bytes)"
    if value is None or value == "":
        return "no image in this row"
    if not isinstance(value, str):
        return f"the image is of type {type(value).__name__}, not a path, a URL or bytes"
    text = value.strip()
    if data := _DATA_URI.match(text):
        return _decode_base64(text[data.end() :])
    return _decode_base64("".join(text.split())) if _BASE64_IMAGE.match(text) else _resolve_text(text, base)


def is_inline_image(text: str) -> bool:
    """Return whether a text is an image itself: a `data:` URI, or base64."""
    return bool(_DATA_URI.match(text) or _BASE64_IMAGE.match(text))


def _resolve_text(text: str, base: str) -> ResolvedImage | str:
    if len(text) > MAX_REFERENCE_CHARS:
        return f"a text of {len(text):,} characters, not a path, a URL or bytes"
    scheme = get_scheme(text)
    if scheme in ("http", "https"):
        return find_credentials_error(text) or ResolvedImage(strip_credentials(text), UrlLocator(text))
    if scheme in TABLE_SCHEMES:
        locator = ObjectLocator.from_url(text)
        return ResolvedImage(locator.uri, locator)
    if scheme not in ("", "file"):
        return f"scheme {scheme}:// is not allowed in lists and tables"
    return _resolve_path(text, scheme, base)


def _resolve_path(text: str, scheme: str, base: str) -> ResolvedImage | str:
    if "\0" in text:
        return "the path contains a NUL character"
    if not base.startswith("file://"):
        if scheme or text.startswith("/") or ".." in text.split("/"):
            return "a remote table can only reference URLs and paths below its own folder"
        if get_scheme(base) in ("http", "https"):
            return ResolvedImage(strip_credentials(f"{base}/{text}"), UrlLocator(f"{base}/{text}"))
        locator = ObjectLocator.from_url(f"{base}/{text}")
        return ResolvedImage(locator.uri, locator)
    try:
        path = from_file_uri(text) if scheme else from_file_uri(base) / os.path.expanduser(text)  # noqa: PTH111
        uri = to_file_uri(path)
    except (OSError, ValueError, RuntimeError) as error:
        return f"not a path: {error}"
    try:
        return ResolvedImage(uri, FileLocator(uri), get_file_version(os.stat(path)))  # noqa: PTH116
    except OSError:
        return ResolvedImage(uri, FileLocator(uri))  # reading it reports the reason


def _decode_base64(text: str) -> ResolvedImage | str:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return "not base64"
    return ResolvedImage(None, InlineBytes(data)) if data else "the image is empty (0 bytes)"
