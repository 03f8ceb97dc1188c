"""The application, put together."""

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
from stair_es.web.gate import Busy, Gate
from stair_es.web.limits import Limits
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
    """What is to be served."""

    connection: Connection
    index: str
    load: Callable[[Known], Encoder]
    """Gives the encoder to ask the index with, once it was seen: see `search.index_model`."""
    roots: Roots = field(default_factory=Roots)
    limits: Limits = field(default_factory=Limits)
    title: str = ""
    watch: Watch = field(default_factory=Unwatched)
    further: tuple[Route, ...] = ()
    """Routes besides the page's own, behind the same guard."""


def application(site: Site, client: OpenSearch, guard: Guard, port: int, say: Callable[[str], None]) -> ASGIApp:
    """The page of an index.

    Args:
        site: What is served.
        client: Of its connection.
        guard: What is asked of a request.
        port: Where it is served.
        say: Takes what the operator should know.

    Raises:
        StairError: The index can't be searched, or its model not loaded.
    """
    limits, log = site.limits, Log(say, site.connection.redact)
    gate = Gate(limits.at_once, limits.waiting, limits.wait_s)
    views = Views(client, site.connection, site.index, site.load)
    views.now()
    engine = Engine(
        client, site.connection, site.index, views=views, gate=gate, limits=limits, roots=site.roots, watch=site.watch
    )
    thumbs = Thumbs(client, site.connection, site.index, roots=site.roots, gate=gate, limits=limits, watch=site.watch)

    def ours(request: Request, error: Exception) -> Response:
        if not isinstance(error, StairError):
            raise error
        fault = fault_of(error, site.connection)
        if fault.status >= 500:
            log(f"{error.message} {error.remedy}")
        return _answer(fault)

    def unexpected(request: Request, error: Exception) -> Response:
        log(f"{request.url.path!r}: {type(error).__name__}: {error}")
        return _answer(Fault(status=500, error="something went wrong here", remedy="The server's log says more."))

    app = Starlette(
        routes=[*Routes(engine, thumbs, limits, site.title, site.watch).all(), *site.further],
        exception_handlers={StairError: ours, Refused: _refused, Busy: _busy, HTTPException: _http, Exception: unexpected},
    )
    return Guarded(app, guard, port)


class Log:
    """Says what goes wrong, and the same only from time to time: a cluster that is away would fill the terminal."""

    def __init__(self, say: Callable[[str], None], redact: Callable[[str], str]) -> None:
        """Nothing is said yet."""
        self._say, self._redact = say, redact
        self._last: tuple[str, float] = ("", 0.0)

    def __call__(self, text: str) -> None:
        """Say it."""
        last, then_s = self._last
        if text != last or time.monotonic() - then_s > _QUIET_S:
            self._last = (text, time.monotonic())
            self._say(self._redact(text))


def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, Refused):
        raise error
    return _answer(error.fault)


def _busy(request: Request, error: Exception) -> Response:
    headers = {"retry-after": str(AGAIN_S)}
    return _answer(Fault(status=429, error="too much is asked at once", remedy="Try again in a moment.", headers=headers))


def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    said = {404: "there is no such page", 405: "there is no such method here"}.get(error.status_code, error.detail)
    return _answer(Fault(status=error.status_code, error=said, headers=dict(error.headers or {})))


def _answer(fault: Fault) -> Response:
    return Response(
        encoded(fault.to_json()), status_code=fault.status, media_type="application/json", headers=dict(fault.headers)
    )
