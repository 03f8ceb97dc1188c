"""HTTP helpers for metrics and traces: requests to the server and their responses, and requests to the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from stair_es.web.hooks import ROUTE_PATTERN_KEY

if TYPE_CHECKING:
    from starlette.types import Message, Scope, Send

    from stair_es.cluster.client.transport import OutgoingRequest

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})


def get_method_label(scope: Scope) -> str:
    """Return the method of a request; `_OTHER` for a non-standard one, since each value of a label uses memory permanently."""
    method = str(scope["method"])
    return method if method in _METHODS else "_OTHER"


def get_route_pattern(scope: Scope) -> str | None:
    """Return the path of the matched route, as `/api/image/{id}`; None before the response, and if no route matched."""
    pattern = scope.get(ROUTE_PATTERN_KEY)
    return str(pattern) if pattern else None


class StatusRecorder:
    """An ASGI `send` that records the status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 500
        """Uvicorn's response if nothing is sent."""

    async def __call__(self, message: Message) -> None:
        """Send an ASGI message."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


def is_failed_request(request: OutgoingRequest) -> bool:
    """Return whether a finished request failed. 404 is a valid response: no such index or document."""
    return request.status is None or (request.status >= 400 and request.status != 404)


def parse_operation(request: OutgoingRequest) -> tuple[str, str]:
    """Return the operation of a request, as `search`, and the index, alias or list of them in its path, or "".

    The operation is the first path segment that begins with an underscore: later ones may be ids of documents and tasks.
    """
    parts = [unquote(part) for part in request.path.split("/") if part]
    names = [part for part in parts if part.startswith("_")]
    target = parts[0] if parts and not parts[0].startswith("_") else ""
    return (names[0].lstrip("_") if names else "indices" if target else "info"), target
