"""Images from servers on loopback that are slow, broken, lying or malicious."""

from __future__ import annotations

import contextlib
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
from typing import Any

import pytest
import trustme

from stair_es.errors import ReadError, RetryLater
from stair_es.sources.base import ReadLimits, ReadResult, UrlPolicy
from stair_es.sources.http import ssrf
from stair_es.sources.http.fetcher import Fetcher
from stair_es.sources.http.locator import UrlLocator

IMAGE = bytes(range(256)) * 40
HANGS_S = 20.0
"""Longer than any fetch below may last: only what would hang without end takes this long."""


class HostileServer(socketserver.ThreadingTCPServer):
    """Answers each path by a function that is given the connection, the request and how often the path was asked for."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, Callable[[socket.socket, int], None]] = {}
        self.requests: list[tuple[float, str]] = []
        self.connections = 0
        self.counts = Counter[str]()
        self.lock = threading.Lock()
        self.tls = tls
        self.stopped = threading.Event()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.server_address[1]}"

    def paths(self) -> list[str]:
        return [text.split()[1] for _, text in self.requests]

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Clients that hang up are what these tests are about."""


class _Handler(socketserver.BaseRequestHandler):
    server: HostileServer

    def handle(self) -> None:
        http_server, connection = self.server, self.request
        with http_server.lock:
            http_server.connections += 1
        if http_server.tls is not None:
            connection = http_server.tls.wrap_socket(connection, server_side=True)
        with connection:
            while request := _request(connection):
                path = request.split()[1]
                with http_server.lock:
                    http_server.requests.append((time.monotonic(), request))
                    http_server.counts[path] += 1
                    count = http_server.counts[path]
                http_server.answers[path.partition("?")[0]](connection, count)


def _request(connection: socket.socket) -> str:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return ""
        data += more
    return data.decode("latin-1")


@contextlib.contextmanager
def served(http_server: HostileServer) -> Iterator[HostileServer]:
    thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield http_server
    finally:
        http_server.stopped.set()
        http_server.shutdown()
        http_server.server_close()
        thread.join()


@pytest.fixture
def http_server() -> Iterator[HostileServer]:
    with served(HostileServer()) as made:
        yield made


def head(status: str = "200 OK", **headers: object) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode("latin-1")


def sends(*pieces: bytes, close: bool = False) -> Callable[[socket.socket, int], None]:
    def answer(connection: socket.socket, count: int) -> None:
        for piece in pieces:
            connection.sendall(piece)
        if close:
            connection.shutdown(socket.SHUT_RDWR)

    return answer


def in_turn(*answers: Callable[[socket.socket, int], None]) -> Callable[[socket.socket, int], None]:
    """The first answer to the first request, and so on; the last one from then on."""
    return lambda connection, count: answers[min(count, len(answers)) - 1](connection, count)


FINE = sends(head(Content_Length=len(IMAGE)), IMAGE)
HANG_UP = sends(close=True)


def redirect(to: str, status: str = "302 Found") -> Callable[[socket.socket, int], None]:
    return sends(head(status, Location=to, Content_Length=5) + b"moved")


def drips(http_server: HostileServer, start: bytes, piece: bytes) -> Callable[[socket.socket, int], None]:
    """`start`, and then `piece` again and again, until the client leaves; a client that wouldn't is let go, too late."""

    def answer(connection: socket.socket, count: int) -> None:
        connection.sendall(start)
        end = time.monotonic() + HANGS_S
        while time.monotonic() < end and not http_server.stopped.wait(0.02):
            connection.sendall(piece)

    return answer


def read(url: str, known_version: str | None = None, *, max_bytes: int = 1 << 20, **limits: Any) -> ReadResult | None:  # noqa: ANN401
    policy = UrlPolicy(**{"allow_private": True, "timeout_s": 10.0, "attempts": 1, **limits})
    return UrlLocator(url).read(ReadLimits(max_bytes=max_bytes, url_policy=policy), known_version)


def data(url: str, **limits: Any) -> bytes:  # noqa: ANN401
    got = read(url, **limits)
    assert got is not None
    return got.data


def refused(url: str, **limits: Any) -> str:  # noqa: ANN401
    """The reason, after a time that only a hang would exceed."""
    begun = time.monotonic()
    with pytest.raises(ReadError) as caught:
        read(url, **limits)
    assert time.monotonic() - begun < HANGS_S
    return caught.value.message


