"""The ASGI applications: the page, and the encoder."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.errors import StairError, UsageError
from stair_es.ingest.sinks.live import LiveIndex
from stair_es.search.index_cache import create_state_cache
from stair_es.web.auth import AccessMiddleware, AccessPolicy
from stair_es.web.config import AppConfig, ServerConfig
from stair_es.web.encoding.documents import DocumentService
from stair_es.web.encoding.routes import EncodingRoutes
from stair_es.web.encoding.service import EncodingService, EncodingTarget, follow_index, measure_char_s
from stair_es.web.errors import ErrorResponse, RequestRejected, build_error_response
from stair_es.web.limits import ConcurrencyLimiter
from stair_es.web.routes import PageRoutes
from stair_es.web.search.service import SearchService
from stair_es.web.search.teaching import TeachingService
from stair_es.web.thumbnails import ThumbnailService

logger = logging.getLogger(__name__)

_REPEAT_AFTER_S = 10.0


def create_app(config: ServerConfig, cluster: Cluster, policy: AccessPolicy, port: int) -> ASGIApp:
    """Create the application of the page for an index, with the routes of the encoder.

    Raises:
        StairError: If the index can't be searched, or its model can't be loaded.
    """
    limits = config.limits
    limiter = ConcurrencyLimiter(limits.max_concurrent, limits.max_waiting, limits.wait_s)
    states = create_state_cache(cluster, config.index, config.load_encoder)
    model = states.get().info.model
    if config.coverage and (difference := config.coverage.find_difference(config.index, model)):
        logger.warning(difference)
    service, thumbnails = SearchService(config, cluster, states, limiter), ThumbnailService(config, cluster, limiter)
    encoding = EncodingService(config, follow_index(states, service.runner), limiter)
    # With turns of its own: a slow cluster must not hold those of encoding.
    lessons = ConcurrencyLimiter(1, limits.max_waiting, limits.wait_s)
    teaching = TeachingService(config.index, cluster, states, service, lessons) if config.teach else None
    routes = [*PageRoutes(config, service, thumbnails, teaching).list_routes(), *EncodingRoutes(config, encoding).list_routes()]
    return _build_app(config, routes, cluster.connection, policy, port)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(AppConfig):
    """The configuration of an encoder without a page."""

    get_target: Callable[[], EncodingTarget]
    connection: Connection | None = None
    """The connection to the cluster of the index that is followed, or of those that are written."""
    write_indices: Mapping[str, LiveIndex] = field(default_factory=dict)
    """The indices that `/v1/documents` may write, by alias."""
    allow_private_urls: bool = False
    """Whether `/v1/documents` fetches URLs of loopback, private and link-local addresses."""


def create_encoder_app(config: EncoderConfig, policy: AccessPolicy, port: int) -> ASGIApp:
    """Create the application of the encoder. Its text network is loaded, and ready."""
    char_s = measure_char_s(config.get_target().encoder)
    encoding = EncodingService(config, config.get_target, char_s=char_s)
    documents = DocumentService(config, encoding, config.write_indices, allow_private_urls=config.allow_private_urls)
    return _build_app(config, EncodingRoutes(config, encoding, documents).list_routes(), config.connection, policy, port)


def _build_app(
    config: AppConfig, routes: Sequence[Route], connection: Connection | None, policy: AccessPolicy, port: int
) -> ASGIApp:
    log = ThrottledLog(connection.redact if connection else str)
    handle_error = partial(_respond_to_error, connection=connection, log=log)
    kinds = (StairError, RequestRejected, HTTPException, Exception)
    app = Starlette(routes=[*routes, *config.extra_routes], exception_handlers=dict.fromkeys(kinds, handle_error))
    app.router.redirect_slashes = False  # to an address without the root path, and with the scheme that a proxy uses
    return RootPathMiddleware(AccessMiddleware(app, policy, port, config.root_path), config.root_path)


class ThrottledLog:
    """Log that repeats the same message at most every 10 s, so that an unreachable cluster doesn't flood the terminal."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact
        self._last: tuple[str, float] = ("", 0.0)

    def __call__(self, message: str) -> None:
        """Log a message."""
        last, last_s = self._last
        if message != last or time.monotonic() - last_s > _REPEAT_AFTER_S:
            self._last = (message, time.monotonic())
            logger.warning(self._redact(message))


def _respond_to_error(request: Request, error: Exception, *, connection: Connection | None, log: ThrottledLog) -> Response:
    """Build the response for any exception of a route; log those that are not the client's fault."""
    if isinstance(error, RequestRejected):
        rejection = error.response
    elif isinstance(error, HTTPException):
        message = {404: "page not found", 405: "method not allowed"}.get(error.status_code, error.detail)
        code = "no-such-page" if error.status_code == 404 else ""
        rejection = ErrorResponse(error.status_code, message, headers=error.headers or {}, code=code)
    elif isinstance(error, StairError):
        rejection = build_error_response(error, connection)
        if rejection.status >= 500:
            log(f"{error.code}: {error.message} {error.remedy}")
    else:
        log(f"{request.url.path!r}: {type(error).__name__}: {error}")
        rejection = ErrorResponse(500, "internal server error", "See the log of the server.", code="internal-error")
    return rejection.build_response()


_SEGMENT = re.compile(r"(?!\.{1,2}$)[\w.~-]+", re.ASCII)
_OWN_SEGMENTS = frozenset(
    {
        "api",
        "compare",
        "coverage",
        "embed",
        "embed_all",
        "embed_sparse",
        "health",
        "image",
        "info",
        "metrics",
        "original",
        "predict",
        "rerank",
        "similarity",
        "static",
        "thumb",
        "v1",
    }
)
"""First segments of the server's own paths: below one of them a stripped path would look like one that still has the prefix."""


def parse_root_path(text: str) -> str:
    """Parse a root path: return it with one slash in front and none at its end; empty for the root itself.

    Raises:
        UsageError: If it isn't a path, needs percent-encoding, or begins like a path of the server.
    """
    path = text.strip("/")
    if not path:
        return ""
    segments = path.split("/")
    if not all(map(_SEGMENT.fullmatch, segments)):
        raise UsageError(
            f"{text[:80]!r} is not a root path",
            "Write a path such as /images, of letters, digits and . _ ~ -, without a host.",
            code="invalid-root-path",
        )
    if segments[0] in _OWN_SEGMENTS:
        raise UsageError(
            f"the root path can't begin with /{segments[0]}: the server has paths of that name",
            "Choose another one.",
            code="reserved-root-path",
        )
    return f"/{path}"


class RootPathMiddleware:
    """ASGI middleware that strips the root path from requests that have it, so that other code sees the server's own paths.

    The root path is the one below which a proxy shows the page. Requests come without it if the proxy strips it.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        """Wrap an application; `root_path` is as `parse_root_path` returns it."""
        self._app, self._root_path = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI scope."""
        if scope["type"] == "http" and self._root_path:
            # Both paths or none: routes read the one, ids the other. The prefix itself is never percent-encoded.
            raw_path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
            if raw_path == self._root_path or raw_path.startswith(f"{self._root_path}/"):
                raw_path, path = (value[len(self._root_path) :] or "/" for value in (raw_path, scope["path"]))
                scope.update(path=path, raw_path=raw_path.encode("latin-1"))  # in place: metrics read the route from it
        await self._app(scope, receive, send)
