"""Bodies of requests: counted as they come, since what the headers say of their length may be missing or wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from starlette.requests import ClientDisconnect, Request

from stair_es.web.faults import Refused
from stair_es.web.gate import Busy

if TYPE_CHECKING:
    from stair_es.web.limits import Limits

_PATIENCE = 4
"""Of a body that is too large, up to so many times as much is read and forgotten: who still sends doesn't hear the answer."""
_CLOSE = {"connection": "close"}


class Intake:
    """Takes bodies in, and no more at a time than the memory is meant for. Lives in one event loop."""

    def __init__(self, limits: Limits) -> None:
        """Nothing is taken yet."""
        self._limits, self._held = limits, 0

    @asynccontextmanager
    async def __call__(self, request: Request, most: int) -> AsyncIterator[bytes]:
        """The whole body, which counts as held until the end of the `async with`.

        Raises:
            Refused: It is larger than `most`, takes too long, or ends early.
            Busy: Too much is held already.
        """
        parts: list[bytes] = []
        try:
            await self._fill(parts, request, most)
            yield b"".join(parts)
        finally:
            self._held -= sum(map(len, parts))

    async def _fill(self, parts: list[bytes], request: Request, most: int) -> None:
        too_large = Refused(413, f"the body is larger than {most:,} bytes", "Send less.", _CLOSE)
        if _said(request) > _PATIENCE * most:
            raise too_large
        size = 0
        try:
            with anyio.fail_after(self._limits.upload_s):
                async for part in request.stream():
                    size += len(part)
                    if size > _PATIENCE * most:
                        raise too_large
                    if size <= most:
                        parts.append(part)
                        self._held += len(part)
                    if self._held > self._limits.held_bytes:
                        raise Busy
        except TimeoutError:
            raise Refused(408, "the body takes too long to arrive", "Try again.", _CLOSE) from None
        except ClientDisconnect:
            raise Refused(400, "the body is incomplete") from None
        if size > most:
            raise too_large


def _said(request: Request) -> int:
    said = request.headers.get("content-length", "")
    return int(said) if said.isdecimal() and len(said) < 20 else 0