def test_fetches_reuse_connections_and_send_our_user_agent(http_server: HostileServer) -> None:
    http_server.answers["/a.jpg"] = sends(head(Content_Length=len(IMAGE), Set_Cookie="id=7"), IMAGE)
    for _ in range(3):
        assert data(http_server.url + "/a.jpg") == IMAGE
    assert http_server.connections == 1
    text = http_server.requests[-1][1].lower()
    assert "user-agent: stair-es/" in text
    assert "accept-encoding: identity" in text
    assert f"host: 127.0.0.1:{http_server.server_address[1]}" in text
    assert "cookie" not in text


def test_html_responses_reach_the_decoder(http_server: HostileServer) -> None:
    http_server.answers["/"] = sends(
        head(Content_Type="text/html", Transfer_Encoding="chunked"), b"4\r\n<htm\r\n2\r\nl>\r\n0\r\n\r\n"
    )
    assert data(http_server.url) == b"<html>"


def test_non_ascii_names_are_encoded_by_the_standards(http_server: HostileServer) -> None:
    http_server.answers["/%C3%A4%20b/%E7%86%8A.jpg"] = FINE
    assert data(http_server.url + "/ä b/熊.jpg?größe=1 2#teil") == IMAGE
    assert http_server.paths() == ["/%C3%A4%20b/%E7%86%8A.jpg?gr%C3%B6%C3%9Fe=1%202"]


def test_proxies_of_the_environment_are_not_used(http_server: HostileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    http_server.answers["/a.jpg"] = FINE
    assert data(http_server.url + "/a.jpg", timeout_s=9.5) == IMAGE  # a limit of its own: a fetcher that is new


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"", b""),  # accepts and says nothing
        (b"HTTP/1.1 200 OK\r\nX-A: ", b"a"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (head(Content_Length=10000), b"a"),
        (head(), b"a"),
        (head(Transfer_Encoding="chunked"), b"1\r\na\r\n"),
        (head("503 Service Unavailable", Content_Length=10000), b"a"),
        (head("302 Found", Location="/slow", Content_Length=10000), b"a"),
    ],
)
def test_slow_responses_time_out(http_server: HostileServer, start: bytes, piece: bytes) -> None:
    http_server.answers["/slow"] = drips(http_server, start, piece)
    reason = refused(http_server.url + "/slow", timeout_s=0.4, attempts=3)
    assert reason == "127.0.0.1: no response in time; not completed within 0.4 s"


