"""What strangers write and send: documents, ids, paths, uploads. A real node, real HTTP, real files."""

from __future__ import annotations

import base64
import io
import json
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image
from web_corpus import PHOTOS, Corpus, ingested
from web_site import Page, serving

from stair_es.cluster.connect import Connection
from stair_es.sources.decode import DecodeLimits
from stair_es.sources.paths import uri_of
from stair_es.web.limits import Limits

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>\u2028{{7*7}}'
SVG = "<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>alert(1)</script></svg>"
UPLOAD = 300_000
LIMITS = Limits(upload_bytes=UPLOAD, decode=DecodeLimits(max_pixels=1_000_000), upload_s=2.0)
SECRET = b"the secret of another folder"

IDS = ("a/b", "x/neighbours", "ünï 猫", "a?b#c&d=e", "100%", "a%2Fb", "a+b", "'\"<>", "a\\b", ".hidden", "…")
POST = b"POST /api/image HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"


@pytest.fixture(scope="module")
def corpus(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    with ingested(node_url, "test-web-hostile", tmp_path_factory.mktemp("photos")) as made:
        outside = made.folder.parent / "outside"
        outside.mkdir(exist_ok=True)
        (outside / "secret.jpg").write_bytes((PHOTOS / "red-panda.jpg").read_bytes())
        (outside / "secret.txt").write_bytes(SECRET)
        (made.folder / "link.jpg").symlink_to(outside / "secret.jpg")
        yield made


@pytest.fixture(scope="module")
def page(node_url: str, corpus: Corpus) -> Iterator[Page]:
    with serving(Connection(url=node_url), corpus.alias, roots=(corpus.folder,), limits=LIMITS) as made:
        yield made


def hit_of(page: Page, id_: str, **body: object) -> dict[str, Any]:
    found = page.post("/api/search", {"text": "hostileword", "vector": {"hostileword": 1.0}, **body})
    assert found.status == 200, found.body
    return next(hit for hit in found.json["hits"] if hit["id"] == id_)


def stored(corpus: Corpus, id_: str, **source: object) -> None:
    corpus.add(id_, {"tokens": {"hostileword": 1.0}, "top_tokens": ["hostileword"], **source})


def test_hostile_captions_and_names_come_out_as_json_text(page: Page, corpus: Corpus) -> None:
    stored(corpus, "hostile", uri=f"file:///p/{HOSTILE}", caption=HOSTILE, source=HOSTILE, camera=HOSTILE)
    for answer in (
        page.post("/api/search", {"vector": {"hostileword": 1}}),
        page.get("/api/image/hostile"),
        page.post("/api/facets", {"vector": {"hostileword": 1}}),
    ):
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.body.isascii()
        assert HOSTILE in json.dumps(answer.json, ensure_ascii=False).replace('\\"', '"')
    assert hit_of(page, "hostile")["caption"] == HOSTILE
    assert page.get("/api/image/hostile").json["facts"]["camera"] == HOSTILE


@pytest.mark.parametrize(
    "source",
    [
        {"caption": 7},
        {"caption": ["a", "b"]},
        {"caption": True},
        {"width": "12"},
        {"uri": ["a", "b"]},
        {"top_tokens": "hostileword"},
        {"thumbnail": "data:image/svg+xml;base64," + base64.b64encode(SVG.encode()).decode()},
        {"thumbnail": "javascript:alert(1)"},
        {"fingerprint": "../../x?y#z"},
        {"tokens": {"hostileword": 1.0, "a%2Eb": 2.0, "%": 3.0}},
        {},
    ],
)
@pytest.mark.parametrize("method", ["stair", "bag"])
def test_documents_of_any_kind_are_shown(page: Page, corpus: Corpus, source: dict[str, object], method: str) -> None:
    stored(corpus, "foreign", **source)
    assert hit_of(page, "foreign", method=method)["id"] == "foreign"
    image = page.get("/api/image/foreign")
    assert image.status == 200, image.body
    assert image.json["caption"] is None or isinstance(image.json["caption"], str)
    assert page.get("/api/image/foreign/neighbours").status == 200
    assert page.get(page.get("/api/image/foreign").json["thumbnail"]).status == 404


@pytest.mark.parametrize(
    "id_", ["a/b", "x/neighbours", "ünï 猫", "a?b#c&d=e", "100%", "a%2Fb", "a+b", "'\"<>", "a\\b", ".hidden", "…"]
)
def test_ids_of_any_kind_can_be_asked_for(page: Page, corpus: Corpus, id_: str) -> None:
    [document] = [source for source in corpus.all().values() if source.get("caption") == "tabby cat"]
    corpus.add(id_, {**document, "caption": "copy", "fingerprint": f"f-{id_}"})
    try:
        image = page.get(f"/api/image/{quote(id_, safe='')}")
        assert (image.status, image.json["id"]) == (200, id_)
        hits = page.get(f"/api/image/{quote(id_, safe='')}/neighbours").json["hits"]
        assert id_ not in [hit["id"] for hit in hits]
        assert hits[0]["name"] == "tabby-cat.jpg"
        assert page.get(image.json["thumbnail"]).headers["content-type"] == "image/webp"
        assert page.get(image.json["original"]).headers["content-type"] == "image/jpeg"
        assert page.post("/api/search", {"like": id_}).status == 200
    finally:
        corpus.client.delete(index=corpus.index, id=id_, params={"refresh": "true"})


def test_a_file_that_may_not_be_shown_is_as_one_that_isn_t_there(page: Page, corpus: Corpus) -> None:
    outside = corpus.folder.parent / "outside"
    folder = uri_of(corpus.folder)
    uris = (
        "file:///etc/passwd",
        uri_of(outside / "secret.jpg"),
        f"{folder}/../outside/secret.jpg",
        f"{folder}/%2e%2e/outside/secret.jpg",
        f"{folder}/..%2foutside%2fsecret.jpg",
        f"{folder}/link.jpg",
        f"{folder}/photos.jsonl",  # below the root, but no image
        f"{folder}/gone.jpg",
        f"file://elsewhere{(corpus.folder / 'tabby-cat.jpg')}",
        "http://127.0.0.1/x.jpg",
        "s3://bucket/x.jpg",
        "file:///proc/self/environ",
        "file:///dev/zero",
        "file:///%00",
    )
    answers = set()
    for uri in uris:
        stored(corpus, "document", uri=uri)
        if not uri.endswith(".jsonl"):
            assert page.get("/api/image/document").json["original"] is None
        for route in ("/original/document", "/thumb/document", "/thumb/document?v=x"):
            answer = page.get(route)
            answers.add((answer.status, answer.body))
    [(status, body)] = answers
    assert status == 404
    assert body == page.get("/original/nope").body.replace(b"nope", b"document")


@pytest.mark.parametrize(
    "target",
    [
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/static/..%2fserver.py",
        "/static/%2e%2e%2fserver.py",
        "/static/..%5cserver.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/api.js%00.css",
        "/static/....//server.py",
        "/original/..%2f..%2f..%2fetc%2fpasswd",
        "/original/%2fetc%2fpasswd",
        "/original/file:%2f%2f%2fetc%2fpasswd",
        "/thumb/../../etc/passwd",
        "/thumb/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "//etc/passwd",
        "/../../etc/passwd",
    ],
)
def test_paths_lead_nowhere(page: Page, target: str) -> None:
    answer = page.ask("GET", target)
    assert (answer.status, answer.headers["content-type"]) == (404, "application/json")
    assert b"root:" not in answer.body


def test_without_a_root_there_are_no_originals(node_url: str, corpus: Corpus) -> None:
    with serving(Connection(url=node_url), corpus.alias) as page:
        id_ = corpus.id_of("tabby-cat")
        assert page.get("/api/about").json["originals"] is False
        assert page.get(f"/api/image/{id_}").json["original"] is None
        assert page.get(f"/original/{id_}").status == 404
        assert page.get(f"/thumb/{id_}").status == 200


def test_a_thumbnail_of_a_document_without_one_is_drawn_from_its_file(page: Page, corpus: Corpus) -> None:
    stored(corpus, "bare", uri=uri_of(corpus.folder / "dairy-cow.jpg"), fingerprint="f1")
    answer = page.get("/thumb/bare?v=f1")
    assert (answer.status, answer.headers["cache-control"]) == (200, "private, max-age=31536000, immutable")
    assert max(Image.open(io.BytesIO(answer.body)).size) == 256


def test_a_thumbnail_is_drawn_anew_whatever_bytes_are_behind_it(page: Page, corpus: Corpus) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (200, 0, 0)).save(buffer, "PNG")
    data = buffer.getvalue() + b"<script>alert(1)</script>"
    stored(corpus, "polyglot", thumbnail="data:image/png;base64," + base64.b64encode(data).decode())
    answer = page.get("/thumb/polyglot")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/webp")
    assert b"script" not in answer.body
    assert Image.open(io.BytesIO(answer.body)).size == (20, 10)


