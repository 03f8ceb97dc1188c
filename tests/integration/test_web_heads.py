"""Connections that never send a whole request head are closed, and others are served."""

from __future__ import annotations

import asyncio
import socket
import threading
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from stair_es.web import server

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

TIMEOUT_S = 1.0


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/slow":
        await asyncio.sleep(2 * TIMEOUT_S)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(server, "_HEAD_TIMEOUT_S", TIMEOUT_S)
    ready = threading.Event()
    made = server.create_server(_answer, ready.set)
    with server.bind_socket("127.0.0.1", 0) as (listener, actual):
        thread = threading.Thread(target=made.run, kwargs={"sockets": [listener]})
        thread.start()
        assert ready.wait(120)
        yield actual
        made.should_exit = True
        thread.join()


def _begun(port: int, head: bytes) -> socket.socket:
    opened = socket.create_connection(("127.0.0.1", port), timeout=120)
    opened.sendall(head)
    return opened


def _status(port: int, path: str = "/") -> Any:  # noqa: ANN401
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status


def test_partial_headers_time_out_and_others_are_served(port: int) -> None:
    opened = [_begun(port, head) for head in (b"GET / HTTP/1.1\r\nHost: a\r\n", b"G", b"") for _ in range(100)]
    try:
        assert [each.recv(1) for each in opened] == [b""] * len(opened)
    finally:
        for each in opened:
            each.close()
    assert _status(port) == 200


def test_partial_headers_after_a_request_time_out(port: int) -> None:
    with _begun(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") as opened:
        answer = b""
        while not answer.endswith(b"ok"):
            answer += opened.recv(4096)
        opened.sendall(b"GET / HT")
        assert opened.recv(1) == b""


def test_responses_may_be_slower_than_headers(port: int) -> None:
    assert _status(port, "/slow") == 200
