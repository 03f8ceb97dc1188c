"""Read an HTTP response: its body within a size limit, and its version for a conditional request."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

from stair_es.errors import ReadError
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


class TruncatedBodyError(Exception):
    """The compressed body ended prematurely."""


def read_body(chunks: Iterable[bytes], headers: Mapping[str, str], max_bytes: int) -> bytes:
    """Return the body, decompressed if the server compressed it without being asked to.

    Raises:
        ReadError: If it exceeds `max_bytes`, as sent or decompressed, or has an encoding that was not requested.
        TruncatedBodyError: If a compressed body ends prematurely.
    """
    encoding = headers.get("content-encoding", "").strip().lower()
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise ReadError(f"{declared} bytes exceed the limit of {max_bytes}", code="file-too-large")
    if encoding in ("", "identity"):
        return _read_limited(chunks, max_bytes)
    if encoding in ("gzip", "x-gzip", "deflate"):
        return _read_limited(_decompress_chunks(chunks, max_bytes), max_bytes)
    raise ReadError(f"sent in an encoding that was not requested: {encoding[:40]!r}", code="unrequested-encoding")


def _read_limited(chunks: Iterable[bytes], max_bytes: int) -> bytes:
    # one buffer: with a list of chunks, a server that sends single bytes would cost fifty times the memory
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > max_bytes:
            raise ReadError(f"more than the limit of {max_bytes} bytes", code="file-too-large")
    return bytes(body)


def _decompress_chunks(chunks: Iterable[bytes], max_bytes: int) -> Iterable[bytes]:
    """Yield at most one byte more than allowed, so that a decompression bomb is detected before it fills the memory."""
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: gzip or zlib by their header
    remaining, received = max_bytes + 1, 0
    for chunk in chunks:
        received += len(chunk)
        if received > max_bytes:
            raise ReadError(f"more than the limit of {max_bytes} bytes", code="file-too-large")
        try:
            data = inflater.decompress(chunk, remaining)
        except zlib.error as error:
            raise ReadError(f"declared as compressed, but isn't: {error}", code="not-compressed-as-declared") from error
        remaining -= len(data)
        yield data
        if remaining <= 0:
            return
    if not inflater.eof:
        raise TruncatedBodyError
