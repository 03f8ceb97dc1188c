"""Images from servers on loopback that are slow, broken, lying or malicious."""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trustme
from support.errors import expect_error

from stair_es.errors import ReadError, RetryLater, StairError
from stair_es.sources.base import ReadLimits, ReadResult, UrlPolicy
from stair_es.sources.http import ssrf
from stair_es.sources.http.fetcher import Fetcher
from stair_es.sources.http.locator import UrlLocator

IMAGE = bytes(range(256)) * 40
MAX_BYTES = 1 << 20
HANGS_S = 20.0
"""Longer than any fetch below may last: only what would hang without end takes this long."""

Responder: TypeAlias = Callable[[socket.socket, int], None]
"""Writes a response to the connection, given how many requests for its path there were."""


class HostileServer(socketserver.ThreadingTCPServer):
    """Answers each path by a function, on connections that it keeps open."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.responders: dict[str, Responder] = {}
        self.requests: list[tuple[float, str]] = []
        self.connections = 0
        self.counts = Counter[str]()
        self.lock = threading.Lock()
        self.tls = tls
        self.stopped = threading.Event()
        self.port: int = self.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def list_paths(self) -> list[str]:
        return [text.split()[1] for _, text in self.requests]

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Ignore clients that hang up: these tests make them do so."""


class _Handler(socketserver.BaseRequestHandler):
    server: HostileServer

    def handle(self) -> None:
        server, connection = self.server, self.request
        with server.lock:
            server.connections += 1
        if server.tls is not None:
            connection = server.tls.wrap_socket(connection, server_side=True)
        with connection:
            while request := _receive_request(connection):
                path = request.split()[1]
                with server.lock:
                    server.requests.append((time.monotonic(), request))
                    server.counts[path] += 1
                    count = server.counts[path]
                server.responders[path.partition("?")[0]](connection, count)


def _receive_request(connection: socket.socket) -> str:
    received = b""
    while b"\r\n\r\n" not in received:
        block = connection.recv(65536)
        if not block:
            return ""
        received += block
    return received.decode("latin-1")


@contextlib.contextmanager
def run_server(server: HostileServer) -> Iterator[HostileServer]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def http_server() -> Iterator[HostileServer]:
    with run_server(HostileServer()) as server:
        yield server


def format_head(status: str = "200 OK", /, **headers: object) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode("latin-1")


def respond_with(*pieces: bytes, close: bool = False) -> Responder:
    def send_pieces(connection: socket.socket, count: int) -> None:
        for piece in pieces:
            connection.sendall(piece)
        if close:
            connection.shutdown(socket.SHUT_RDWR)

    return send_pieces


def respond_with_status(status: str, **headers: object) -> Responder:
    return respond_with(format_head(status, Content_Length=0, **headers))


def respond_with_image(**headers: object) -> Responder:
    return respond_with(format_head(Content_Length=len(IMAGE), **headers), IMAGE)


def respond_in_turn(*responders: Responder) -> Responder:
    """Use the first responder for the first request, and so on; the last one for all further requests."""
    return lambda connection, count: responders[min(count, len(responders)) - 1](connection, count)


def redirect_to(location: str, status: str = "302 Found") -> Responder:
    return respond_with(format_head(status, Location=location, Content_Length=5) + b"moved")


def respond_slowly(server: HostileServer, start: bytes, piece: bytes) -> Responder:
    """Send `start`, then `piece` over and over, until the client leaves or a client without a timeout would have failed."""

    def send_slowly(connection: socket.socket, count: int) -> None:
        connection.sendall(start)
        end = time.monotonic() + HANGS_S
        while time.monotonic() < end and not server.stopped.wait(0.02):
            connection.sendall(piece)

    return send_slowly


FINE = respond_with_image()


def read_url(url: str, known_version: str | None = None, *, max_bytes: int = MAX_BYTES, **limits: Any) -> ReadResult | None:  # noqa: ANN401
    policy = UrlPolicy(**{"allow_private": True, "timeout_s": 10.0, "attempts": 1, **limits})
    return UrlLocator(url).read(ReadLimits(max_bytes=max_bytes, url_policy=policy), known_version)


