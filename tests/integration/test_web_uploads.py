"""Untrusted bodies: too large, too slow, not images, too many at once. A real server, raw sockets where it matters."""

from __future__ import annotations

import io
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from PIL import Image
from support.corpora.web_corpus import PHOTOS, Corpus, ingest_corpus
from support.servers.hostile_http_server import PageClient, serve_page

from stair_es.cluster.client.connection import Connection
from stair_es.sources.image.decode import DecodeLimits
from stair_es.web.config import ServerLimits

SVG = "<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>alert(1)</script></svg>"
UPLOAD = 300_000
LIMITS = ServerLimits(upload_bytes=UPLOAD, decode_limits=DecodeLimits(max_pixels=1_000_000), upload_s=2.0)
POST = b"POST /api/image HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"


@pytest.fixture(scope="module")
def corpus(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    with ingest_corpus(node_url, "test-web-uploads", tmp_path_factory.mktemp("photos")) as made:
        yield made


@pytest.fixture(scope="module")
def page(node_url: str, corpus: Corpus) -> Iterator[PageClient]:
    with serve_page(Connection(url=node_url), corpus.alias, limits=LIMITS) as made:
        yield made


def png_of(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def slow_jpeg() -> bytes:
    """Few pixels, each gone over a thousand times."""
    buffer = io.BytesIO()
    Image.new("L", (900, 900), 100).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    begins, ends = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:ends] + data[begins:ends] * 1000 + data[ends:]


@pytest.mark.parametrize(
    ("data", "kind", "status"),
    [
        (png_of(100_000, 100_000), "image/png", 422),
        (png_of(2_000_000_000, 2_000_000_000), "image/png", 422),
        (SVG.encode(), "image/svg+xml", 415),
        (SVG.encode(), "image/png", 422),
        (b"<html><script>alert(1)</script></html>", "image/png", 422),
        (b"<html></html>", "text/html", 415),
        (b"x=1", "application/x-www-form-urlencoded", 415),
        (slow_jpeg(), "image/jpeg", 422),
        (b"", "image/jpeg", 422),
        ((PHOTOS / "tabby-cat.jpg").read_bytes()[:3000], "image/jpeg", 422),
        (b"%PDF-1.7 ...", "image/jpeg", 422),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "image/x-eps", 422),
        (b"\x00" * 1000, "image/jpeg", 422),
        (bytes(UPLOAD + 1), "image/jpeg", 413),
        ((PHOTOS / "tabby-cat.jpg").read_bytes(), "IMAGE/JPEG; name=x", 200),
        ((PHOTOS / "tabby-cat.jpg").read_bytes(), "image/png", 200),  # what it is decides, not what it is called
    ],
    ids=count(),  # else the bytes are
)
def test_uploads(page: PageClient, data: bytes, kind: str, status: int) -> None:
    answer = page.post_image(data, kind)
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert b"Traceback" not in answer.body


def test_an_upload_without_a_type_is_rejected(page: PageClient) -> None:
    assert page.request("POST", "/api/image", b"x", {}).status == 415
    assert page.request("POST", "/api/search", b'{"text": "cat"}', {}).status == 415
    assert page.request("POST", "/api/search", b'{"text": "cat"}', {"content-type": "text/plain"}).status == 415


def raw(page: PageClient, head: str, parts: list[bytes], *, pause_s: float = 0.0) -> bytes:
    """The answer to bytes as they are."""
    with socket.create_connection(("127.0.0.1", page.port), timeout=120) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode())
        for part in parts:
            try:
                connection.sendall(part)
            except OSError:  # it has closed
                break
            threading.Event().wait(pause_s)
        answer = b""
        while block := connection.recv(65536):
            answer += block
        return answer


def test_bodies_without_a_length_are_counted(page: PageClient) -> None:
    head = "POST /api/image HTTP/1.1\nHost: localhost\nContent-Type: image/jpeg\nTransfer-Encoding: chunked\n\n"
    block = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    answer = raw(page, head, [*[block] * 6, b"0\r\n\r\n"])
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"larger than 300,000 bytes" in answer


def test_a_huge_declared_length_is_rejected_before_the_body_is_read(page: PageClient) -> None:
    head = "POST /api/image HTTP/1.1\nHost: localhost\nContent-Type: image/jpeg\nContent-Length: 999999999999\n\n"
    assert raw(page, head, []).startswith(b"HTTP/1.1 413 ")


def test_missing_bodies_are_not_awaited(page: PageClient) -> None:
    head = "POST /api/image HTTP/1.1\nHost: localhost\nContent-Type: image/jpeg\nContent-Length: 1000\n\n"
    assert raw(page, head, [b"x"]).startswith(b"HTTP/1.1 408 ")


def test_a_query_is_as_long_as_it_may_be(page: PageClient) -> None:
    big = b'{"text": "cat"' + b" " * LIMITS.body_bytes + b"}"
    answer = page.request("POST", "/api/search", big, {"content-type": "application/json"})
    assert answer.status == 413
    deep = b'{"text": ' + b"[" * 100_000
    answer = page.request("POST", "/api/search", deep, {"content-type": "application/json"})
    assert answer.status == 400


def test_excess_requests_get_retry_after(node_url: str, corpus: Corpus) -> None:
    limits = ServerLimits(max_concurrent=1, max_waiting=0)
    data = (PHOTOS / "tabby-cat.jpg").read_bytes()
    with serve_page(Connection(url=node_url), corpus.alias, limits=limits) as page, ThreadPoolExecutor(8) as pool:
        assert page.post_image(data).status == 200
        answers = list(pool.map(lambda _: page.post_image(data), range(16)))
        assert {answer.status for answer in answers} == {200, 429}
        for answer in answers:
            assert answer.status == 200 or answer.headers["retry-after"].isdecimal()
        assert page.post_image(data).status == 200  # and the place is free again


def test_memory_of_bodies_is_bounded(node_url: str, corpus: Corpus) -> None:
    limits = ServerLimits(max_held_bytes=10_000)
    with serve_page(Connection(url=node_url), corpus.alias, limits=limits) as page:
        assert page.post_image(bytes(9_000)).status == 422
        assert page.post_image(bytes(11_000)).status == 429
        assert page.post_image(bytes(9_000)).status == 422


def test_the_server_survives_arbitrary_requests(page: PageClient) -> None:
    for garbage in (b"\x00\x01\x02\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", POST + b"Content-Length: -1\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", page.port), timeout=120) as connection:
            connection.sendall(garbage)
            connection.recv(1000)
    with socket.create_connection(("127.0.0.1", page.port), timeout=120) as connection:
        connection.sendall(POST + b"Content-Length: 100\r\n\r\nabc")
    assert page.get("/api/about").status == 200
    assert not [message for message in page.messages if "Traceback" in message]
