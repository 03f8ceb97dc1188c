"""Untrusted documents, ids, paths and uploads. A real node, real HTTP, real files."""

from __future__ import annotations

import base64
import io
import json
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image
from support.corpora.web_corpus import NAMES, PHOTOS, Corpus
from support.servers.hostile_http_server import PageClient, serve_page

from stair_es.cluster.client.connection import Connection
from stair_es.sources.io.uris import to_file_uri

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>\u2028{{7*7}}'
SVG = "<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>alert(1)</script></svg>"
SECRET = b"the secret of another folder"

IDS = ("a/b", "x/neighbors", "ünï 猫", "a?b#c&d=e", "100%", "a%2Fb", "a+b", "'\"<>", "a\\b", ".hidden", "…")


@pytest.fixture(scope="module", autouse=True)
def write_secrets(corpus: Corpus) -> None:
    """Write files next to the folder of photos, and a link to one of them into it."""
    outside = corpus.folder.parent / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "secret.jpg").write_bytes((PHOTOS / "red-panda.jpg").read_bytes())
    (outside / "secret.txt").write_bytes(SECRET)
    (corpus.folder / "link.jpg").symlink_to(outside / "secret.jpg")


def find_hit(page: PageClient, id_: str, **body: object) -> dict[str, Any]:
    response = page.post("/api/search", {"text": "cat", "vector": {"hostileword": 1.0}, **body})
    assert response.status == 200, response.body
    return next(hit for hit in response.json["hits"] if hit["id"] == id_)


def add_hostile_document(corpus: Corpus, id_: str, **source: object) -> None:
    corpus.add_document(id_, {"tokens": {"hostileword": 1.0}, "top_tokens": ["hostileword"], **source})


def test_hostile_captions_and_names_become_json_text(page: PageClient, corpus: Corpus) -> None:
    add_hostile_document(corpus, "hostile", uri=f"file:///p/{HOSTILE}", caption=HOSTILE, source=HOSTILE, camera=HOSTILE)
    for response in (
        page.post("/api/search", {"vector": {"hostileword": 1}}),
        page.get("/api/image/hostile"),
        page.post("/api/facets", {"vector": {"hostileword": 1}, "filters": [{"field": "source", "any": [HOSTILE]}]}),
    ):
        assert response.headers["content-type"] == "application/json"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.body.isascii()
        assert HOSTILE in json.dumps(response.json, ensure_ascii=False).replace('\\"', '"')
    assert find_hit(page, "hostile")["caption"] == HOSTILE
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
@pytest.mark.parametrize("method", ["words", "bag"])
def test_documents_of_any_kind_are_shown(page: PageClient, corpus: Corpus, source: dict[str, object], method: str) -> None:
    add_hostile_document(corpus, "foreign", **source)
    assert find_hit(page, "foreign", method=method)["id"] == "foreign"
    image = page.get("/api/image/foreign")
    assert image.status == 200, image.body
    assert image.json["caption"] is None or isinstance(image.json["caption"], str)
    assert page.get("/api/image/foreign/neighbors").status == 200
    assert page.get("/" + page.get("/api/image/foreign").json["thumbnail"]).status == 404


@pytest.mark.parametrize("id_", IDS)
def test_ids_of_any_kind_are_found(page: PageClient, corpus: Corpus, id_: str) -> None:
    [document] = [source for source in corpus.read_documents().values() if source.get("caption") == "tabby cat"]
    corpus.add_document(id_, {**document, "caption": "copy", "fingerprint": f"f-{id_}"})
    try:
        image = page.get(f"/api/image/{quote(id_, safe='')}")
        assert (image.status, image.json["id"]) == (200, id_)
        near = page.get(f"/api/image/{quote(id_, safe='')}/neighbors").json
        assert id_ not in [hit["id"] for hit in near["hits"]]
        [original] = near["duplicates"]
        assert original["name"] == "tabby-cat.jpg"
        [copy] = page.get(f"/api/image/{quote(original['id'], safe='')}/neighbors").json["duplicates"]
        assert copy["id"] == id_
        assert page.get("/" + image.json["thumbnail"]).headers["content-type"] == "image/webp"
        assert page.get("/" + image.json["original"]).headers["content-type"] == "image/jpeg"
        assert page.post("/api/search", {"similar_to": id_}).status == 200
    finally:
        corpus.client.delete(index=corpus.index, id=id_, params={"refresh": "true"})


