"""How the page is sent: below the path of a proxy, compressed, and kept by browsers."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator

import pytest
from support.corpora.web_corpus import Corpus, ingest_corpus
from support.servers.hostile_http_server import PageClient, serve_page

from stair_es.cluster.client.connection import Connection
from stair_es.web.auth import SECURITY_HEADERS, AccessPolicy

TOKEN = "correct-horse-battery-staple"
CAT = {"text": "cat"}
GZIP = {"accept-encoding": "gzip, deflate, br"}


@pytest.fixture(scope="module")
def corpus(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    with ingest_corpus(node_url, "test-web-delivery", tmp_path_factory.mktemp("photos")) as made:
        yield made


@pytest.fixture(scope="module")
def page(node_url: str, corpus: Corpus) -> Iterator[PageClient]:
    with serve_page(Connection(url=node_url), corpus.alias, roots=(corpus.folder,), root_path="/shared/images") as made:
        yield made


@pytest.fixture(scope="module")
def private(node_url: str, corpus: Corpus) -> Iterator[PageClient]:
    with serve_page(Connection(url=node_url), corpus.alias, guard=AccessPolicy(token=TOKEN), root_path="/images") as made:
        yield made


def test_every_route_has_the_path_or_not(page: PageClient, corpus: Corpus) -> None:
    id_ = corpus.get_id("tabby-cat")
    for target in ("/", "/compare", f"/image/{id_}", "/static/api.js", "/api/about", f"/api/image/{id_}", f"/original/{id_}"):
        with_path, without = page.get(f"/shared/images{target}"), page.get(target)
        assert (with_path.status, with_path.body) == (200, without.body), target
    assert page.post("/shared/images/api/search", CAT).json["hits"] == page.post("/api/search", CAT).json["hits"]
    assert page.get("/shared/images").body == page.get("/").body
    assert b'<base href="/shared/images/">' in page.get("/").body
    assert page.get("/shared/images/image/a%2Fb").status == 200
    for target in ("/shared", "/shared/imagesque/", "/shared/images/shared/images/", "/other/", "/shared/images/compare/"):
        answer = page.get(target)
        assert (answer.status, "location" in answer.headers) == (404, False), target


def test_addresses_in_answers_are_relative(page: PageClient) -> None:
    hit = page.post("/api/search", CAT).json["hits"][0]
    assert re.match(r"thumb/[^/]", hit["thumbnail"])
    assert page.get(f"/shared/images/{hit['thumbnail']}").status == 200


@pytest.mark.parametrize("prefix", ["", "/images"])
def test_the_login_keeps_to_the_path(private: PageClient, prefix: str) -> None:
    answer = private.get(f"{prefix}/compare?token={TOKEN}&b=%26")
    assert (answer.status, answer.headers["location"]) == (303, "/images/compare?b=%26")
    [cookie] = answer.cookies
    assert "Path=/images" in cookie.split("; ")
    assert private.get(f"{prefix}/api/about", cookie=cookie.partition(";")[0]).status == 200
    form = private.get(f"{prefix}/compare?a=1", accept="text/html")
    assert form.status == 401
    assert b'<a href="/images/compare?a=1">' in form.body
    assert "/images/?token=" in private.get(f"{prefix}/api/about").json["remedy"]
    away = private.request("GET", f"{prefix}//evil.example/x?token={TOKEN}")
    assert away.headers["location"] == "/images/evil.example/x"


@pytest.mark.parametrize("prefix", ["", "/images"])
def test_access_is_checked_below_the_path(private: PageClient, prefix: str) -> None:
    bearer = f"Bearer {TOKEN}"
    assert private.get(f"{prefix}/health", host="evil.example").body == b"ok\n"
    assert private.get(f"{prefix}/api/about").status == 401
    assert private.get(f"{prefix}/api/about", authorization=bearer, host="evil.example").status == 403
    posted = private.post(f"{prefix}/api/search", CAT, authorization=bearer, origin="http://evil.example")
    assert posted.status == 403
    assert private.get("/images/images/health").status == 401  # stripped once


def test_text_is_compressed_for_those_who_accept_it(page: PageClient) -> None:
    for target in ("/", "/static/search-view.js", "/static/parts.css"):
        plain, packed = page.get(target), page.request("GET", target, None, GZIP)
        assert packed.headers["content-encoding"] == "gzip", target
        assert gzip.decompress(packed.body) == plain.body
        assert len(packed.body) < 0.6 * len(plain.body)
        assert (plain.headers["vary"], packed.headers["vary"]) == ("Accept-Encoding", "Accept-Encoding")
        assert packed.headers.get("etag") == plain.headers.get("etag")
        assert packed.headers["content-length"] == str(len(packed.body))
        for name, value in SECURITY_HEADERS.items():
            assert packed.headers[name] == value or name == "cache-control"
        head = page.request("HEAD", target, None, GZIP)
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", packed.headers["content-length"])
    found = page.request("POST", "/api/search", b'{"text": "cat"}', {**GZIP, "content-type": "application/json"})
    assert found.headers["content-encoding"] == "gzip"
    assert b'"hits"' in gzip.decompress(found.body)


def test_images_and_short_answers_are_sent_as_they_are(page: PageClient, corpus: Corpus) -> None:
    id_ = corpus.get_id("tabby-cat")
    for target in (f"/thumb/{id_}", f"/original/{id_}", "/health", "/static/icon.svg", "/nothing"):
        assert "content-encoding" not in page.request("GET", target, None, GZIP).headers, target


def test_files_of_a_version_are_never_asked_for_again(page: PageClient) -> None:
    html = page.get("/").body.decode()
    [start] = re.findall(r'<script type="module" src="([^"]+)">', html)
    answer = page.get(f"/{start}")
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert page.get("/static/main.js").headers["cache-control"] == "no-cache"
    assert page.get("/static/main.js").body == answer.body
    assert page.get("/static/000000000000/main.js").status == 404
    for target in ("/", "/static/main.js"):
        etag = page.get(target).headers["etag"]
        for known in (etag, f'"other", {etag}', etag.removeprefix("W/")):
            unchanged = page.request("GET", target, None, {**GZIP, "if-none-match": known})
            assert (unchanged.status, unchanged.body, unchanged.headers["etag"]) == (304, b"", etag)
            assert (unchanged.headers["vary"], unchanged.headers["cache-control"]) == ("Accept-Encoding", "no-cache")
