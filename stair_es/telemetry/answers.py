"""What counting and tracing ask of HTTP requests: those of the page and their answers, and those to the cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import unquote

from stair_es.web.watch import PATTERN

if TYPE_CHECKING:
    from starlette.types import Message, Scope, Send

    from stair_es.cluster.transport import Asked, Watch

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})

Timed = Callable[["Asked", str, float], None]
"""Gets a request that is over, its operation, and its seconds."""


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


def timed(watch: Timed) -> Watch:
    """Times each request."""

    @contextmanager
    def around(asked: Asked) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            watch(asked, operation_of(asked)[0], time.perf_counter() - start)

    return around


def failed(asked: Asked) -> bool:
    """Whether a request that is over failed. 404 is an answer: there is no such index, or document."""
    return asked.status is None or (asked.status >= 400 and asked.status != 404)


def operation_of(asked: Asked) -> tuple[str, str]:
    """What a request does, as `search`, and the index, alias or list of them that it names, or nothing.

    The first word of the cluster's own in the path: ids of documents and tasks come after it, and make no name.
    """
    parts = [unquote(part) for part in asked.path.split("/") if part]
    names = [part for part in parts if part.startswith("_")]
    target = parts[0] if parts and not parts[0].startswith("_") else ""
    return (names[0].lstrip("_") if names else "indices" if target else "info"), target