def read_new(url: str, known_version: str | None = None, **limits: Any) -> ReadResult:  # noqa: ANN401
    """Read what isn't the known version."""
    result = read_url(url, known_version, **limits)
    assert result is not None
    return result


def read_bytes(url: str, **limits: Any) -> bytes:  # noqa: ANN401
    return read_new(url, **limits).data


def read_error(url: str, **limits: Any) -> StairError:  # noqa: ANN401
    """Return why a URL can't be read, after a time that only a hang would exceed."""
    start = time.monotonic()
    with pytest.raises(ReadError) as caught:
        read_url(url, **limits)
    assert time.monotonic() - start < HANGS_S
    return caught.value


@contextlib.contextmanager
def open_fetcher(resolve: ssrf.Resolver, *, allow_private: bool = False) -> Iterator[Fetcher]:
    """Open a fetcher that looks up names as the test says."""
    policy = UrlPolicy(timeout_s=10.0, attempts=2, allow_private=allow_private)
    with contextlib.closing(Fetcher(policy, resolve=resolve)) as fetcher:
        yield fetcher


def test_fetches_reuse_connections_and_send_our_user_agent(http_server: HostileServer) -> None:
    http_server.responders["/a.jpg"] = respond_with_image(Set_Cookie="id=7")
    for _ in range(3):
        assert read_bytes(http_server.url + "/a.jpg") == IMAGE
    assert http_server.connections == 1
    request = http_server.requests[-1][1].lower()
    assert "user-agent: stair-es/" in request
    assert "accept-encoding: identity" in request
    assert f"host: 127.0.0.1:{http_server.port}" in request
    assert "cookie" not in request


def test_html_responses_reach_the_decoder(http_server: HostileServer) -> None:
    head = format_head(Content_Type="text/html", Transfer_Encoding="chunked")
    http_server.responders["/"] = respond_with(head, b"4\r\n<htm\r\n2\r\nl>\r\n0\r\n\r\n")
    assert read_bytes(http_server.url) == b"<html>"


def test_non_ascii_names_are_encoded_by_the_standards(http_server: HostileServer) -> None:
    http_server.responders["/%C3%A4%20b/%E7%86%8A.jpg"] = FINE
    assert read_bytes(http_server.url + "/ä b/熊.jpg?größe=1 2#teil") == IMAGE
    assert http_server.list_paths() == ["/%C3%A4%20b/%E7%86%8A.jpg?gr%C3%B6%C3%9Fe=1%202"]