def png_of(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


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
        (b"", "image/jpeg", 422),
        ((PHOTOS / "tabby-cat.jpg").read_bytes()[:3000], "image/jpeg", 422),
        (b"%PDF-1.7 ...", "image/jpeg", 422),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "image/x-eps", 422),
        (b"\x00" * 1000, "image/jpeg", 422),
        (bytes(UPLOAD + 1), "image/jpeg", 413),
        ((PHOTOS / "tabby-cat.jpg").read_bytes(), "IMAGE/JPEG; name=x", 200),
        ((PHOTOS / "tabby-cat.jpg").read_bytes(), "image/png", 200),  # what it is decides, not what it is called
    ],
)
def test_uploads(page: Page, data: bytes, kind: str, status: int) -> None:
    answer = page.drop(data, kind)
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert b"Traceback" not in answer.body


def test_an_upload_without_a_type_is_refused(page: Page) -> None:
    assert page.ask("POST", "/api/image", b"x", {}).status == 415
    assert page.ask("POST", "/api/search", b'{"text": "cat"}', {}).status == 415
    assert page.ask("POST", "/api/search", b'{"text": "cat"}', {"content-type": "text/plain"}).status == 415


def raw(page: Page, head: str, parts: list[bytes], *, pause_s: float = 0.0) -> bytes:
    """The answer to bytes as they are."""
    with socket.create_connection(("127.0.0.1", page.port), timeout=30) as connection:
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


