"""Listening socket and uvicorn server."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stair_es.errors import UsageError
from stair_es.web.auth import HEALTH_PATH
from stair_es.web.errors import ErrorResponse
from stair_es.web.limits import TooManyRequests
from stair_es.web.search.serializers import encode_json

if TYPE_CHECKING:
    from types import FrameType

    from starlette.types import ASGIApp, Receive, Scope, Send
    from uvicorn import Server

DEFAULT_PORT = 8077
_MAX_PORTS_TRIED = 20
_MAX_REQUESTS = 512
"""More than the encoder queues by default, so that its queue rejects requests and its metrics count them."""
_MAX_CONNECTIONS = 800
"""Below the 1,024 files that a process may usually open. uvicorn rejects all requests above it, also those to `/health`."""
_SHUTDOWN_TIMEOUT_S = 3
_DRAIN_TIMEOUT_S = 25.0
"""Kubernetes kills a container 30 s after SIGTERM."""
_HEAD_TIMEOUT_S = 10.0
"""Timeout for the head of a request: connections that never complete one would use up all connection slots."""


@contextmanager
def bind_socket(host: str, port: int | None) -> Iterator[tuple[socket.socket, int]]:
    """Bind a listening socket; yield it and its port.

    Args:
        host: The address to listen on.
        port: The port; 0 for any free one, None for the first free one from `DEFAULT_PORT` on.

    Raises:
        UsageError: If the port is in use, or the host is not an address of this machine.
    """
    ports = [port] if port is not None else list(range(DEFAULT_PORT, DEFAULT_PORT + _MAX_PORTS_TRIED))
    for candidate in ports:
        try:
            sock = _bind(host, candidate)
            break
        except OSError as error:
            if error.errno != errno.EADDRINUSE or candidate == ports[-1]:
                raise _build_bind_error(host, candidate, error) from None
    with sock:
        yield sock, int(sock.getsockname()[1])


def _bind(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(128)
    except OSError:
        sock.close()
        raise
    return sock


def _build_bind_error(host: str, port: int, error: OSError) -> UsageError:
    if error.errno == errno.EADDRINUSE:
        return UsageError(f"port {port} of {host} is in use", "Choose another one with --port, or any free one with --port 0.")
    if error.errno == errno.EACCES:
        return UsageError(f"no permission to listen on port {port}", "Choose a port >= 1024.")
    return UsageError(f"can't listen on {host} port {port}: {error.strerror or error}", "Use an address of this machine.")


def build_page_url(host: str, port: int, root_path: str = "") -> str:
    """Build the URL of the server for clients on this machine."""
    url_host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{url_host}:{port}{root_path}/"


def _make_protocol() -> type[asyncio.Protocol]:
    """Make uvicorn's HTTP protocol with a timeout for the head of a request, which it lacks."""
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class HeadTimeoutProtocol(H11Protocol):
        head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # signature of uvicorn
            super().connection_made(transport)
            self.start_head_timer()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is h11.IDLE:
                self.start_head_timer()
            else:
                self.stop_head_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self.stop_head_timer()
            super().connection_lost(exc)

        def start_head_timer(self) -> None:
            if self.head_timer is None:
                self.head_timer = self.loop.call_later(_HEAD_TIMEOUT_S, self.transport.close)

        def stop_head_timer(self) -> None:
            if self.head_timer is not None:
                self.head_timer.cancel()
                self.head_timer = None

    return HeadTimeoutProtocol


class AdmissionMiddleware:
    """ASGI middleware that counts the requests in progress, and rejects new ones if they are many, or the server drains."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._in_progress = 0
        self._deadline_s: float | None = None

    @property
    def is_draining(self) -> bool:
        """Whether new requests are rejected."""
        return self._deadline_s is not None

    @property
    def is_drained(self) -> bool:
        """Whether the server drains, and no request is in progress any more, or they have taken too long."""
        return self._deadline_s is not None and (not self._in_progress or time.monotonic() > self._deadline_s)

    def start(self) -> None:
        """Start to reject new requests, `/health` among them. Can be called from a signal handler."""
        self._deadline_s = time.monotonic() + _DRAIN_TIMEOUT_S

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI scope."""
        rejection = self._get_rejection(scope["path"]) if scope["type"] == "http" else None
        if rejection is not None:
            headers = {"content-type": "application/json", "connection": "close", **rejection.build_headers()}
            raw_headers = [(name.encode(), value.encode()) for name, value in headers.items()]
            await send({"type": "http.response.start", "status": rejection.status, "headers": raw_headers})
            await send({"type": "http.response.body", "body": encode_json(rejection.to_json())})
            return
        self._in_progress += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_progress -= 1

    def _get_rejection(self, path: str) -> ErrorResponse | None:
        if self.is_draining:
            return ErrorResponse(status=503, error="the server is shutting down", remedy="Send the request to another one.")
        if self._in_progress >= _MAX_REQUESTS and path != HEALTH_PATH:  # a probe that failed would end a busy server
            return TooManyRequests().response
        return None


def create_server(app: ASGIApp, ready: Callable[[], None]) -> Server:
    """Create a server; `run(sockets=[...])` serves until a signal or `should_exit`.

    After SIGTERM it finishes the requests that it has, rejects others, and returns. A second one ends it at once.

    Args:
        app: The application.
        ready: Called when the server accepts requests.
    """
    import uvicorn

    draining_app = AdmissionMiddleware(app)

    class DrainingServer(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if sig == signal.SIGTERM and not draining_app.is_draining:
                draining_app.start()
            else:
                super().handle_exit(sig, frame)

        async def on_tick(self, counter: int) -> bool:
            return await super().on_tick(counter) or draining_app.is_drained

    return DrainingServer(
        uvicorn.Config(
            draining_app,
            http=_make_protocol(),
            ws="none",
            lifespan="off",
            log_config=None,  # keep the logging of the process, which may write JSON
            log_level="error",
            access_log=False,  # it would contain tokens
            server_header=False,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
        )
    )
