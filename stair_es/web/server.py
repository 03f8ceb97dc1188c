"""Listening socket and uvicorn server."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from stair_es.errors import UsageError
from stair_es.web.errors import ErrorResponse
from stair_es.web.hooks import HEALTH_PATH
from stair_es.web.limits import TooManyRequests

if TYPE_CHECKING:
    from types import FrameType

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

DEFAULT_PORT = 8077
_MAX_PORTS_TRIED = 20
_MAX_REQUESTS = 512
"""More than the encoder queues by default, so that its queue rejects requests and its metrics count them."""
_MAX_CONNECTIONS = 800
"""For another one, the server closes one that waits for its client."""
_OTHER_FILES = 224
"""Files that are not for connections: those of the cluster and the images, and `_BACKLOG` connections that aren't counted yet."""
_BACKLOG = 128
_SHUTDOWN_TIMEOUT_S = 3
_DRAIN_TIMEOUT_S = 25.0
"""Kubernetes kills a container 30 s after SIGTERM."""
_HEAD_TIMEOUT_S = 10.0
"""Timeout for the head of a request."""
_DISCARD_TIMEOUT_S = 30.0
"""Timeout for the rest of a body after the response: a client that is still sending doesn't read it."""
_DISCARD_PAUSE_S = 5.0
"""Timeout for the next byte of such a body."""
_MAX_DISCARD_BYTES = 128 * 1024 * 1024
_MIN_CHUNK_BYTES, _FREE_CHUNKS = 512, 2048
"""Minimum average size of the chunks of a body beyond the first ones: parsing one takes 6 microseconds of the event loop."""
_WRITE_TIMEOUT_S = 30.0
"""Timeout for a client that reads nothing of its response."""
_CLOSE = {"connection": "close"}


@contextmanager
def bind_socket(host: str, port: int | None) -> Iterator[tuple[socket.socket, int]]:
    """Bind a socket; yield it and its port. Connections are refused until a server listens on it.

    The port is 0 for any free one, None for the first free one from `DEFAULT_PORT` on.

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
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # of Linux; accepted connections inherit it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * _WRITE_TIMEOUT_S))
        try:
            sock.bind(address)  # with SO_REUSEADDR, two servers that don't listen yet could have the same port
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _allow_reuse(sock)
            sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _allow_reuse(sock: socket.socket) -> None:
    """Allow a port that only connections of an earlier server still have."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def _build_bind_error(host: str, port: int, error: OSError) -> UsageError:
    if error.errno == errno.EADDRINUSE:
        return UsageError(
            f"port {port} of {host} is in use",
            "Choose another one with --port, or any free one with --port 0.",
            code="port-in-use",
        )
    if error.errno == errno.EACCES:
        return UsageError(f"no permission to listen on port {port}", "Choose a port >= 1024.", code="port-forbidden")
    return UsageError(
        f"can't listen on {host} port {port}: {error.strerror or error}",
        "Use an address of this machine.",
        code="address-unavailable",
    )


def build_page_url(host: str, port: int, root_path: str = "") -> str:
    """Build the URL of the server for clients on this machine."""
    url_host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{url_host}:{port}{root_path}/"


class _BoundedConnection(h11.Connection):
    """HTTP/1.1 parser that gives up a body of tiny chunks."""

    def __init__(self, give_up: Callable[[], None]) -> None:
        super().__init__(h11.SERVER)
        self._give_up = give_up
        self._chunks = self._body_bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Parse the next event."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._body_bytes = 0
        elif isinstance(event, h11.Data):
            self._chunks += event.chunk_start
            self._body_bytes += len(event.data)
            if (self._chunks - _FREE_CHUNKS) * _MIN_CHUNK_BYTES > self._body_bytes:
                self._give_up()
                return h11.NEED_DATA
        return event


