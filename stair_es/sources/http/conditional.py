"""The version of an HTTP resource from its validators, as text that can be stored and sent back in a conditional request."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

from stair_es.sources.io.uris import format_modification_time

_PREFIX = "http1"
_MAX_VALIDATOR_CHARS = 256


def build_response_version(url: str, headers: Mapping[str, str]) -> str | None:
    """Return the version of what was fetched from `url` (after redirects), or None if the server sends no usable validator.

    Uses the ETag, also a weak one: it promises the same picture, if not the same bytes. Otherwise Last-Modified and the length.
    """
    etag, modified = headers.get("etag", ""), headers.get("last-modified", "")
    if etag.removeprefix("W/").startswith('"') and _is_sendable(etag):
        return f"{_PREFIX}:{_hash_url(url)}:{etag}"
    if _is_sendable(modified) and _is_settled(modified, headers.get("date", "")):
        return f"{_PREFIX}:{_hash_url(url)}:{modified};{headers.get('content-length', '')}"
    return None


def get_last_modified(headers: Mapping[str, str]) -> str | None:
    """Return the time of the last modification reported by the server; None if it is missing or not in HTTP's format."""
    modified = _parse_date(headers.get("last-modified", ""))
    return format_modification_time(modified) if modified else None


def build_conditional_headers(url: str, known_version: str | None) -> dict[str, str]:
    """Return headers that make the server of `url` answer 304 if version `known_version` of this resource is still current."""
    prefix, _, rest = (known_version or "").partition(":")
    digest, _, validator = rest.partition(":")
    if prefix != _PREFIX or digest != _hash_url(url) or not _is_sendable(validator):
        return {}
    if validator.removeprefix("W/").startswith('"'):
        return {"If-None-Match": validator}
    return {"If-Modified-Since": validator.rpartition(";")[0]}


def _hash_url(url: str) -> str:
    """Hash the URL: a redirect may lead elsewhere tomorrow, where the same ETag means another picture."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def _is_sendable(text: str) -> bool:
    return 0 < len(text) <= _MAX_VALIDATOR_CHARS and text.isascii() and text.isprintable()


def _is_settled(modified: str, date: str) -> bool:
    """Return whether the file was unchanged for a second: within one second it may change again under the same date."""
    sent_at, modified_at = _parse_date(date), _parse_date(modified)
    try:
        return bool(sent_at and modified_at and (sent_at - modified_at).total_seconds() >= 1)
    except TypeError:  # one has a time zone, the other hasn't
        return False


def _parse_date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
