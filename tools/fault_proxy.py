"""A node behind a bad network: an HTTP proxy that makes faults on purpose, over real sockets on loopback.

    with FaultProxy(node_url, Storm(seed=1)) as proxy:
        ...  # a client that talks to proxy.url
    print(proxy.counts)

A plan says of each request which fault it meets, if any. A fault is a function of the request and of the way to the node: it
may answer itself, change what goes on or what comes back, or cut the connection.
"""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TypeAlias
from urllib.parse import urlsplit


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the client sent."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def is_bulk(self) -> bool:
        """Whether it writes documents."""
        return self.path.partition("?")[0].endswith("_bulk")


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the client gets."""

    status: int = 200
    kind: str = "application/json"
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    sent: int | None = None
    """So many bytes of the body are sent, then the connection is cut; `None`: all."""

    @classmethod
    def json(cls, value: object, status: int = 200) -> Reply:
        """`value` as JSON."""
        return cls(status=status, body=json.dumps(value).encode())


Answer: TypeAlias = "Reply | None"
"""`None`: the connection is cut without a byte of an answer."""
Send: TypeAlias = Callable[[Request], Reply]


@dataclass(frozen=True)
class Fault:
    """One kind of failure: `act(request, send)`, where `send` is the way to the node."""

    name: str
    act: Callable[[Request, Send], Answer]


Plan: TypeAlias = "Callable[[Request], Fault | None]"


@contextmanager
def serve(answer: Callable[[Request], Answer]) -> Iterator[str]:
    """The URL of a server on loopback that answers `answer(request)`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = answer(Request(method=self.command, path=self.path, headers=headers, body=body))
            if reply is None:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in {"content-type": reply.kind, **reply.headers, "content-length": str(len(reply.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body[: reply.sent])
            self.close_connection = self.close_connection or reply.sent is not None

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:  # the client had enough of waiting
                self.close_connection = True

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _any

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


def forward(node_url: str) -> Send:
    """The way to the node; a node that is away is a 502, as any gateway would say."""
    parts = urlsplit(node_url)

    def send(request: Request) -> Reply:
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        passed = {name: request.headers[name] for name in ("content-type", "authorization") if name in request.headers}
        try:
            connection.request(request.method, request.path, request.body or None, passed)
            response = connection.getresponse()
            kind = response.getheader("content-type") or "application/json"
            return Reply(status=response.status, kind=kind, body=response.read())
        except (OSError, HTTPException) as error:
            return Reply(status=502, kind="text/plain", body=f"no node: {error!r}".encode())
        finally:
            connection.close()

    return send


class FaultProxy:
    """The proxy; `counts` says how many requests met each fault (`passed`: none)."""

    def __init__(self, node_url: str, plan: Plan) -> None:
        self.counts: Counter[str] = Counter()
        self.url = ""
        self._plan, self._send, self._lock = plan, forward(node_url), threading.Lock()
        self._server = serve(self._answer)

    def _answer(self, request: Request) -> Answer:
        with self._lock:  # plans have a state
            fault = self._plan(request)
            self.counts[fault.name if fault else "passed"] += 1
        return fault.act(request, self._send) if fault else self._send(request)

    def __enter__(self) -> FaultProxy:
        self.url = self._server.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return self._server.__exit__(kind, error, traceback)


class Storm:
    """A plan by seed: each bulk request meets one of `faults` with a chance of `share`, but at most `run` in a row do.

    Faults come as cards from a shuffled deck: none a second time before each had its turn.
    """

    def __init__(self, seed: int, share: float = 0.5, run: int = 3, faults: Sequence[Fault] | None = None) -> None:
        self._random, self._share, self._run = random.Random(seed), share, run
        self._faults = tuple(faults if faults is not None else every_fault())
        self._deck: list[Fault] = []
        self._row = 0

    def __call__(self, request: Request) -> Fault | None:
        """The fault that this request meets."""
        if not request.is_bulk or self._row >= self._run or self._random.random() >= self._share:
            self._row = 0
            return None
        self._row += 1
        if not self._deck:
            self._deck = self._random.sample(self._faults, len(self._faults))
        return self._deck.pop()


def first(faults: Sequence[Fault]) -> Plan:
    """A plan: one after the other for the first bulk requests, then none."""
    left = iter(faults)
    return lambda request: next(left, None) if request.is_bulk else None


def always(fault: Fault) -> Plan:
    """A plan: each bulk request meets `fault`."""
    return lambda request: fault if request.is_bulk else None


# --- the faults ---


def busy(retry_after_s: int | None = None) -> Fault:
    """429 for the whole request, nothing is written."""
    headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
    reply = Reply(status=429, body=b'{"error": {"type": "rejected", "reason": "too many requests"}}', headers=headers)
    return Fault("429" if retry_after_s is None else "429 with Retry-After", lambda request, send: reply)


def unavailable(status: int = 503) -> Fault:
    """A gateway's page, nothing is written."""
    return Fault(str(status), lambda request, send: Reply(status=status, kind="text/html", body=b"<h1>upstream gone</h1>"))


def too_large(limit: int) -> Fault:
    """413 for bodies above `limit` bytes."""
    refusal = Reply(status=413, kind="text/plain", body=b"too large")
    return Fault("413", lambda request, send: refusal if len(request.body) > limit else send(request))


def cut_before() -> Fault:
    """The connection ends before the node gets the request."""
    return Fault("cut before", lambda request, send: None)


def cut_after() -> Fault:
    """The connection ends after the node has done the work."""

    def act(request: Request, send: Send) -> Answer:
        send(request)
        return None

    return Fault("cut after", act)


def half_response() -> Fault:
    """The node has done the work, half of its answer arrives; content-length says more."""

    def act(request: Request, send: Send) -> Answer:
        reply = send(request)
        return Reply(status=reply.status, kind=reply.kind, body=reply.body, sent=len(reply.body) // 2)

    return Fault("half a response", act)


def slow(seconds: float) -> Fault:
    """The node has done the work, the answer comes after `seconds`: meant to be longer than the client waits."""

    def act(request: Request, send: Send) -> Answer:
        reply = send(request)
        threading.Event().wait(seconds)
        return reply

    return Fault("slow", act)


def page() -> Fault:
    """A gateway's page with 200 that even says to be JSON; nothing is written."""
    return Fault("page with 200", lambda request, send: Reply(body=b"<html>one moment please</html>"))


def html() -> Fault:
    """The same, honest about its type."""
    reply = Reply(kind="text/html", body=b"<html>one moment please</html>")
    return Fault("html with 200", lambda request, send: reply)


def items_refused(
    chosen: Callable[[int, str], bool] = lambda i, _: i % 2 == 1,
    status: int = 429,
    error: Mapping[str, str] | None = None,
) -> Fault:
    """An answer that is else good: of the documents, those for which `chosen(position, _id)` are refused and not written."""
    reason = dict(error or {"type": "rejected", "reason": "queue full"})

    def act(request: Request, send: Send) -> Answer:
        lines = list(operations(request.body))
        refused = [chosen(i, id_) for i, (_, id_, _) in enumerate(lines)]
        good = b"".join(line for (_, _, line), no in zip(lines, refused, strict=True) if not no)
        reply = send(_with(request, good)) if good else Reply.json({"items": []})
        if reply.status >= 300:
            return reply
        taken = iter(json.loads(reply.body).get("items", ()))
        return Reply.json(
            {
                "items": [
                    {kind: {"_id": id_, "status": status, "error": reason}} if no else next(taken)
                    for (kind, id_, _), no in zip(lines, refused, strict=True)
                ]
            }
        )

    return Fault(f"items with {status}", act)


def half_mentioned() -> Fault:
    """Everything is written, the answer mentions the first half of it."""

    def act(request: Request, send: Send) -> Answer:
        items = json.loads(send(request).body)["items"]
        return Reply.json({"items": items[: len(items) // 2]})

    return Fault("half mentioned", act)


def every_fault(slow_s: float = 1.5, limit: int = 20_000) -> tuple[Fault, ...]:
    """One of each kind."""
    return (
        busy(),
        busy(retry_after_s=1),
        unavailable(),
        unavailable(502),
        too_large(limit),
        cut_before(),
        cut_after(),
        half_response(),
        slow(slow_s),
        page(),
        html(),
        items_refused(),
        half_mentioned(),
    )


def operations(body: bytes) -> Iterator[tuple[str, str, bytes]]:
    """`(kind, _id, lines)` of each operation of a bulk request."""
    lines = iter(body.splitlines(keepends=True))
    for line in lines:
        [(kind, meta)] = json.loads(line).items()
        yield kind, meta["_id"], line if kind == "delete" else line + next(lines)


def _with(request: Request, body: bytes) -> Request:
    return Request(method=request.method, path=request.path, headers=request.headers, body=body)
