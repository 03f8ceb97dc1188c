"""Connections that wait for their clients are closed in time, or when there are too many, and others are served."""

from __future__ import annotations

import asyncio
import socket
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from support.errors import expect_error
from support.polling import poll_until

from stair_es.web import server

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

TIMEOUT_S = 1.0
MAX_CONNECTIONS = 40
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n"
BODY = b"o" * 1000


class SlowApp:
    """An application that reads no body, and whose responses to `/slow` wait until they are released."""

    def __init__(self) -> None:
        self.entered, self.released = threading.Semaphore(0), threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            self.entered.release()
            await asyncio.to_thread(self.released.wait, 120)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
        await send({"type": "http.response.body", "body": BODY})


@pytest.fixture
def app() -> SlowApp:
    return SlowApp()


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch, app: SlowApp) -> Iterator[int]:
    for name in ("_HEAD_TIMEOUT_S", "_WRITE_TIMEOUT_S", "_DISCARD_TIMEOUT_S"):
        monkeypatch.setattr(server, name, TIMEOUT_S)
    with server.bind_socket("127.0.0.1", 0) as (listener, bound_port), _run_server(app, listener):
        yield bound_port


@pytest.fixture
def patient_port(monkeypatch: pytest.MonkeyPatch, app: SlowApp) -> Iterator[int]:
    """The port of a server that closes connections only because there are too many."""
    for name in ("_HEAD_TIMEOUT_S", "_DISCARD_TIMEOUT_S", "_DISCARD_PAUSE_S"):
        monkeypatch.setattr(server, name, 600.0)
    monkeypatch.setattr(server, "_MAX_CONNECTIONS", MAX_CONNECTIONS)
    with server.bind_socket("127.0.0.1", 0) as (listener, bound_port), _run_server(app, listener):
        yield bound_port


@contextmanager
def _run_server(app: SlowApp, listener: socket.socket) -> Iterator[None]:
    ready = threading.Event()
    web_server = server.create_server(app, ready.set)
    thread = threading.Thread(target=web_server.run, kwargs={"sockets": [listener]})
    thread.start()
    assert ready.wait(120)
    yield
    app.released.set()
    web_server.should_exit = True
    thread.join()


def _open_connection(port: int, sent: bytes, source: str = "127.0.0.1") -> socket.socket:
    connection = socket.socket()
    connection.settimeout(120)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that responses that aren't read soon fill it
    connection.bind((source, 0))
    connection.connect(("127.0.0.1", port))
    connection.sendall(sent)
    return connection


def _get_status(port: int, path: str = "/") -> Any:  # noqa: ANN401
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as response:
        return response.status


def _read_response(connection: socket.socket) -> bytes:
    connection.settimeout(120)  # `_is_closed` leaves a short one
    response = b""
    while not response.endswith(BODY):
        block = connection.recv(4096)
        assert block, response
        response += block
    return response


def _is_closed(connection: socket.socket, sent: bytes = b"") -> bool:
    """Send, read what has arrived, and check whether the server has closed the connection."""
    try:
        connection.sendall(sent)
        connection.settimeout(0.01)
        return not connection.recv(1_000_000)
    except TimeoutError:
        return False
    except OSError:
        return True


def test_connections_are_refused_until_the_server_runs(app: SlowApp) -> None:
    with server.bind_socket("127.0.0.1", 0) as (listener, port):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        with expect_error("port-in-use"), server.bind_socket("127.0.0.1", port):
            pass
        with _run_server(app, listener), _open_connection(port, GET) as connection:
            assert _read_response(connection).startswith(b"HTTP/1.1 200")
    with server.bind_socket("127.0.0.1", port) as (listener, again), _run_server(app, listener):  # which connections still have
        assert (again, _get_status(port)) == (port, 200)


def test_partial_headers_time_out_and_others_are_served(port: int) -> None:
    with ExitStack() as stack:
        heads = [head for head in (b"GET / HTTP/1.1\r\nHost: a\r\n", b"G", b"") for _ in range(100)]
        connections = [stack.enter_context(_open_connection(port, head)) for head in heads]
        assert [each.recv(1) for each in connections] == [b""] * len(connections)
    assert _get_status(port) == 200


def test_partial_headers_after_a_request_time_out(port: int) -> None:
    with _open_connection(port, GET) as connection:
        _read_response(connection)
        connection.sendall(b"GET / HT")
        assert connection.recv(1) == b""


def test_responses_may_be_slower_than_headers(app: SlowApp, port: int) -> None:
    with ThreadPoolExecutor() as pool, ExitStack() as stack:
        stack.callback(app.released.set)
        slow = pool.submit(_get_status, port, "/slow")
        assert app.entered.acquire(timeout=120)
        assert stack.enter_context(_open_connection(port, b"GET")).recv(1) == b""
        app.released.set()
        assert slow.result() == 200