def test_a_body_whose_length_isn_t_said_is_counted_as_it_comes(page: Page) -> None:
    head = "POST /api/image HTTP/1.1\nHost: localhost\nContent-Type: image/jpeg\nTransfer-Encoding: chunked\n\n"
    block = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    answer = raw(page, head, [*[block] * 6, b"0\r\n\r\n"])
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"larger than 300,000 bytes" in answer


def test_a_length_that_is_said_to_be_huge_is_refused_before_a_byte_comes(page: Page) -> None:
    head = "POST /api/image HTTP/1.1\nHost: localhost\nContent-Type: image/jpeg\nContent-Length: 999999999999\n\n"
    assert raw(page, head, []).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_doesn_t_arrive_is_not_waited_for(page: Page) -> None:
    head = "POST /api/image HTTP/1.1\nHost: localhost\nContent-Type: image/jpeg\nContent-Length: 1000\n\n"
    assert raw(page, head, [b"x"]).startswith(b"HTTP/1.1 408 ")


def test_a_question_is_as_long_as_it_may_be(page: Page) -> None:
    big = b'{"text": "cat"' + b" " * LIMITS.body_bytes + b"}"
    answer = page.ask("POST", "/api/search", big, {"content-type": "application/json"})
    assert answer.status == 413
    deep = b'{"text": ' + b"[" * 100_000
    answer = page.ask("POST", "/api/search", deep, {"content-type": "application/json"})
    assert answer.status == 400


def test_who_comes_when_too_many_wait_is_told_to_come_again(node_url: str, corpus: Corpus) -> None:
    limits = Limits(at_once=1, waiting=0)
    data = (PHOTOS / "tabby-cat.jpg").read_bytes()
    with serving(Connection(url=node_url), corpus.alias, limits=limits) as page, ThreadPoolExecutor(8) as pool:
        assert page.drop(data).status == 200
        answers = list(pool.map(lambda _: page.drop(data), range(16)))
        assert {answer.status for answer in answers} == {200, 429}
        for answer in answers:
            assert answer.status == 200 or answer.headers["retry-after"].isdecimal()
        assert page.drop(data).status == 200  # and the place is free again


def test_what_is_held_in_memory_is_bounded(node_url: str, corpus: Corpus) -> None:
    limits = Limits(held_bytes=10_000)
    with serving(Connection(url=node_url), corpus.alias, limits=limits) as page:
        assert page.drop(bytes(9_000)).status == 422
        assert page.drop(bytes(11_000)).status == 429
        assert page.drop(bytes(9_000)).status == 422


def test_what_visitors_do_leaves_the_server_standing(page: Page) -> None:
    for garbage in (b"\x00\x01\x02\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", POST + b"Content-Length: -1\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", page.port), timeout=10) as connection:
            connection.sendall(garbage)
            connection.recv(1000)
    with socket.create_connection(("127.0.0.1", page.port), timeout=10) as connection:
        connection.sendall(POST + b"Content-Length: 100\r\n\r\nabc")
    assert page.get("/api/about").status == 200
    assert not [said for said in page.said if "Traceback" in said]
