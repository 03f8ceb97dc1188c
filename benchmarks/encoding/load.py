"""Clients of an encoder service: one process with a thread and a keep-alive connection for each client.

Each client sends a request as soon as the last one is answered. Requests are written and responses parsed by hand, because
`http.client` would take a large part of the measured time. The cost of the clients is still reported.
"""

from __future__ import annotations

import itertools
import multiprocessing
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

import orjson

_HEAD_END, _LENGTH = b"\r\n\r\n", b"content-length:"
_TIMEOUT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Work:
    """The requests of clients: POST to `path` of `url`, with a fixed number of items per body."""

    url: str
    path: str
    field: str
    """Field of the body with the items: `texts`, `inputs` or `images`."""
    items: Sequence[str]
    """Sent in rotation."""
    per_request: int
    clients: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Load:
    """Measurements of a load."""

    items_per_s: float
    ms: list[float]
    """Latency of each request."""
    client_cpu_ms: float
    """CPU time of the clients for each request."""


def start_clients() -> ProcessPoolExecutor:
    """Start the process of the clients, which runs `send_load`."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def send_load(work: Work) -> Load:
    """Send requests for the duration of the work."""
    groups = itertools.cycle(range(0, len(work.items) - work.per_request + 1, work.per_request))
    with ThreadPoolExecutor(work.clients) as pool:
        connections = [_connect(work.url) for _ in range(work.clients)]
        cpu_s, began_s = time.process_time(), time.perf_counter()
        until_s = began_s + work.seconds
        ran = list(pool.map(lambda connection: _send_until(work, connection, groups.__next__, until_s), connections))
        spent_s, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_s
    ms = [each for row in ran for each in row]
    return Load(items_per_s=len(ms) * work.per_request / spent_s, ms=ms, client_cpu_ms=1000 * cpu_s / len(ms))


def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout=_TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _send_until(work: Work, connection: socket.socket, take_next: Callable[[], int], until_s: float) -> list[float]:
    head = f"POST {work.path} HTTP/1.1\r\nhost: {urlsplit(work.url).netloc}\r\ncontent-type: application/json\r\ncontent-length: "
    times_ms = []
    with connection:
        while (began_s := time.perf_counter()) < until_s:
            first = take_next()
            body = orjson.dumps({work.field: work.items[first : first + work.per_request]})
            connection.sendall(f"{head}{len(body)}\r\n\r\n".encode() + body)
            _read_answer(connection)
            times_ms.append(1000 * (time.perf_counter() - began_s))
    return times_ms


def _read_answer(connection: socket.socket) -> None:
    """Read a response to its end.

    Raises:
        SystemExit: If the response is an error.
    """
    data = bytearray()
    while (end := data.find(_HEAD_END)) < 0:
        data += _receive(connection)
    head = bytes(data[:end]).lower()
    at = head.index(_LENGTH) + len(_LENGTH)
    length = int(head[at:].split(b"\r\n", 1)[0])
    while len(data) < end + len(_HEAD_END) + length:
        data += _receive(connection)
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        body = bytes(data[end + len(_HEAD_END) :])
        raise SystemExit(f"{head.decode(errors='replace')}: {body[:300]!r}")


def _receive(connection: socket.socket) -> bytes:
    part = connection.recv(1 << 16)
    if not part:
        raise SystemExit("the service closed the connection")
    return part
