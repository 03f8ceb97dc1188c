"""Read request bodies with limits. Bytes are counted as they arrive: `Content-Length` can be missing or wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from starlette.requests import ClientDisconnect, Request

from stair_es.web.errors import RequestRejected
from stair_es.web.limits import TooManyRequests

if TYPE_CHECKING:
    from stair_es.web.limits import ServerLimits


class BodyReader:
    """Reader for request bodies that limits their total memory. For one event loop."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits, self._held_bytes = limits, 0

    @asynccontextmanager
    async def __call__(self, request: Request, max_bytes: int) -> AsyncIterator[bytes]:
        """Read the whole body, which counts as held until the end of the `async with`.

        Raises:
            RequestRejected: If it is larger than `max_bytes`, takes too long, or ends early.
            TooManyRequests: If all bodies together exceed the limit.
        """
        chunks: list[bytes] = []
        held_bytes = 0
        try:
            try:
                await self._read_parts(chunks, request, max_bytes)
            finally:
                held_bytes = sum(map(len, chunks))
            yield _join_and_clear(chunks)
        finally:
            self._held_bytes -= held_bytes

    async def _read_parts(self, chunks: list[bytes], request: Request, max_bytes: int) -> None:
        too_large = RequestRejected(413, f"the body is larger than {max_bytes:,} bytes", "Send a smaller body.")
        if _get_content_length(request) > max_bytes:
            raise too_large
        size = 0
        try:
            with anyio.fail_after(self._limits.upload_s):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > max_bytes:
                        raise too_large
                    chunks.append(chunk)
                    self._held_bytes += len(chunk)
                    if self._held_bytes > self._limits.max_held_bytes:
                        raise TooManyRequests
        except TimeoutError:
            raise RequestRejected(408, "the body took too long to arrive", "Try again.") from None
        except ClientDisconnect:
            raise RequestRejected(400, "the body is incomplete") from None


def _join_and_clear(chunks: list[bytes]) -> bytes:
    body = b"".join(chunks)
    chunks.clear()
    return body


def get_media_type(request: Request) -> str:
    """Return the media type of a body in lower case, without parameters; empty if the request doesn't tell it."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def check_json_type(request: Request) -> None:
    """Check that the content type is plain JSON, which another site can't send without a CORS preflight.

    Raises:
        RequestRejected: If it isn't.
    """
    if get_media_type(request) != "application/json":
        raise RequestRejected(415, "the body is not JSON", "Send it as Content-Type: application/json.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestRejected(415, "the body is compressed", "Send it without Content-Encoding.")


def _get_content_length(request: Request) -> int:
    header = request.headers.get("content-length", "")
    return int(header) if header.isdecimal() and len(header) < 20 else 0