def test_proxies_of_the_environment_are_not_used(http_server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    http_server.responders["/a.jpg"] = FINE
    assert read_bytes(http_server.url + "/a.jpg", timeout_s=9.5) == IMAGE  # other limits: a fetcher that is new


SLOW_RESPONSES = {
    "nothing": (b"", b""),
    "header": (b"HTTP/1.1 200 OK\r\nX-A: ", b"a"),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": (format_head(Content_Length=10000), b"a"),
    "body-without-length": (format_head(), b"a"),
    "chunks": (format_head(Transfer_Encoding="chunked"), b"1\r\na\r\n"),
    "body-of-503": (format_head("503 Service Unavailable", Content_Length=10000), b"a"),
    "body-of-redirect": (format_head("302 Found", Location="/slow", Content_Length=10000), b"a"),
}


@pytest.mark.parametrize(("start", "piece"), SLOW_RESPONSES.values(), ids=SLOW_RESPONSES)
def test_slow_responses_time_out(http_server: HostileServer, start: bytes, piece: bytes) -> None:
    http_server.responders["/slow"] = respond_slowly(http_server, start, piece)
    error = read_error(http_server.url + "/slow", timeout_s=0.4, attempts=3)
    assert (error.code, "127.0.0.1" in error.message, "0.4 s" in error.message) == ("fetch-timed-out", True, True)


def test_slow_tls_handshakes_time_out(http_server: HostileServer) -> None:
    def begin_handshake() -> None:
        connection = listener.accept()[0]
        with connection, contextlib.suppress(OSError):
            respond_slowly(http_server, b"\x16\x03\x03\x40\x00", b"\x00")(connection, 1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=begin_handshake)
        thread.start()
        error = read_error(f"https://127.0.0.1:{listener.getsockname()[1]}/", timeout_s=0.4)
        thread.join()
    assert error.code == "fetch-timed-out"


TEMPORARY_ERRORS = {
    "hangs-up": respond_with(close=True),
    "503": respond_with_status("503 Service Unavailable"),
    "500": respond_with_status("500 Internal Server Error"),
    "429": respond_with_status("429 Too Many Requests", Retry_After="0"),
    "short-body": respond_with(format_head(Content_Length=len(IMAGE)), IMAGE[:100], close=True),
    "short-gzip": respond_with(format_head(Content_Encoding="gzip"), gzip.compress(IMAGE)[:-9], close=True),
    "short-chunks": respond_with(format_head(Transfer_Encoding="chunked"), b"64\r\n" + IMAGE[:100] + b"\r\n", close=True),
    "ssh": respond_with(b"SSH-2.0-OpenSSH_9.9\r\n\r\n", close=True),
}


@pytest.mark.parametrize("failure", TEMPORARY_ERRORS.values(), ids=TEMPORARY_ERRORS)
def test_temporary_errors_are_retried(http_server: HostileServer, failure: Responder) -> None:
    http_server.responders["/a.jpg"] = respond_in_turn(failure, FINE)
    assert read_bytes(http_server.url + "/a.jpg", attempts=2) == IMAGE
    http_server.responders["/b.jpg"] = failure
    error = read_error(http_server.url + "/b.jpg", attempts=2)
    assert (error.code, "2 attempts" in error.message) == ("fetch-failed", True)
    assert http_server.counts == {"/a.jpg": 2, "/b.jpg": 2}


def respond_gzipped(body: bytes) -> Responder:
    return respond_with(format_head(Content_Length=len(body), Content_Encoding="gzip"), body)


PERMANENT_ERRORS = {
    **{
        status[:3]: (respond_with(format_head(status), close=True), "http-status", f"127.0.0.1: {status[:3]}")
        for status in ("400 Bad", "401 No", "403 No", "404 Not Here", "410 Gone", "204 None", "206 Part", "501 No")
    },
    "304-unexpected": (respond_with(format_head("304 Not Modified")), "http-status", "304"),
    "302-without-location": (respond_with_status("302 Found"), "http-status", "302"),
    "to-file": (redirect_to("file:///etc/passwd"), "url-scheme-not-allowed", "file:///etc/passwd"),
    "to-ftp": (redirect_to("ftp://127.0.0.1/a.jpg"), "url-scheme-not-allowed", "ftp:"),
    "to-gopher": (redirect_to("gopher://127.0.0.1:6379/_x"), "url-scheme-not-allowed", "gopher:"),
    "to-https": (redirect_to("https://127.0.0.1/"), "url-scheme-not-allowed", "https:"),
    "to-login": (redirect_to("http://user:hunter2@127.0.0.1/"), "url-with-login", "127.0.0.1"),
    "to-port": (redirect_to("http://127.0.0.1:99999/"), "malformed-url", "99999"),
    "to-half-an-address": (redirect_to("http://[::1"), "malformed-url", "127.0.0.1"),
    "to-metadata": (redirect_to("http://169.254.169.254/latest/meta-data"), "address-not-allowed", "metadata"),
    "to-mapped-metadata": (redirect_to("http://[::ffff:169.254.169.254]/"), "address-not-allowed", "metadata"),
    "compression-bomb": (respond_gzipped(gzip.compress(bytes(1 << 26))), "file-too-large", f"{MAX_BYTES}"),
    "not-gzip": (respond_gzipped(IMAGE), "not-compressed-as-declared", "127.0.0.1"),
}


@pytest.mark.parametrize(("responder", "code", "fact"), PERMANENT_ERRORS.values(), ids=PERMANENT_ERRORS)
def test_permanent_errors_are_not_retried(http_server: HostileServer, responder: Responder, code: str, fact: str) -> None:
    http_server.responders["/a.jpg"] = responder
    error = read_error(http_server.url + "/a.jpg", schemes=("http",), attempts=3)
    assert (error.code, fact in error.message) == (code, True), error.message
    assert "hunter2" not in str(error)
    assert http_server.counts["/a.jpg"] == 1


def test_gzipped_images_are_unpacked(http_server: HostileServer) -> None:
    http_server.responders["/a.jpg"] = respond_gzipped(gzip.compress(IMAGE))
    assert read_bytes(http_server.url + "/a.jpg") == IMAGE


def test_retry_after_is_waited_for(http_server: HostileServer) -> None:
    http_server.responders["/a.jpg"] = respond_in_turn(respond_with_status("429 Too Many Requests", Retry_After=2), FINE)
    assert read_bytes(http_server.url + "/a.jpg", attempts=2) == IMAGE
    (first, _), (second, _) = http_server.requests
    assert second - first >= 1.9  # our own backoff would have been half a second at most


def test_too_long_retry_after_is_not_awaited(http_server: HostileServer) -> None:
    http_server.responders["/a.jpg"] = respond_with_status("503 Service Unavailable", Retry_After=3600)
    fetcher = Fetcher(UrlPolicy(allow_private=True, timeout_s=5.0))
    with expect_error("fetch-failed", ReadError) as caught:
        fetcher.fetch(http_server.url + "/a.jpg", MAX_BYTES)
    assert "3600 s" in caught.value.message
    with expect_error("host-asks-to-wait", ReadError):
        fetcher.fetch(http_server.url + "/b.jpg", MAX_BYTES)
    assert http_server.list_paths() == ["/a.jpg"]
    fetcher.close()


def test_deferring_callers_get_the_busy_host_at_once(http_server: HostileServer) -> None:
    http_server.responders["/a.jpg"] = redirect_to(f"http://127.1:{http_server.port}/b.jpg")
    http_server.responders["/b.jpg"] = respond_in_turn(respond_with_status("503 Service Unavailable", Retry_After=3600), FINE)
    limits = ReadLimits(defer=True, url_policy=UrlPolicy(allow_private=True, timeout_s=5.0))
    with pytest.raises(RetryLater) as caught:
        UrlLocator(http_server.url + "/a.jpg").read(limits)
    assert (caught.value.host, caught.value.wait_s) == ("127.1", 3600.0)
    assert all(fact in caught.value.message for fact in ("127.1 ", "127.0.0.1", "503", "3600 s"))
    result = UrlLocator(http_server.url + "/a.jpg").read(limits)  # when to come back is the caller's affair
    assert result is not None
    assert result.data == IMAGE


def test_redirects_are_followed_to_their_end(http_server: HostileServer) -> None:
    http_server.responders = {
        "/1": redirect_to("/x/2", "301 M"),
        "/x/2": redirect_to("3", "307 T"),
        "/x/3": redirect_to(http_server.url + "/4#f"),
        "/4": redirect_to("/5", "308 P"),
        "/5": FINE,
    }
    assert read_bytes(http_server.url + "/1", max_redirects=4) == IMAGE
    assert http_server.connections == 1
    for path, limit in (("/1", 3), ("/4", 0)):
        error = read_error(http_server.url + path, max_redirects=limit)
        assert (error.code, f" {limit} " in error.message) == ("too-many-redirects", True)


def test_redirects_in_a_circle_end(http_server: HostileServer) -> None:
    http_server.responders |= {"/a": redirect_to("/b"), "/b": redirect_to("/a")}
    assert read_error(http_server.url + "/a", max_redirects=50).code == "redirect-loop"
    assert http_server.list_paths() == ["/a", "/b"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0", "[::1]", "[::ffff:7f00:1]"])
def test_loopback_is_never_connected_to_without_permission(http_server: HostileServer, host: str) -> None:
    http_server.responders["/a.jpg"] = FINE
    url = http_server.url.replace("127.0.0.1", host) + "/a.jpg"
    error = read_error(url, allow_private=False, attempts=3)
    assert (error.code, "loopback" in error.message) == ("address-not-allowed", True)
    assert http_server.connections == 0


@pytest.fixture
def public_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 stands for a public address; the rest of loopback stays what it is."""
    find_block_reason = ssrf.find_block_reason
    monkeypatch.setattr(
        ssrf,
        "find_block_reason",
        lambda ip, allow_private: (ip != "127.0.0.1" and find_block_reason(ip, allow_private=False)) or None,
    )


@pytest.mark.usefixtures("public_loopback")
def test_a_public_server_cannot_redirect_to_a_private_one(http_server: HostileServer) -> None:
    port = http_server.port
    http_server.responders |= {
        "/a": redirect_to(f"http://127.0.0.2:{port}/b"),
        "/c": redirect_to(f"http://localhost.:{port}/b"),
        "/b": FINE,
    }
    with open_fetcher(lambda *_: ["127.0.0.1"]) as fetcher:
        assert fetcher.fetch(f"http://images.test:{port}/b", MAX_BYTES) == ReadResult(IMAGE)
    error = read_error(http_server.url + "/a", allow_private=False)
    assert error.code == "address-not-allowed"
    assert all(fact in error.message for fact in ("127.0.0.2 ", "127.0.0.1", "--allow-private-urls"))
    resolve: ssrf.Resolver = lambda host, *_: ["127.0.0.1"] if host == "images.test" else ["127.0.0.2"]  # noqa: E731
    with open_fetcher(resolve) as fetcher, expect_error("address-not-allowed") as caught:
        fetcher.fetch(f"http://images.test:{port}/c", MAX_BYTES)
    assert all(fact in caught.value.message for fact in ("localhost. ", "images.test", "127.0.0.2"))
    assert http_server.list_paths().count("/b") == 1


@pytest.mark.usefixtures("public_loopback")
def test_dns_rebinding_is_prevented(http_server: HostileServer) -> None:
    """The address that is checked is the one that is connected to, and every new connection is checked."""
    http_server.responders["/a.jpg"] = respond_with(format_head(Content_Length=len(IMAGE), Connection="close"), IMAGE, close=True)
    lookups = iter([["127.0.0.1"], ["127.0.0.2"], ["127.0.0.1", "10.0.0.1"]])
    url = f"http://images.test:{http_server.port}/a.jpg"
    with open_fetcher(lambda *_: next(lookups)) as fetcher:
        assert fetcher.fetch(url, MAX_BYTES) == ReadResult(IMAGE)
        for address in ("127.0.0.2", "10.0.0.1"):
            with expect_error("address-not-allowed") as caught:
                fetcher.fetch(url, MAX_BYTES)
            assert address in caught.value.message
        assert next(lookups, None) is None
    assert http_server.connections == 1


def test_the_next_address_of_a_host_is_tried(http_server: HostileServer) -> None:
    http_server.responders["/a.jpg"] = FINE
    with open_fetcher(lambda *_: ["127.0.0.99", "127.0.0.1"], allow_private=True) as fetcher:
        assert fetcher.fetch(f"http://images.test:{http_server.port}/a.jpg", MAX_BYTES) == ReadResult(IMAGE)


def test_hosts_that_cannot_be_reached_are_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    error = read_error(f"http://127.0.0.1:{port}/", attempts=2)
    assert error.code == "fetch-failed"
    assert all(fact in error.message for fact in ("127.0.0.1", os.strerror(errno.ECONNREFUSED), "2 attempts"))
    assert "nowhere.invalid" in read_error("http://nowhere.invalid/").message


@pytest.mark.parametrize(
    "start",
    [format_head(), format_head(Transfer_Encoding="chunked"), format_head(Content_Length=10**15)],
    ids=["close", "chunked", "length"],
)
def test_endless_bodies_are_read_to_the_limit_only(http_server: HostileServer, start: bytes) -> None:
    chunk = bytes(65536)
    piece = b"10000\r\n" + chunk + b"\r\n" if b"chunked" in start else chunk

    def send_endlessly(connection: socket.socket, count: int) -> None:
        connection.sendall(start)
        while not http_server.stopped.is_set():
            connection.sendall(piece)

    http_server.responders["/a.jpg"] = send_endlessly
    error = read_error(http_server.url + "/a.jpg", attempts=3)
    assert (error.code, str(MAX_BYTES) in error.message) == ("file-too-large", True)
    assert http_server.counts["/a.jpg"] == 1


def test_more_than_was_announced_harms_no_later_image(http_server: HostileServer) -> None:
    """The rest of the first response must not become the start of the second."""
    http_server.responders["/lies"] = respond_with(format_head(Content_Length=100) + IMAGE)
    http_server.responders["/a.jpg"] = FINE
    assert read_bytes(http_server.url + "/lies") == IMAGE[:100]
    assert read_bytes(http_server.url + "/a.jpg", attempts=2) == IMAGE


INVALID_RESPONSES = {
    "status": b"HTTP/1.1 two hundred OK\r\n\r\n",
    "negative-length": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
    "two-lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhello",
    "no-header": b"HTTP/1.1 200 OK\r\nno header at all\r\n\r\n",
    "chunk-size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nXYZ\r\nhello",
    "long-header": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 500_000 + b"\r\n\r\n",
    "many-headers": b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 100_000 + b"\r\n",
    "binary": b"\x00" * 500_000,
}


@pytest.mark.parametrize("response", INVALID_RESPONSES.values(), ids=INVALID_RESPONSES)
def test_responses_that_are_not_http_are_reported_briefly(http_server: HostileServer, response: bytes) -> None:
    http_server.responders["/a.jpg"] = respond_with(response, close=True)
    error = read_error(http_server.url + "/a.jpg")
    assert (error.code, error.message.startswith("127.0.0.1: ")) == ("fetch-failed", True)
    assert len(error.message) < 200


def test_known_versions_are_not_read(http_server: HostileServer) -> None:
    unchanged = respond_with(format_head("304 Not Modified", ETag='"1"'))
    http_server.responders["/a.jpg"] = respond_in_turn(respond_with_image(ETag='"1"'), unchanged, respond_with_image(ETag='"2"'))
    first = read_new(http_server.url + "/a.jpg")
    assert first.version is not None
    assert read_url(http_server.url + "/a.jpg", first.version) is None
    assert 'if-none-match: "1"' in http_server.requests[-1][1].lower()
    assert read_new(http_server.url + "/a.jpg", first.version).version != first.version
    assert http_server.connections == 1


def test_date_is_sent_without_an_etag(http_server: HostileServer) -> None:
    modified = "Tue, 24 Nov 2026 10:00:00 GMT"
    http_server.responders["/a.jpg"] = respond_in_turn(
        respond_with_image(Last_Modified=modified, Date="Tue, 24 Nov 2026 12:00:00 GMT"),
        respond_with(format_head("304 Not Modified")),
    )
    first = read_new(http_server.url + "/a.jpg")
    assert first.modified_at == "2026-11-24T10:00:00.000+00:00"
    assert read_url(http_server.url + "/a.jpg", first.version) is None
    assert f"if-modified-since: {modified}".lower() in http_server.requests[-1][1].lower()


def test_a_version_is_only_trusted_where_it_came_from(http_server: HostileServer) -> None:
    """Behind a redirect that leads elsewhere now, the same ETag means another picture."""
    http_server.responders["/a.jpg"] = respond_in_turn(redirect_to("/1.jpg"), redirect_to("/1.jpg"), redirect_to("/2.jpg"))
    tagged = respond_with_image(ETag='"v"')
    http_server.responders |= {
        "/1.jpg": respond_in_turn(tagged, respond_with(format_head("304 Not Modified"))),
        "/2.jpg": tagged,
    }
    first = read_new(http_server.url + "/a.jpg")
    assert read_url(http_server.url + "/a.jpg", first.version) is None
    assert read_url(http_server.url + "/a.jpg", first.version) is not None
    conditional = {text.split()[1] for _, text in http_server.requests if "if-none-match" in text.lower()}
    assert conditional == {"/1.jpg"}


def test_secrets_of_a_url_reach_the_server_only(http_server: HostileServer) -> None:
    http_server.responders["/a.jpg"] = respond_with_status("403 Forbidden")
    error = read_error(http_server.url + "/a.jpg?X-Amz-Signature=cafebabe")
    assert "cafebabe" in http_server.requests[0][1]
    assert "cafebabe" not in str(error)
    assert "hunter2" not in str(read_error(http_server.url.replace("//", "//user:hunter2@") + "/a.jpg"))


def test_fetches_at_a_host_are_limited(http_server: HostileServer) -> None:
    running, peak, lock = 0, 0, threading.Lock()
    three_running = threading.Barrier(3)

    def respond_together(connection: socket.socket, count: int) -> None:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        three_running.wait(HANGS_S)
        with lock:
            running -= 1
        FINE(connection, count)

    http_server.responders["/a.jpg"] = respond_together
    with ThreadPoolExecutor(16) as threads:
        images = list(threads.map(lambda n: read_bytes(f"{http_server.url}/a.jpg?{n}", per_host=3), range(48)))
    assert images == [IMAGE] * 48
    assert (peak, http_server.connections) == (3, 3)


def test_certificates_are_checked_against_the_name_in_the_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("images.test").configure_cert(context)
    with run_server(HostileServer(context)) as https_server:
        https_server.responders["/a.jpg"] = FINE
        url = f"https://images.test:{https_server.port}/a.jpg"
        with (
            open_fetcher(lambda *_: ["127.0.0.1"], allow_private=True) as fetcher,
            expect_error("certificate-not-trusted") as caught,
        ):
            fetcher.fetch(url, MAX_BYTES)
        assert "images.test: its certificate" in caught.value.message
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        with open_fetcher(lambda *_: ["127.0.0.1"], allow_private=True) as fetcher:
            assert fetcher.fetch(url, MAX_BYTES) == ReadResult(IMAGE)
            with expect_error("certificate-not-trusted") as caught:
                fetcher.fetch(url.replace("images.test", "other.test"), MAX_BYTES)
        assert "other.test: its certificate" in caught.value.message
        assert len(https_server.requests) == 1


FORKING_SCRIPT = """
import os, sys
from stair_es.sources.base import ReadLimits
from stair_es.sources.http.locator import UrlLocator
from stair_es.sources.base import UrlPolicy
locator, limits = UrlLocator(sys.argv[1]), ReadLimits(url_policy=UrlPolicy(allow_private=True, timeout_s=10, attempts=1))
sizes = [len(locator.read(limits).data)]
child = os.fork()
sizes += [len(locator.read(limits).data) for _ in range(3)]
if child == 0:
    os._exit(0 if sizes == [len(sizes) and sizes[0]] * 4 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or (sizes != [sizes[0]] * 4))
"""


def test_forked_child_opens_new_connections(http_server: HostileServer) -> None:
    http_server.responders["/a.jpg"] = FINE
    argv = [sys.executable, "-W", "ignore", "-c", FORKING_SCRIPT, http_server.url + "/a.jpg"]
    assert subprocess.run(argv, check=False, timeout=60, env={**os.environ}).returncode == 0
    assert http_server.connections == 2
    assert http_server.counts["/a.jpg"] == 7