def test_slow_tls_handshakes_time_out(http_server: HostileServer) -> None:
    def answer() -> None:
        connection = listener.accept()[0]
        with connection, contextlib.suppress(OSError):
            drips(http_server, b"\x16\x03\x03\x40\x00", b"\x00")(connection, 1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        reason = refused(f"https://127.0.0.1:{listener.getsockname()[1]}/", timeout_s=0.4)
        thread.join()
    assert reason == "127.0.0.1: no response in time; not completed within 0.4 s"


@pytest.mark.parametrize(
    "failure",
    [
        HANG_UP,
        sends(head("503 Service Unavailable", Content_Length=0)),
        sends(head("500 Internal Server Error", Content_Length=0)),
        sends(head("429 Too Many Requests", Content_Length=0, Retry_After="0")),
        sends(head(Content_Length=len(IMAGE)), IMAGE[:100], close=True),
        sends(head(Content_Encoding="gzip"), gzip.compress(IMAGE)[:-9], close=True),
        sends(head(Transfer_Encoding="chunked"), b"64\r\n" + IMAGE[:100] + b"\r\n", close=True),
        sends(b"SSH-2.0-OpenSSH_9.9\r\n\r\n", close=True),
    ],
)
def test_temporary_errors_are_retried_and_reported_if_they_persist(
    http_server: HostileServer, failure: Callable[..., None]
) -> None:
    http_server.answers["/a.jpg"] = in_turn(failure, FINE)
    assert data(http_server.url + "/a.jpg", attempts=2) == IMAGE
    http_server.answers["/b.jpg"] = failure
    assert refused(http_server.url + "/b.jpg", attempts=2).endswith("(2 attempts)")
    assert http_server.counts == {"/a.jpg": 2, "/b.jpg": 2}


@pytest.mark.parametrize("status", ["400 Bad", "401 No", "403 No", "404 Not Here", "410 Gone", "204 None", "206 Part", "501 No"])
def test_permanent_errors_are_not_retried(http_server: HostileServer, status: str) -> None:
    http_server.answers["/a.jpg"] = sends(head(status), close=True)
    assert refused(http_server.url + "/a.jpg", attempts=3).startswith(f"127.0.0.1: {status[:3]} ")
    assert http_server.counts["/a.jpg"] == 1


def test_retry_after_is_waited_for(http_server: HostileServer) -> None:
    http_server.answers["/a.jpg"] = in_turn(sends(head("429 Too Many Requests", Content_Length=0, Retry_After=2)), FINE)
    assert data(http_server.url + "/a.jpg", attempts=2) == IMAGE
    (first, _), (second, _) = http_server.requests
    assert second - first >= 1.9  # our own backoff would have been half a second at most


def test_too_long_retry_after_is_not_awaited(http_server: HostileServer) -> None:
    http_server.answers["/a.jpg"] = sends(head("503 Service Unavailable", Content_Length=0, Retry_After=3600))
    policy = UrlPolicy(allow_private=True, timeout_s=5.0)
    fetcher = Fetcher(policy)
    with pytest.raises(ReadError, match="503 Service Unavailable, asks to wait 3600 s"):
        fetcher.fetch(http_server.url + "/a.jpg", 1 << 20)
    with pytest.raises(ReadError, match="asked to wait another"):
        fetcher.fetch(http_server.url + "/b.jpg", 1 << 20)
    assert http_server.paths() == ["/a.jpg"]
    fetcher.close()


def test_deferring_callers_get_the_busy_host_at_once(http_server: HostileServer) -> None:
    port = http_server.server_address[1]
    http_server.answers["/a.jpg"] = in_turn(redirect(f"http://127.1:{port}/b.jpg"))
    http_server.answers["/b.jpg"] = in_turn(sends(head("503 Service Unavailable", Content_Length=0, Retry_After=3600)), FINE)
    limits = ReadLimits(defer=True, url_policy=UrlPolicy(allow_private=True, timeout_s=5.0))
    with pytest.raises(RetryLater) as told:
        UrlLocator(http_server.url + "/a.jpg").read(limits)
    assert (told.value.host, told.value.wait_s) == ("127.1", 3600.0)
    assert told.value.message == "127.1 (redirected from 127.0.0.1): 503 Service Unavailable, asks to wait 3600 s"
    got = UrlLocator(http_server.url + "/a.jpg").read(limits)  # when to come back is the caller's affair
    assert got is not None
    assert got.data == IMAGE


def test_redirects_are_followed_to_their_end(http_server: HostileServer) -> None:
    http_server.answers |= {
        "/1": redirect("/x/2", "301 M"),
        "/x/2": redirect("3", "307 T"),
        "/x/3": redirect(http_server.url + "/4#f"),
    }
    http_server.answers |= {"/4": redirect("?b=1", "308 P"), "/4?b=1": FINE}
    http_server.answers["/4"] = in_turn(redirect("/5", "308 P"))
    http_server.answers["/5"] = FINE
    assert data(http_server.url + "/1", max_redirects=4) == IMAGE
    assert http_server.connections == 1
    assert "more than 3 redirects" in refused(http_server.url + "/1", max_redirects=3)
    assert "more than 0 redirects" in refused(http_server.url + "/4", max_redirects=0)


def test_redirects_in_a_circle_end(http_server: HostileServer) -> None:
    http_server.answers |= {"/a": redirect("/b"), "/b": redirect("/a")}
    assert refused(http_server.url + "/a", max_redirects=50) == "127.0.0.1: redirect loop"
    assert http_server.paths() == ["/a", "/b"]


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("file:///etc/passwd", "scheme isn't allowed: file:///etc/passwd"),
        ("ftp://127.0.0.1/a.jpg", "scheme isn't allowed"),
        ("gopher://127.0.0.1:6379/_x", "scheme isn't allowed"),
        ("https://127.0.0.1/", "scheme isn't allowed"),
        ("http://user:hunter2@127.0.0.1/", "with a user name or password"),
        ("http://127.0.0.1:99999/", "malformed"),
        ("http://[::1", "malformed"),
        ("http://169.254.169.254/latest/meta-data", "is a cloud metadata service"),
        ("http://[::ffff:169.254.169.254]/", "is a cloud metadata service"),
    ],
)
def test_redirects_obey_the_rules_of_urls(http_server: HostileServer, to: str, reason: str) -> None:
    http_server.answers["/a"] = redirect(to)
    told = refused(http_server.url + "/a", schemes=("http",), attempts=2)
    assert reason in told
    assert "hunter2" not in told
    assert http_server.counts["/a"] == 1


