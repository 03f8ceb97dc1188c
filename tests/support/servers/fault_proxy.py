"""A node behind a bad network: an HTTP proxy that makes faults on purpose, over real sockets on loopback.

    with FaultProxy(node_url, RandomFaults(seed=1, faults=bulk_faults.list_all_faults())) as proxy:
        ...  # a client that talks to proxy.url
    print(proxy.counts)

A plan says of each request which fault it meets, if any. A fault is a function of the request and of the way to the node: it
may answer itself, change what goes on or what comes back, or cut the connection. `bulk_faults` has those of bulk requests.
"""

from __future__ import annotations

import json
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SO_LINGER, SOL_SOCKET
from struct import pack
from typing import TypeAlias
from urllib.parse import urlsplit


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request of the client."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def is_bulk(self) -> bool:
        """Whether it writes documents."""
        return self.path.partition("?")[0].endswith("_bulk")

    @property
    def is_search(self) -> bool:
        """Whether it searches or counts documents."""
        return self.path.partition("?")[0].endswith(("_search", "_count"))


@dataclass(frozen=True, kw_only=True)
class Response:
    """A response to the client."""

    status: int = 200
    kind: str = "application/json"
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    sent: int | None = None
    """Number of bytes of the body after which the connection is cut; None for all."""
    announced: int | None = None
    """Value of Content-Length; None for the real length. The whole body is sent, and the connection stays open."""
    continues: bool = False
    """Whether `100 Continue` comes before the answer."""
    is_reset: bool = False
    """Nothing is sent, and the connection ends with RST rather than FIN."""

    @classmethod
    def json(cls, value: object, status: int = 200) -> Response:
        """`value` as JSON."""
        return cls(status=status, body=json.dumps(value).encode())


MaybeResponse: TypeAlias = "Response | None"
"""`None`: the connection is cut without a byte of an answer."""
Send: TypeAlias = Callable[[Request], Response]


@dataclass(frozen=True)
class Fault:
    """One kind of failure: `act(request, send)`, where `send` is the way to the node."""

    name: str
    act: Callable[[Request, Send], MaybeResponse]


Plan: TypeAlias = "Callable[[Request], Fault | None]"


@contextmanager
def start_server(answer: Callable[[Request], MaybeResponse]) -> Iterator[str]:
    """Serve `answer(request)` on loopback and yield the URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _serve_request(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = answer(Request(method=self.command, path=self.path, headers=headers, body=body))
            if reply is None or reply.is_reset:
                self.close_connection = True
                if reply:
                    self.connection.setsockopt(SOL_SOCKET, SO_LINGER, pack("ii", 1, 0))
                    os.close(self.connection.detach())  # the server would send FIN first
                return
            if reply.continues:
                self.send_response_only(100)
                self.end_headers()
            self.send_response(reply.status)
            length = len(reply.body) if reply.announced is None else reply.announced
            for name, value in {"content-type": reply.kind, **reply.headers, "content-length": str(length)}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body[: reply.sent])
            self.close_connection = self.close_connection or reply.sent is not None

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:  # the client gave up
                self.close_connection = True

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _serve_request

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def build_forwarder(node_url: str, away: Response | None = None) -> Send:
    """Return a function that forwards requests, and answers `away` or 502 for a node that is away."""
    parts = urlsplit(node_url)

    def forward_request(request: Request) -> Response:
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        headers = {name: request.headers[name] for name in ("content-type", "authorization") if name in request.headers}
        try:
            connection.request(request.method, request.path, request.body or None, headers)
            response = connection.getresponse()
            kind = response.getheader("content-type") or "application/json"
            return Response(status=response.status, kind=kind, body=response.read())
        except (OSError, HTTPException) as error:
            return away or Response(status=502, kind="text/plain", body=f"no node: {error!r}".encode())
        finally:
            connection.close()

    return forward_request


class FaultProxy:
    """The proxy; `counts` says how many requests met each fault (`passed`: none)."""

    def __init__(self, node_url: str, plan: Plan, away: Response | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self.url = ""
        self._plan, self._send, self._lock = plan, build_forwarder(node_url, away), threading.Lock()
        self._server = start_server(self._meet_fault)

    def _meet_fault(self, request: Request) -> MaybeResponse:
        with self._lock:  # plans have a state
            fault = self._plan(request)
            self.counts[fault.name if fault else "passed"] += 1
        return fault.act(request, self._send) if fault else self._send(request)

    def __enter__(self) -> FaultProxy:
        self.url = self._server.__enter__()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.__exit__(None, None, None)


class RandomFaults:
    """A plan by seed: each bulk request, or what else is chosen, meets one of `faults` with a chance of `share`, but at most
    `run` in a row do.

    Faults come as cards from a shuffled deck: none a second time before each had its turn.
    """

    def __init__(
        self,
        seed: int,
        faults: Sequence[Fault],
        share: float = 0.5,
        run: int = 3,
        is_chosen: Callable[[Request], bool] = lambda request: request.is_bulk,
    ) -> None:
        self._is_chosen = is_chosen
        self._random, self._share, self._run = random.Random(seed), share, run
        self._faults = tuple(faults)
        self._deck: list[Fault] = []
        self._row = 0

    def __call__(self, request: Request) -> Fault | None:
        """The fault that this request meets."""
        if not self._is_chosen(request) or self._row >= self._run or self._random.random() >= self._share:
            self._row = 0
            return None
        self._row += 1
        if not self._deck:
            self._deck = self._random.sample(self._faults, len(self._faults))
        return self._deck.pop()


def inject_in_order(faults: Sequence[Fault | None]) -> Plan:
    """Return a plan of one fault for each of the first bulk requests (`None`: it passes)."""
    remaining = iter(faults)
    return lambda request: next(remaining, None) if request.is_bulk else None


def inject_always(fault: Fault) -> Plan:
    """Plan `fault` for each bulk request."""
    return lambda request: fault if request.is_bulk else None
