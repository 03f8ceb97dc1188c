"""The ASGI application."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response

from stair_es.errors import StairError
from stair_es.web.answers import encoded
from stair_es.web.engine import Engine
from stair_es.web.faults import AGAIN_S, Fault, Refused, fault_of
from stair_es.web.limits import Busy, Gate, Limits
from stair_es.web.originals import Roots
from stair_es.web.routes import Routes
from stair_es.web.security import Guard, Guarded
from stair_es.web.thumbs import Thumbs
from stair_es.web.view import Views
from stair_es.web.watch import Unwatched, Watch

if TYPE_CHECKING:
    from opensearchpy import OpenSearch
    from starlette.requests import Request
    from starlette.routing import Route
    from starlette.types import ASGIApp

    from stair_es.cluster.connect import Connection
    from stair_es.model.encoder import Encoder
    from stair_es.search.known import Known

_QUIET_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Site:
    """The configuration of the server."""

    connection: Connection
    index: str
    load: Callable[[Known], Encoder]
    """Loads the encoder for an index, given its info: see `search.index_encoder`."""
    roots: Roots = field(default_factory=Roots)
    limits: Limits = field(default_factory=Limits)
    title: str = ""
    watch: Watch = field(default_factory=Unwatched)
    further: tuple[Route, ...] = ()
    """Additional routes, under the same access policy."""


def application(site: Site, client: OpenSearch, guard: Guard, port: int, say: Callable[[str], None]) -> ASGIApp:
    """Create the application for an index.

    Args:
        site: The configuration.
        client: The client of its connection.
        guard: The access policy.
        port: The port, for the name of the cookie.
        say: Receives messages for the operator.

    Raises:
        StairError: If the index can't be searched, or its model can't be loaded.
    """
    limits, log = site.limits, Log(say, site.connection.redact)
    limiter = Gate(limits.at_once, limits.waiting, limits.wait_s)
    states = Views(client, site.connection, site.index, site.load)
    states.now()
    service = Engine(
        client, site.connection, site.index, views=states, gate=limiter, limits=limits, roots=site.roots, watch=site.watch
    )
    thumbnails = Thumbs(client, site.connection, site.index, roots=site.roots, gate=limiter, limits=limits, watch=site.watch)

    def ours(request: Request, error: Exception) -> Response:
        if not isinstance(error, StairError):
            raise error
        fault = fault_of(error, site.connection)
        if fault.status >= 500:
            log(f"{error.message} {error.remedy}")
        return _answer(fault)

    def unexpected(request: Request, error: Exception) -> Response:
        log(f"{request.url.path!r}: {type(error).__name__}: {error}")
        return _answer(Fault(status=500, error="internal server error", remedy="See the log of the server."))

    app = Starlette(
        routes=[*Routes(service, thumbnails, limits, site.title, site.watch).all(), *site.further],
        exception_handlers={StairError: ours, Refused: _refused, Busy: _busy, HTTPException: _http, Exception: unexpected},
    )
    return Guarded(app, guard, port)


class Log:
    """Log that repeats the same message at most every 10 s, so that an unreachable cluster doesn't flood the terminal."""

    def __init__(self, say: Callable[[str], None], redact: Callable[[str], str]) -> None:
        """Create the log.

        Args:
            say: Receives messages.
            redact: Removes credentials from a message.
        """
        self._say, self._redact = say, redact
        self._last: tuple[str, float] = ("", 0.0)

    def __call__(self, text: str) -> None:
        """Log a message."""
        last, then_s = self._last
        if text != last or time.monotonic() - then_s > _QUIET_S:
            self._last = (text, time.monotonic())
            self._say(self._redact(text))


def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, Refused):
        raise error
    return _answer(error.response)


def _busy(request: Request, error: Exception) -> Response:
    headers = {"retry-after": str(AGAIN_S)}
    return _answer(Fault(status=429, error="too many requests", remedy="Try again in a moment.", headers=headers))


def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    message = {404: "page not found", 405: "method not allowed"}.get(error.status_code, error.detail)
    return _answer(Fault(status=error.status_code, error=message, headers=dict(error.headers or {})))


def _answer(fault: Fault) -> Response:
    return Response(
        encoded(fault.to_json()), status_code=fault.status, media_type="application/json", headers=dict(fault.headers)
    )