def test_a_redirect_without_a_location_is_an_error(http_server: HostileServer) -> None:
    http_server.answers["/a"] = sends(head("302 Found", Content_Length=0))
    assert refused(http_server.url + "/a") == "127.0.0.1: 302 Found"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0", "[::1]", "[::ffff:7f00:1]"])
def test_loopback_is_never_connected_to_without_permission(http_server: HostileServer, host: str) -> None:
    http_server.answers["/a.jpg"] = FINE
    url = http_server.url.replace("127.0.0.1", host) + "/a.jpg"
    assert "is loopback" in refused(url, allow_private=False, attempts=3)
    assert http_server.connections == 0


@pytest.fixture
def public_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 stands for a public address; the rest of loopback stays what it is."""
    real = ssrf.find_block_reason
    monkeypatch.setattr(
        ssrf, "find_block_reason", lambda ip, allow_private: (ip != "127.0.0.1" and real(ip, allow_private=False)) or None
    )


@pytest.mark.usefixtures("public_loopback")
def test_a_public_server_cannot_redirect_to_a_private_one(http_server: HostileServer) -> None:
    port = http_server.server_address[1]
    http_server.answers |= {
        "/a": redirect(f"http://127.0.0.2:{port}/b"),
        "/c": redirect(f"http://localhost.:{port}/b"),
        "/b": FINE,
    }
    with ResolverFetcher(lambda *_: ["127.0.0.1"]) as fetcher:
        assert fetcher.fetch(f"http://images.test:{port}/b", 1 << 20) == ReadResult(IMAGE)
    assert refused(http_server.url + "/a", allow_private=False) == (
        "127.0.0.2 (redirected from 127.0.0.1): refused: the address is loopback (--allow-private-urls)"
    )
    resolve: ssrf.Resolver = lambda host, *_: ["127.0.0.1"] if host == "images.test" else ["127.0.0.2"]  # noqa: E731
    reason = r"^localhost\. \(redirected from images\.test\): refused: its address 127\.0\.0\.2"
    with ResolverFetcher(resolve) as fetcher, pytest.raises(ReadError, match=reason):
        fetcher.fetch(f"http://images.test:{port}/c", 1 << 20)
    assert http_server.paths().count("/b") == 1


@pytest.mark.usefixtures("public_loopback")
def test_dns_rebinding_is_prevented(http_server: HostileServer) -> None:
    """DNS rebinding: checked is what is connected to, and every new connection is checked."""
    http_server.answers["/a.jpg"] = sends(head(Content_Length=len(IMAGE), Connection="close"), IMAGE, close=True)
    told = iter([["127.0.0.1"], ["127.0.0.2"], ["127.0.0.1", "10.0.0.1"]])
    url = f"http://images.test:{http_server.server_address[1]}/a.jpg"
    with ResolverFetcher(lambda *_: next(told)) as fetcher:
        assert fetcher.fetch(url, 1 << 20) == ReadResult(IMAGE)
        for _ in range(2):
            with pytest.raises(ReadError, match=r"refused: its address (127\.0\.0\.2|10\.0\.0\.1)"):
                fetcher.fetch(url, 1 << 20)
        assert next(told, None) is None
    assert http_server.connections == 1


def test_the_next_address_of_a_host_is_tried(http_server: HostileServer) -> None:
    http_server.answers["/a.jpg"] = FINE
    with ResolverFetcher(lambda *_: ["127.0.0.99", "127.0.0.1"], allow_private=True) as fetcher:
        assert fetcher.fetch(f"http://images.test:{http_server.server_address[1]}/a.jpg", 1 << 20) == ReadResult(IMAGE)


class ResolverFetcher:
    """A fetcher with a resolver of the test's own."""

    def __init__(self, resolve: ssrf.Resolver, *, allow_private: bool = False) -> None:
        self.fetcher = Fetcher(UrlPolicy(timeout_s=10.0, attempts=2, allow_private=allow_private), resolve=resolve)

    def __enter__(self) -> Fetcher:
        return self.fetcher

    def __exit__(self, *_: object) -> None:
        self.fetcher.close()