class BoundedProtocol(H11Protocol):
    """HTTP of uvicorn with limits for connections that wait for their client, which it lacks."""

    head_timer: asyncio.TimerHandle | None = None
    waiting_since_s = 0.0

    @property
    def is_waiting(self) -> bool:
        """Whether it is the client's turn: to send a request, or the rest of one, or to read a response.

        A client that sends the next requests already, as browsers and proxies never do, isn't waited for, but can be closed.
        """
        is_answered = self.cycle is None or self.cycle.response_complete
        return is_answered or self.cycle.more_body or self.flow.write_paused or self.flow.read_paused

    @property
    def address(self) -> str:
        """The address of the client."""
        return self.client[0] if self.client else ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # signature of uvicorn
        """Begin to wait for a request; make room for the connection if there are too many."""
        super().connection_made(transport)
        self.conn = _BoundedConnection(transport.abort)
        self.waiting_since_s = self.loop.time()
        self.start_head_timer()
        if len(self.connections) > _get_max_connections():
            self.close_longest_waiting()

    def data_received(self, data: bytes) -> None:
        """Handle the bytes of a request."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self.start_head_timer()
        else:
            self.stop_head_timer()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request, or close the connection if the rest of this one is missing."""
        self.note_turn()
        if self.conn.their_state is h11.SEND_BODY:
            self.transport.close()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Begin to wait until the client has read more of the response."""
        self.note_turn()
        super().pause_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection."""
        self.stop_head_timer()
        super().connection_lost(exc)

    def close_longest_waiting(self) -> None:
        """Close the other connection that has waited for longest, of the address with most connections.

        One whose request is being processed is closed only if all are: the newest, so that a burst ends no long request.
        """
        others = [each for each in self.connections if isinstance(each, BoundedProtocol) and each is not self]
        counts = Counter(each.address for each in others)
        waiting = [each for each in others if each.is_waiting]
        longest = min(
            waiting or others,
            key=lambda each: (-counts[each.address], each.waiting_since_s if waiting else -each.waiting_since_s),
        )
        self.connections.discard(longest)  # now: more connections may be made before it is lost
        longest.transport.abort()

    def note_turn(self) -> None:
        """Note that it is the client's turn, unless it has sent the next requests already."""
        if not self.flow.read_paused:
            self.waiting_since_s = self.loop.time()

    def start_head_timer(self) -> None:
        """Start the timer for the head of a request."""
        if self.head_timer is None:
            self.head_timer = self.loop.call_later(_HEAD_TIMEOUT_S, self.transport.close)

    def stop_head_timer(self) -> None:
        """Stop the timer."""
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None


def _get_max_connections() -> int:
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return _MAX_CONNECTIONS
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(_MAX_CONNECTIONS, open_files - _OTHER_FILES))


class _Exchange:
    """A request and its response. The response ends when the body of the request has arrived, or is given up.

    A client that is still sending could not read the response of a server that closes the connection.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive, self._send, self._is_held = receive, send, False
        self.has_arrived = not any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])

    async def receive(self) -> Message:
        """Receive a message, and note whether it is the end of the body."""
        message = await self._receive()
        self.has_arrived = self.has_arrived or not message.get("more_body")
        return message

    async def send(self, message: Message) -> None:
        """Send a message, but not yet that the response has ended if the body has not arrived."""
        if not self.has_arrived and message["type"] == "http.response.body" and not message.get("more_body"):
            self._is_held, message = True, {**message, "more_body": True}
        await self._send(message)

    async def discard_rest(self) -> None:
        """Receive and discard the rest of the body for a limited time, and end the response."""
        if not self._is_held:
            return
        left_bytes = _MAX_DISCARD_BYTES
        with suppress(TimeoutError), anyio.fail_after(_DISCARD_TIMEOUT_S):
            while not self.has_arrived and left_bytes > 0:
                with anyio.fail_after(_DISCARD_PAUSE_S):
                    left_bytes -= len((await self.receive()).get("body", b""))
        await self._send({"type": "http.response.body"})


class AdmissionMiddleware:
    """ASGI middleware that counts the requests in progress, and rejects new ones if they are many, or the server drains."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._in_progress: set[_Exchange] = set()
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
        exchange, rejection = _Exchange(scope, receive, send), self._get_rejection(scope["path"])
        if rejection is None:
            self._in_progress.add(exchange)
            try:
                await self._app(scope, exchange.receive, exchange.send)
            finally:
                self._in_progress.remove(exchange)
        else:
            await rejection.build_response()(scope, exchange.receive, exchange.send)
        await exchange.discard_rest()

    def _get_rejection(self, path: str) -> ErrorResponse | None:
        if self.is_draining:
            return ErrorResponse(503, "the server is shutting down", "Send the request to another one.", _CLOSE)
        if path == HEALTH_PATH or len(self._in_progress) < _MAX_REQUESTS:  # a probe that failed would end a busy server
            return None
        is_full = sum(exchange.has_arrived for exchange in self._in_progress) >= _MAX_REQUESTS
        return replace(TooManyRequests().response, headers=_CLOSE) if is_full else None


def create_server(app: ASGIApp, ready: Callable[[], None]) -> uvicorn.Server:
    """Create a server; `run(sockets=[...])` serves until a signal or `should_exit`, and calls `ready` when it accepts requests.

    After SIGTERM it finishes the requests that it has, rejects others, and returns. A second one ends it at once.
    """
    draining_app = AdmissionMiddleware(app)

    class DrainingServer(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            for sock in sockets or ():
                _allow_reuse(sock)  # its connections, after its end
            try:
                await super().startup(sockets)
            except OSError as error:  # another server began to listen since the port was bound
                host, port = sockets[0].getsockname()[:2] if sockets else ("", 0)
                raise _build_bind_error(host, port, error) from None
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
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,  # keep the logging of the process, which may write JSON
            log_level="error",
            access_log=False,  # it would contain tokens
            server_header=False,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
        )
    )
