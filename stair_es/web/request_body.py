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

_DISCARD_FACTOR = 4
"""Up to this multiple of the limit is read and discarded: a client that is still sending doesn't read the response."""
_CLOSE = {"connection": "close"}


class BodyReader:
    """Reader for request bodies that limits their total memory. For one event loop."""

    def __init__(self, limits: ServerLimits) -> None:
        """Create a reader with the limits of the server."""
        self._limits, self._held_bytes = limits, 0

    @asynccontextmanager
    async def __call__(self, request: Request, most: int) -> AsyncIterator[bytes]:
        """Read the whole body, which counts as held until the end of the `async with`.

        Args:
            request: The request.
            most: The maximum size, in bytes.

        Raises:
            RequestRejected: If it is larger than `most`, takes too long, or ends early.
            TooManyRequests: If all bodies together exceed the limit.
        """
        parts: list[bytes] = []
        try:
            await self._read_parts(parts, request, most)
            yield b"".join(parts)
        finally:
            self._held_bytes -= sum(map(len, parts))

    async def _read_parts(self, parts: list[bytes], request: Request, most: int) -> None:
        too_large = RequestRejected(413, f"the body is larger than {most:,} bytes", "Send a smaller body.", _CLOSE)
        if _get_content_length(request) > _DISCARD_FACTOR * most:
            raise too_large
        size = 0
        try:
            with anyio.fail_after(self._limits.upload_s):
                async for part in request.stream():
                    size += len(part)
                    if size > _DISCARD_FACTOR * most:
                        raise too_large
                    if size <= most:
                        parts.append(part)
                        self._held_bytes += len(part)
                    if self._held_bytes > self._limits.max_held_bytes:
                        raise TooManyRequests
        except TimeoutError:
            raise RequestRejected(408, "the body took too long to arrive", "Try again.", _CLOSE) from None
        except ClientDisconnect:
            raise RequestRejected(400, "the body is incomplete") from None
        if size > most:
            raise too_large


def _get_content_length(request: Request) -> int:
    header = request.headers.get("content-length", "")
    return int(header) if header.isdecimal() and len(header) < 20 else 0
