"""HTTP helpers for metrics and traces: requests to the server and their responses, and requests to the cluster."""

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
"""Called with a finished request, its operation, and its duration in seconds."""


def method_of(scope: Scope) -> str:
    """Return the method of a request; `_OTHER` for a non-standard one, since each value of a label uses memory permanently."""
    method = str(scope["method"])
    return method if method in _METHODS else "_OTHER"


def pattern_of(scope: Scope) -> str | None:
    """Return the path of the matched route, as `/api/image/{id}`; None before the response, and if no route matched."""
    found = scope.get(PATTERN)
    return str(found) if found else None


class Answer:
    """An ASGI `send` that records the status."""

    def __init__(self, send: Send) -> None:
        """Wrap `send`."""
        self._send = send
        self.status = 500
        """Uvicorn's response if nothing is sent."""

    async def __call__(self, message: Message) -> None:
        """Send an ASGI message."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


def timed(watch: Timed) -> Watch:
    """Build a request hook that times each request to the cluster."""

    @contextmanager
    def around(asked: Asked) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            watch(asked, operation_of(asked)[0], time.perf_counter() - start)

    return around


def failed(asked: Asked) -> bool:
    """Return whether a finished request failed. 404 is a valid response: no such index or document."""
    return asked.status is None or (asked.status >= 400 and asked.status != 404)


def operation_of(asked: Asked) -> tuple[str, str]:
    """Return the operation of a request, as `search`, and the index, alias or list of them in its path, or "".

    The operation is the first path segment that begins with an underscore: later ones may be ids of documents and tasks.
    """
    parts = [unquote(part) for part in asked.path.split("/") if part]
    names = [part for part in parts if part.startswith("_")]
    target = parts[0] if parts and not parts[0].startswith("_") else ""
    return (names[0].lstrip("_") if names else "indices" if target else "info"), target
