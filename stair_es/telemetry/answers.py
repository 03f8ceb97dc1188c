"""What counting and tracing ask of an ASGI request and its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stair_es.web.watch import PATTERN

if TYPE_CHECKING:
    from starlette.types import Message, Scope, Send

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})


def method_of(scope: Scope) -> str:
    """Its method; `_OTHER` for one that somebody made up, since each value of a label takes memory for good."""
    method = str(scope["method"])
    return method if method in _METHODS else "_OTHER"


def pattern_of(scope: Scope) -> str | None:
    """The path of the route that answered, as `/api/image/{id}`; None before the answer, and where no route did."""
    found = scope.get(PATTERN)
    return str(found) if found else None


class Answer:
    """An ASGI `send` that remembers the status."""

    def __init__(self, send: Send) -> None:
        """Nothing is sent yet."""
        self._send = send
        self.status = 500
        """What uvicorn answers where nothing was sent."""

    async def __call__(self, message: Message) -> None:
        """As ASGI has it."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)