def test_forbidden_files_look_missing(page: PageClient, corpus: Corpus) -> None:
    outside = corpus.folder.parent / "outside"
    folder = to_file_uri(corpus.folder)
    uris = (
        "file:///etc/passwd",
        to_file_uri(outside / "secret.jpg"),
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
    responses = set()
    for uri in uris:
        add_hostile_document(corpus, "document", uri=uri)
        if not uri.endswith(".jsonl"):
            assert page.get("/api/image/document").json["original"] is None
        for route in ("/original/document", "/thumb/document", "/thumb/document?v=x"):
            response = page.get(route)
            responses.add((response.status, response.body))
    [(status, body)] = responses
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
def test_paths_lead_nowhere(page: PageClient, target: str) -> None:
    response = page.request("GET", target)
    assert (response.status, response.headers["content-type"]) == (404, "application/json")
    assert b"root:" not in response.body


def test_filters_are_not_regular_expressions(page: PageClient, corpus: Corpus) -> None:
    def count_matches(text: str) -> int:
        response = page.post("/api/facets", {"filter": text})
        assert response.status == 200, response.body
        return int(response.json["total"])

    total_count = count_matches("")
    assert count_matches("uri:/.*/") == count_matches("uri:x OR /.*/") == 0 < total_count
    assert count_matches("uri:*/tabby-cat.jpg") == count_matches(f'uri:"{to_file_uri(corpus.folder / "tabby-cat.jpg")}"') == 1
    assert count_matches("ingested_at:[now-1d/d TO *]") == len(NAMES)
    bomb = page.post("/api/search", {"text": "cat", "filter": "uri:/((a{1,100}){1,100}){1,100}/"})
    assert bomb.status == 400  # braces without a regular expression; as one it would never be answered


def test_without_a_root_there_are_no_originals(node_url: str, corpus: Corpus) -> None:
    with serve_page(Connection(url=node_url), corpus.alias) as page:
        id_ = corpus.get_id("tabby-cat")
        assert page.get("/api/about").json["originals"] is False
        assert page.get(f"/api/image/{id_}").json["original"] is None
        assert page.get(f"/original/{id_}").status == 404
        assert page.get(f"/thumb/{id_}").status == 200


def test_missing_thumbnails_are_drawn_from_files(page: PageClient, corpus: Corpus) -> None:
    add_hostile_document(corpus, "bare", uri=to_file_uri(corpus.folder / "dairy-cow.jpg"), fingerprint="f1")
    response = page.get("/thumb/bare?v=f1")
    assert (response.status, response.headers["cache-control"]) == (200, "private, max-age=31536000, immutable")
    assert max(Image.open(io.BytesIO(response.body)).size) == 320


def test_thumbnails_are_always_rendered_again(page: PageClient, corpus: Corpus) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (200, 0, 0)).save(buffer, "PNG")
    data = buffer.getvalue() + b"<script>alert(1)</script>"
    add_hostile_document(corpus, "polyglot", thumbnail="data:image/png;base64," + base64.b64encode(data).decode())
    response = page.get("/thumb/polyglot")
    assert (response.status, response.headers["content-type"]) == (200, "image/webp")
    assert "immutable" not in response.headers["cache-control"]  # it has no fingerprint
    assert b"script" not in response.body
    assert Image.open(io.BytesIO(response.body)).size == (20, 10)


def test_an_index_of_tokens_alone_has_no_facets(node_url: str, corpus: Corpus, index_name: str) -> None:
    mapping = corpus.client.indices.get_mapping(index=corpus.index)[corpus.index]["mappings"]
    properties = {name: mapping["properties"][name] for name in ("tokens", "uri")}
    corpus.client.indices.create(index=index_name, body={"mappings": {"_meta": mapping["_meta"], "properties": properties}})
    corpus.client.index(index=index_name, id="a", body={"tokens": {"cat": 1.0}, "uri": "a.jpg"}, params={"refresh": "true"})
    with serve_page(Connection(url=node_url), index_name) as plain_page:
        for body in ({}, {"text": "cat"}):
            assert plain_page.post("/api/facets", body).json == {"total": 1, "weak": 0, "facets": []}
            assert [hit["id"] for hit in plain_page.post("/api/search", body).json["hits"]] == ["a"]
