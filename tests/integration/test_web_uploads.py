"""Untrusted bodies: too large, too slow, not images, too many at once. A real server, raw sockets where it matters."""

from __future__ import annotations

import io
import socket
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from PIL import Image
from support.corpora.phone_folder import encode_heif
from support.corpora.raw_files import build_raw
from support.corpora.web_corpus import PHOTOS, Corpus
from support.servers.hostile_http_server import PageClient, serve_page

from stair_es.cluster.client.connection import Connection
from stair_es.sources.image.decode import DecodeLimits
from stair_es.web.config import ServerLimits

SVG = "<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>alert(1)</script></svg>"
MAX_UPLOAD_BYTES = 300_000
LIMITS = ServerLimits(upload_bytes=MAX_UPLOAD_BYTES, decode_limits=DecodeLimits(max_pixels=1_000_000), upload_s=2.0)
POST = b"POST /api/image HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"


@pytest.fixture(scope="module")
def limited_page(node_url: str, corpus: Corpus) -> Iterator[PageClient]:
    with serve_page(Connection(url=node_url), corpus.alias, limits=LIMITS) as client:
        yield client


def build_png(width: int, height: int) -> bytes:
    def build_chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + build_chunk(b"IHDR", head)
        + build_chunk(b"IDAT", zlib.compress(bytes(100)))
        + build_chunk(b"IEND", b"")
    )


def build_slow_jpeg() -> bytes:
    """Few pixels, each gone over a thousand times."""
    buffer = io.BytesIO()
    Image.new("L", (900, 900), 100).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    begins, ends = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:ends] + data[begins:ends] * 1000 + data[ends:]


@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        (build_png(100_000, 100_000), "image/png", 422),
        (build_png(2_000_000_000, 2_000_000_000), "image/png", 422),
        (SVG.encode(), "image/svg+xml", 415),
        (SVG.encode(), "image/png", 422),
        (b"<html><script>alert(1)</script></html>", "image/png", 422),
        (b"<html></html>", "text/html", 415),
        (b"x=1", "application/x-www-form-urlencoded", 415),
        (build_slow_jpeg(), "image/jpeg", 422),
        (b"", "image/jpeg", 422),
        ((PHOTOS / "tabby-cat.jpg").read_bytes()[:3000], "image/jpeg", 422),
        (b"%PDF-1.7 ...", "image/jpeg", 422),
        (encode_heif(Image.new("RGB", (64, 48))), "image/heic", 422),  # its decoder isn't for strangers
        (build_raw("DNG", Image.new("RGB", (64, 48))), "image/x-adobe-dng", 200),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "image/x-eps", 422),
        (b"\x00" * 1000, "image/jpeg", 422),
        (bytes(MAX_UPLOAD_BYTES + 1), "image/jpeg", 413),
        ((PHOTOS / "tabby-cat.jpg").read_bytes(), "IMAGE/JPEG; name=x", 200),
        ((PHOTOS / "tabby-cat.jpg").read_bytes(), "image/png", 200),  # what it is decides, not what it is called
    ],
    ids=count(),  # else the bytes are
)
def test_uploads(limited_page: PageClient, data: bytes, content_type: str, status: int) -> None:
    response = limited_page.post_image(data, content_type)
    assert response.status == status, response.body
    assert response.headers["content-type"] == "application/json"
    assert b"Traceback" not in response.body


def test_an_upload_without_a_type_is_rejected(limited_page: PageClient) -> None:
    assert limited_page.request("POST", "/api/image", b"x", {}).status == 415
    assert limited_page.request("POST", "/api/search", b'{"text": "cat"}', {}).status == 415
    assert limited_page.request("POST", "/api/search", b'{"text": "cat"}', {"content-type": "text/plain"}).status == 415


def send_raw(page: PageClient, head: str, parts: list[bytes]) -> bytes:
    """Send bytes as they are, and return the response until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", page.port), timeout=120) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode())
        for part in parts:
            try:
                connection.sendall(part)
            except OSError:  # the server has closed it
                break
        response = b""
        while block := connection.recv(65536):
            response += block
        return response


CHUNK = b"10000\r\n" + bytes(0x10000) + b"\r\n"


@pytest.mark.parametrize(
    ("header", "parts", "status"),
    [
        ("Transfer-Encoding: chunked", [*[CHUNK] * 6, b"0\r\n\r\n"], 413),
        ("Content-Length: 999999999999", [], 413),
        ("Content-Length: 1000", [b"x"], 408),
    ],
    ids=["no length", "huge length", "missing body"],
)
def test_bodies_are_counted_and_not_awaited(limited_page: PageClient, header: str, parts: list[bytes], status: int) -> None:
    head = f"POST /api/image HTTP/1.1\nHost: localhost\nContent-Type: image/jpeg\n{header}\n\n"
    response = send_raw(limited_page, head, parts)
    assert response.startswith(f"HTTP/1.1 {status} ".encode())
    assert (f"{MAX_UPLOAD_BYTES:,} bytes".encode() in response) == (status == 413)


def test_a_query_is_as_long_as_it_may_be(limited_page: PageClient) -> None:
    big = b'{"text": "cat"' + b" " * LIMITS.body_bytes + b"}"
    response = limited_page.request("POST", "/api/search", big, {"content-type": "application/json"})
    assert response.status == 413
    deep = b'{"text": ' + b"[" * 100_000
    response = limited_page.request("POST", "/api/search", deep, {"content-type": "application/json"})
    assert response.status == 400


def test_excess_requests_get_retry_after(node_url: str, corpus: Corpus) -> None:
    limits = ServerLimits(max_concurrent=1, max_waiting=0)
    data = (PHOTOS / "tabby-cat.jpg").read_bytes()
    with serve_page(Connection(url=node_url), corpus.alias, limits=limits) as limited_page, ThreadPoolExecutor(8) as pool:
        assert limited_page.post_image(data).status == 200
        responses = list(pool.map(lambda _: limited_page.post_image(data), range(16)))
        assert {response.status for response in responses} == {200, 429}
        for response in responses:
            assert response.status == 200 or response.headers["retry-after"].isdecimal()
        assert limited_page.post_image(data).status == 200  # and the place is free again


def test_memory_of_bodies_is_bounded(node_url: str, corpus: Corpus) -> None:
    limits = ServerLimits(max_held_bytes=10_000)
    with serve_page(Connection(url=node_url), corpus.alias, limits=limits) as limited_page:
        assert limited_page.post_image(bytes(9_000)).status == 422
        assert limited_page.post_image(bytes(11_000)).status == 429
        assert limited_page.post_image(bytes(9_000)).status == 422


def test_the_server_survives_arbitrary_requests(limited_page: PageClient) -> None:
    for garbage in (b"\x00\x01\x02\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", POST + b"Content-Length: -1\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", limited_page.port), timeout=120) as connection:
            connection.sendall(garbage)
            connection.recv(1000)
    with socket.create_connection(("127.0.0.1", limited_page.port), timeout=120) as connection:
        connection.sendall(POST + b"Content-Length: 100\r\n\r\nabc")
    assert limited_page.get("/api/about").status == 200
    assert not [message for message in limited_page.messages if "Traceback" in message]