def test_an_unknown_host_is_reported(http_server: HostileServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert refused(f"http://127.0.0.1:{port}/", attempts=2) == "127.0.0.1: can't connect: Connection refused (2 attempts)"
    assert refused("http://nowhere.invalid/", attempts=1).startswith("nowhere.invalid: ")


@pytest.mark.parametrize("start", [head(), head(Transfer_Encoding="chunked"), head(Content_Length=10**15)])
def test_endless_bodies_are_read_to_the_limit_only(http_server: HostileServer, start: bytes) -> None:
    chunk = bytes(65536)
    piece = b"10000\r\n" + chunk + b"\r\n" if b"chunked" in start else chunk

    def endless(connection: socket.socket, count: int) -> None:
        connection.sendall(start)
        while not http_server.stopped.is_set():
            connection.sendall(piece)

    http_server.answers["/a.jpg"] = endless
    assert "limit of 1000000" in refused(http_server.url + "/a.jpg", max_bytes=1_000_000, attempts=3)
    assert http_server.counts["/a.jpg"] == 1


def test_a_compression_bomb_is_stopped(http_server: HostileServer) -> None:
    bomb = gzip.compress(bytes(1 << 26))
    http_server.answers["/a.jpg"] = sends(head(Content_Length=len(bomb), Content_Encoding="gzip"), bomb)
    assert "more than the limit of 1000000 bytes" in refused(http_server.url + "/a.jpg", max_bytes=1_000_000)
    packed = gzip.compress(IMAGE)
    http_server.answers["/b.jpg"] = sends(head(Content_Length=len(packed), Content_Encoding="gzip"), packed)
    assert data(http_server.url + "/b.jpg") == IMAGE
    http_server.answers["/c.jpg"] = sends(head(Content_Length=len(IMAGE), Content_Encoding="gzip"), IMAGE)
    assert "declared as compressed, but isn't" in refused(http_server.url + "/c.jpg")


def test_more_than_was_announced_harms_no_later_image(http_server: HostileServer) -> None:
    """The rest of the first answer must not become the start of the second."""
    http_server.answers["/lies"] = sends(head(Content_Length=100) + IMAGE)
    http_server.answers["/a.jpg"] = FINE
    assert data(http_server.url + "/lies") == IMAGE[:100]
    assert data(http_server.url + "/a.jpg", attempts=2) == IMAGE


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 two hundred OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nno header at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nXYZ\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 500_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 100_000 + b"\r\n",
        b"\x00" * 500_000,
    ],
)
def test_responses_that_are_not_http_are_reported_briefly(http_server: HostileServer, answer: bytes) -> None:
    http_server.answers["/a.jpg"] = sends(answer, close=True)
    reason = refused(http_server.url + "/a.jpg")
    assert reason.startswith(("127.0.0.1: invalid response: ", "127.0.0.1: connection lost"))
    assert len(reason) < 200


def test_known_versions_are_not_read(http_server: HostileServer) -> None:
    unchanged = sends(head("304 Not Modified", ETag='"1"'))
    etag1, etag2 = (sends(head(Content_Length=len(IMAGE), ETag=f'"{n}"'), IMAGE) for n in (1, 2))
    http_server.answers["/a.jpg"] = in_turn(etag1, unchanged, etag2)
    first = read(http_server.url + "/a.jpg")
    assert first is not None
    assert first.version is not None
    assert read(http_server.url + "/a.jpg", first.version) is None
    assert 'if-none-match: "1"' in http_server.requests[-1][1].lower()
    third = read(http_server.url + "/a.jpg", first.version)
    assert third is not None
    assert third.version != first.version
    assert http_server.connections == 1