def test_an_answered_body_that_never_ends_is_given_up(port: int) -> None:
    with _open_connection(port, POST + b"\r\n") as connection:
        assert _read_response(connection).startswith(b"HTTP/1.1 200")
        poll_until(lambda: _is_closed(connection, b"x"))


def test_an_answered_body_that_pauses_is_given_up(monkeypatch: pytest.MonkeyPatch, patient_port: int) -> None:
    monkeypatch.setattr(server, "_DISCARD_PAUSE_S", TIMEOUT_S)
    with _open_connection(patient_port, POST + b"\r\n") as connection:
        assert _read_response(connection).startswith(b"HTTP/1.1 200")
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    ("chunk", "count", "is_read"),
    [(b"1\r\nx\r\n", 2000, True), (b"1\r\nx\r\n", 4000, False), (b"400\r\n" + b"x" * 1024 + b"\r\n", 4000, True)],
)
def test_a_body_of_tiny_chunks_is_given_up(patient_port: int, chunk: bytes, count: int, is_read: bool) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert _send_and_receive(patient_port, head + chunk * count + b"0\r\n\r\n").endswith(BODY) is is_read


def test_a_discarded_body_has_a_limit(monkeypatch: pytest.MonkeyPatch, patient_port: int) -> None:
    monkeypatch.setattr(server, "_MAX_DISCARD_BYTES", 1_000_000)
    _send_and_receive(patient_port, POST + b"\r\n" + b"x" * 19_000_000, until_complete=False)  # returns when it is closed


def _send_and_receive(port: int, sent: bytes, *, until_complete: bool = True) -> bytes:
    """Send, and return what arrives until the response is complete, or the connection closed."""
    response = b""
    with _open_connection(port, b"") as connection, suppress(ConnectionError):
        connection.sendall(sent)
        while not (until_complete and response.endswith(BODY)) and (block := connection.recv(4096)):
            response += block
    return response


@pytest.mark.parametrize("header", [b"", b"Connection: close\r\n"])
def test_a_client_that_sends_first_reads_the_answer(patient_port: int, header: bytes) -> None:
    with _open_connection(patient_port, POST + header + b"\r\n") as connection:
        for _ in range(20):
            connection.sendall(bytes(1_000_000))
        assert _read_response(connection).startswith(b"HTTP/1.1 200")
        if header:
            assert connection.recv(1) == b""
        else:
            connection.sendall(GET)
            assert _read_response(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has the timeout")
def test_answers_that_are_never_read_are_given_up(port: int) -> None:
    with _open_connection(port, b"") as connection:
        poll_until(lambda: _has_failed(connection, GET * 1000))
    assert _get_status(port) == 200


def _has_failed(connection: socket.socket, sent: bytes) -> bool:
    try:
        connection.settimeout(0.1)
        connection.sendall(sent)
    except TimeoutError:
        return False
    except OSError:
        return True
    return False


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HTTP/1.1\r\n", GET, GET * 5000, POST + b"\r\nx"],
    ids=["nothing", "partial header", "keep-alive", "unread responses", "partial body"],
)
def test_connections_that_wait_make_room_for_others(app: SlowApp, patient_port: int, sent: bytes) -> None:
    with ThreadPoolExecutor() as pool, ExitStack() as stack:
        stack.callback(app.released.set)
        slow = pool.submit(_get_status, patient_port, "/slow")
        assert app.entered.acquire(timeout=120)
        connections = [stack.enter_context(_open_connection(patient_port, sent)) for _ in range(MAX_CONNECTIONS + 20)]
        assert [_get_status(patient_port) for _ in range(20)] == [200] * 20
        poll_until(lambda: sum(_is_closed(each, b"x") for each in connections) >= 20)
        app.released.set()
        assert slow.result() == 200


def test_while_all_requests_are_processed_the_newest_makes_room(app: SlowApp, patient_port: int) -> None:
    with ExitStack() as stack:
        stack.callback(app.released.set)
        slow = []
        for _ in range(MAX_CONNECTIONS):
            slow.append(stack.enter_context(_open_connection(patient_port, GET.replace(b"/", b"/slow", 1))))
            assert app.entered.acquire(timeout=120)
        assert _get_status(patient_port) == 200
        assert [_is_closed(each) for each in slow] == [False] * (MAX_CONNECTIONS - 1) + [True]
        app.released.set()
        assert _read_response(slow[0]).startswith(b"HTTP/1.1 200")


def test_an_address_with_many_connections_loses_its_own(patient_port: int) -> None:
    with ExitStack() as stack:
        upload = stack.enter_context(_open_connection(patient_port, POST + b"\r\n"))
        connections = [stack.enter_context(_open_connection(patient_port, b"", "127.0.0.2")) for _ in range(MAX_CONNECTIONS + 20)]
        poll_until(lambda: sum(_is_closed(each) for each in connections) >= 20)
        assert not _is_closed(upload, b"x")
