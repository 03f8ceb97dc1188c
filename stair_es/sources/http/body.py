"""Read a response body within a size limit, regardless of the declared length."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping

from stair_es.errors import ReadError


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
        raise ReadError(f"{declared} bytes exceed the limit of {max_bytes}")
    if encoding in ("", "identity"):
        return _read_limited(chunks, max_bytes)
    if encoding in ("gzip", "x-gzip", "deflate"):
        return _read_limited(_decompress_chunks(chunks, max_bytes), max_bytes)
    raise ReadError(f"sent in an encoding that was not requested: {encoding[:40]!r}")


def _read_limited(chunks: Iterable[bytes], max_bytes: int) -> bytes:
    # one buffer: with a list of chunks, a server that sends single bytes would cost fifty times the memory
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > max_bytes:
            raise ReadError(f"more than the limit of {max_bytes} bytes")
    return bytes(body)


def _decompress_chunks(chunks: Iterable[bytes], max_bytes: int) -> Iterable[bytes]:
    """Yield at most one byte more than allowed, so that a decompression bomb is detected before it fills the memory."""
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: gzip or zlib by their header
    remaining, received = max_bytes + 1, 0
    for chunk in chunks:
        received += len(chunk)
        if received > max_bytes:
            raise ReadError(f"more than the limit of {max_bytes} bytes")
        try:
            data = inflater.decompress(chunk, remaining)
        except zlib.error as error:
            raise ReadError(f"declared as compressed, but isn't: {error}") from error
        remaining -= len(data)
        yield data
        if remaining <= 0:
            return
    if not inflater.eof:
        raise TruncatedBodyError
