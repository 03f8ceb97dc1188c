"""Resolve an entry of a list or table to a locator: a path, a URL, or the bytes themselves."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stair_es.sources.item import Place
from stair_es.sources.limits import REFERENCE_CHARS
from stair_es.sources.local_file import FileAt, Inline
from stair_es.sources.object_places import ObjectAt
from stair_es.sources.paths import file_version, path_of, scheme_of, uri_of
from stair_es.sources.remote import clean
from stair_es.sources.web.fetch import UrlAt
from stair_es.sources.web.text import with_login

STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hf", "memory"})
"""Schemes allowed in tables. Not all that fsspec supports: an untrusted table must not make us log in to servers."""
_DATA = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)


@dataclass(frozen=True)
class Referred:
    """An image named by a row. `uri` is None for bytes: they are identified by their row."""

    uri: str | None
    place: Place
    version: str | None = None


def refer(value: Any, base: str) -> Referred | str:  # noqa: ANN401  a value of any table
    """Resolve a cell to an image, or return why that is not possible.

    Args:
        value: The cell: a path relative to `base`, an absolute one, a URL, a `data:` URI, bytes, or `{"bytes", "path"}`.
        base: URL of the table's folder, without a trailing slash.
    """
    if isinstance(value, Mapping):
        inner = value.get("bytes") or value.get("path")
        if isinstance(inner, Mapping):
            return "the image is a nested object, not a path, a URL or bytes"
        return _decoded(inner) if isinstance(inner, str) and value.get("bytes") else refer(inner, base)
    if isinstance(value, (bytes, bytearray)):
        return Referred(None, Inline(bytes(value))) if value else "the image is empty (0 bytes)"
    if value is None or value == "":
        return "no image in this row"
    if not isinstance(value, str):
        return f"the image is of type {type(value).__name__}, not a path, a URL or bytes"
    text = value.strip()
    data = _DATA.match(text)
    return _decoded(text[data.end() :]) if data else _named(text, base)


def _named(text: str, base: str) -> Referred | str:
    if len(text) > REFERENCE_CHARS:
        return f"a text of {len(text):,} characters, not a path, a URL or bytes"
    scheme = scheme_of(text)
    if scheme in ("http", "https"):
        return with_login(text) or Referred(clean(text), UrlAt(text))
    if scheme in STORES:
        place = ObjectAt.of(text)
        return Referred(place.uri, place)
    if scheme not in ("", "file"):
        return f"scheme {scheme}:// is not allowed in lists and tables"
    return _path(text, scheme, base)


def _path(text: str, scheme: str, base: str) -> Referred | str:
    if "\0" in text:
        return "a NUL character is in the path"
    if not base.startswith("file://"):
        if scheme or text.startswith("/") or ".." in text.split("/"):
            return "a remote table can reference URLs and paths below its own folder only"
        if scheme_of(base) in ("http", "https"):
            return Referred(clean(f"{base}/{text}"), UrlAt(f"{base}/{text}"))
        place = ObjectAt.of(f"{base}/{text}")
        return Referred(place.uri, place)
    try:
        path = path_of(text) if scheme else path_of(base) / os.path.expanduser(text)  # noqa: PTH111
        uri = uri_of(path)
        return Referred(uri, FileAt(uri), file_version(os.stat(path)))  # noqa: PTH116
    except OSError:
        return Referred(uri, FileAt(uri))  # reading it reports the reason
    except (ValueError, RuntimeError) as error:
        return f"not a path: {error}"


def _decoded(text: str) -> Referred | str:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return "not base64"
    return Referred(None, Inline(data)) if data else "the image is empty (0 bytes)"