def test_date_is_sent_without_an_etag(http_server: HostileServer) -> None:
    dates = {"Last_Modified": "Tue, 24 Nov 2026 10:00:00 GMT", "Date": "Tue, 24 Nov 2026 12:00:00 GMT"}
    http_server.answers["/a.jpg"] = in_turn(sends(head(Content_Length=3, **dates), b"abc"), sends(head("304 Not Modified")))
    first = read(http_server.url + "/a.jpg")
    assert first is not None
    assert first.modified_at == "2026-11-24T10:00:00.000+00:00"
    assert read(http_server.url + "/a.jpg", first.version) is None
    assert "if-modified-since: tue, 24 nov 2026 10:00:00 gmt" in http_server.requests[-1][1].lower()


def test_a_version_is_only_trusted_where_it_came_from(http_server: HostileServer) -> None:
    """Behind a redirect that leads elsewhere now, the same ETag means another picture."""
    http_server.answers["/a.jpg"] = in_turn(redirect("/1.jpg"), redirect("/1.jpg"), redirect("/2.jpg"))
    tagged = sends(head(Content_Length=3, ETag='"v"'), b"abc")
    http_server.answers |= {"/1.jpg": in_turn(tagged, sends(head("304 Not Modified"))), "/2.jpg": tagged}
    first = read(http_server.url + "/a.jpg")
    assert first is not None
    assert read(http_server.url + "/a.jpg", first.version) is None
    assert read(http_server.url + "/a.jpg", first.version) is not None
    asked = {text.split()[1] for _, text in http_server.requests if "if-none-match" in text.lower()}
    assert asked == {"/1.jpg"}


def test_unexpected_not_modified_is_an_error(http_server: HostileServer) -> None:
    http_server.answers["/a.jpg"] = sends(head("304 Not Modified"))
    assert refused(http_server.url + "/a.jpg") == "127.0.0.1: 304 Not Modified"


def test_secrets_of_a_url_reach_the_server_only(http_server: HostileServer) -> None:
    http_server.answers["/a.jpg"] = sends(head("403 Forbidden", Content_Length=0))
    reason = refused(http_server.url + "/a.jpg?X-Amz-Signature=cafebabe")
    assert "cafebabe" in http_server.requests[0][1]
    assert reason == "127.0.0.1: 403 Forbidden"
    assert "hunter2" not in refused(http_server.url.replace("//", "//user:hunter2@") + "/a.jpg")


def test_no_more_than_the_allowed_number_of_fetches_run_at_a_host_at_a_time(http_server: HostileServer) -> None:
    running, peak, lock = 0, 0, threading.Lock()

    def answer(connection: socket.socket, count: int) -> None:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        time.sleep(0.02)
        with lock:
            running -= 1
        FINE(connection, count)

    http_server.answers["/a.jpg"] = answer
    with ThreadPoolExecutor(16) as threads:
        got = list(threads.map(lambda n: data(f"{http_server.url}/a.jpg?{n}", per_host=3), range(48)))
    assert got == [IMAGE] * 48
    assert peak <= 3
    assert http_server.connections <= 3


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def _tls(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_certificates_are_checked_against_the_name_in_the_url(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(HostileServer(_tls(authority, "images.test"))) as http_server:
        http_server.answers["/a.jpg"] = FINE
        url = http_server.url.replace("127.0.0.1", "images.test") + "/a.jpg"
        untrusted = pytest.raises(ReadError, match=r"^images\.test: its certificate isn't trusted: ")
        with ResolverFetcher(lambda *_: ["127.0.0.1"], allow_private=True) as fetcher, untrusted:
            fetcher.fetch(url, 1 << 20)
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        with ResolverFetcher(lambda *_: ["127.0.0.1"], allow_private=True) as fetcher:
            assert fetcher.fetch(url, 1 << 20) == ReadResult(IMAGE)
            with pytest.raises(ReadError, match="its certificate isn't trusted"):
                fetcher.fetch(url.replace("images.test", "other.test"), 1 << 20)
        assert len(http_server.requests) == 1


FORKS = """
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
    http_server.answers["/a.jpg"] = FINE
    argv = [sys.executable, "-W", "ignore", "-c", FORKS, http_server.url + "/a.jpg"]
    assert subprocess.run(argv, check=False, timeout=60, env={**os.environ}).returncode == 0
    assert http_server.connections == 2
    assert http_server.counts["/a.jpg"] == 7
