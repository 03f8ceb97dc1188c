"""Untrusted documents, ids, paths and uploads. A real node, real HTTP, real files."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image
from support.corpora.web_corpus import NAMES, PHOTOS, Corpus, ingest_corpus
from support.servers.hostile_http_server import PageClient, serve_page

from stair_es.cluster.client.connection import Connection
from stair_es.sources.io.uris import to_file_uri

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>\u2028{{7*7}}'
SVG = "<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>alert(1)</script></svg>"
SECRET = b"the secret of another folder"

IDS = ("a/b", "x/neighbors", "ünï 猫", "a?b#c&d=e", "100%", "a%2Fb", "a+b", "'\"<>", "a\\b", ".hidden", "…")


@pytest.fixture(scope="module")
def corpus(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    with ingest_corpus(node_url, "test-web-hostile", tmp_path_factory.mktemp("photos")) as made:
        outside = made.folder.parent / "outside"
        outside.mkdir(exist_ok=True)
        (outside / "secret.jpg").write_bytes((PHOTOS / "red-panda.jpg").read_bytes())
        (outside / "secret.txt").write_bytes(SECRET)
        (made.folder / "link.jpg").symlink_to(outside / "secret.jpg")
        yield made


@pytest.fixture(scope="module")
def page(node_url: str, corpus: Corpus) -> Iterator[PageClient]:
    with serve_page(Connection(url=node_url), corpus.alias, roots=(corpus.folder,)) as made:
        yield made


def hit_of(page: PageClient, id_: str, **body: object) -> dict[str, Any]:
    found = page.post("/api/search", {"text": "hostileword", "vector": {"hostileword": 1.0}, **body})
    assert found.status == 200, found.body
    return next(hit for hit in found.json["hits"] if hit["id"] == id_)


def stored(corpus: Corpus, id_: str, **source: object) -> None:
    corpus.add_document(id_, {"tokens": {"hostileword": 1.0}, "top_tokens": ["hostileword"], **source})


def test_hostile_captions_and_names_become_json_text(page: PageClient, corpus: Corpus) -> None:
    stored(corpus, "hostile", uri=f"file:///p/{HOSTILE}", caption=HOSTILE, source=HOSTILE, camera=HOSTILE)
    for answer in (
        page.post("/api/search", {"vector": {"hostileword": 1}}),
        page.get("/api/image/hostile"),
        page.post("/api/facets", {"vector": {"hostileword": 1}, "filters": [{"field": "source", "any": [HOSTILE]}]}),
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
def test_documents_of_any_kind_are_shown(page: PageClient, corpus: Corpus, source: dict[str, object], method: str) -> None:
    stored(corpus, "foreign", **source)
    assert hit_of(page, "foreign", method=method)["id"] == "foreign"
    image = page.get("/api/image/foreign")
    assert image.status == 200, image.body
    assert image.json["caption"] is None or isinstance(image.json["caption"], str)
    assert page.get("/api/image/foreign/neighbors").status == 200
    assert page.get("/" + page.get("/api/image/foreign").json["thumbnail"]).status == 404


@pytest.mark.parametrize(
    "id_", ["a/b", "x/neighbors", "ünï 猫", "a?b#c&d=e", "100%", "a%2Fb", "a+b", "'\"<>", "a\\b", ".hidden", "…"]
)
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
def test_paths_lead_nowhere(page: PageClient, target: str) -> None:
    answer = page.request("GET", target)
    assert (answer.status, answer.headers["content-type"]) == (404, "application/json")
    assert b"root:" not in answer.body


def test_filters_are_not_regular_expressions_and_accept_unescaped_paths(page: PageClient, corpus: Corpus) -> None:
    def total(text: str) -> int:
        answer = page.post("/api/facets", {"filter": text})
        assert answer.status == 200, answer.body
        return int(answer.json["total"])

    everything = total("")
    assert total("uri:/.*/") == total("uri:x OR /.*/") == 0 < everything
    assert total("uri:*/tabby-cat.jpg") == total(f'uri:"{to_file_uri(corpus.folder / "tabby-cat.jpg")}"') == 1
    assert total("ingested_at:[now-1d/d TO *]") == len(NAMES)
    bomb = page.post("/api/search", {"text": "cat", "filter": "uri:/((a{1,100}){1,100}){1,100}/"})
    assert bomb.status == 400  # braces without a regular expression; as one it would never be answered


def test_without_a_root_there_are_no_originals(node_url: str, corpus: Corpus) -> None:
    with serve_page(Connection(url=node_url), corpus.alias) as page:
        id_ = corpus.get_id("tabby-cat")
        assert page.get("/api/about").json["originals"] is False
        assert page.get(f"/api/image/{id_}").json["original"] is None
        assert page.get(f"/original/{id_}").status == 404
        assert page.get(f"/thumb/{id_}").status == 200


def test_a_thumbnail_of_a_document_without_one_is_drawn_from_its_file(page: PageClient, corpus: Corpus) -> None:
    stored(corpus, "bare", uri=to_file_uri(corpus.folder / "dairy-cow.jpg"), fingerprint="f1")
    answer = page.get("/thumb/bare?v=f1")
    assert (answer.status, answer.headers["cache-control"]) == (200, "private, max-age=31536000, immutable")
    assert max(Image.open(io.BytesIO(answer.body)).size) == 320


def test_thumbnails_are_always_rendered_again(page: PageClient, corpus: Corpus) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (200, 0, 0)).save(buffer, "PNG")
    data = buffer.getvalue() + b"<script>alert(1)</script>"
    stored(corpus, "polyglot", thumbnail="data:image/png;base64," + base64.b64encode(data).decode())
    answer = page.get("/thumb/polyglot")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/webp")
    assert b"script" not in answer.body
    assert Image.open(io.BytesIO(answer.body)).size == (20, 10)


def test_an_index_of_tokens_alone_has_no_facets(node_url: str, corpus: Corpus, index_name: str) -> None:
    mapping = corpus.client.indices.get_mapping(index=corpus.index)[corpus.index]["mappings"]
    properties = {name: mapping["properties"][name] for name in ("tokens", "uri")}
    corpus.client.indices.create(index=index_name, body={"mappings": {"_meta": mapping["_meta"], "properties": properties}})
    corpus.client.index(index=index_name, id="a", body={"tokens": {"cat": 1.0}, "uri": "a.jpg"}, params={"refresh": "true"})
    with serve_page(Connection(url=node_url), index_name) as bare:
        for body in ({}, {"text": "cat"}):
            assert bare.post("/api/facets", body).json == {"total": 1, "facets": []}
            assert [hit["id"] for hit in bare.post("/api/search", body).json["hits"]] == ["a"]
