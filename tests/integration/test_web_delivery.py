"""How the page is sent: below the path of a proxy, compressed, and kept by browsers."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator

import pytest
from support.corpora.web_corpus import Corpus
from support.servers.hostile_http_server import PageClient, serve_page

from stair_es.cluster.client.connection import Connection
from stair_es.web.auth import SECURITY_HEADERS, AccessPolicy

TOKEN = "correct-horse-battery-staple"
CAT = {"text": "cat"}
GZIP = {"accept-encoding": "gzip, deflate, br"}


@pytest.fixture(scope="module")
def prefixed_page(node_url: str, corpus: Corpus) -> Iterator[PageClient]:
    with serve_page(Connection(url=node_url), corpus.alias, roots=(corpus.folder,), root_path="/shared/images") as client:
        yield client


@pytest.fixture(scope="module")
def private_page(node_url: str, corpus: Corpus) -> Iterator[PageClient]:
    with serve_page(Connection(url=node_url), corpus.alias, guard=AccessPolicy(token=TOKEN), root_path="/images") as client:
        yield client


def test_every_route_has_the_path_or_not(prefixed_page: PageClient, corpus: Corpus) -> None:
    id_ = corpus.get_id("tabby-cat")
    for target in ("/", "/compare", f"/image/{id_}", "/static/api.js", "/api/about", f"/api/image/{id_}", f"/original/{id_}"):
        with_path, without = prefixed_page.get(f"/shared/images{target}"), prefixed_page.get(target)
        assert (with_path.status, with_path.body) == (200, without.body), target
    assert (
        prefixed_page.post("/shared/images/api/search", CAT).json["hits"] == prefixed_page.post("/api/search", CAT).json["hits"]
    )
    assert prefixed_page.get("/shared/images").body == prefixed_page.get("/").body
    assert b'<base href="/shared/images/">' in prefixed_page.get("/").body
    assert prefixed_page.get("/shared/images/image/a%2Fb").status == 200
    for target in ("/shared", "/shared/imagesque/", "/shared/images/shared/images/", "/other/", "/shared/images/compare/"):
        response = prefixed_page.get(target)
        assert (response.status, "location" in response.headers) == (404, False), target


def test_addresses_in_responses_are_relative(prefixed_page: PageClient) -> None:
    hit = prefixed_page.post("/api/search", CAT).json["hits"][0]
    assert re.match(r"thumb/[^/]", hit["thumbnail"])
    assert prefixed_page.get(f"/shared/images/{hit['thumbnail']}").status == 200


@pytest.mark.parametrize("prefix", ["", "/images"])
def test_the_login_keeps_to_the_path(private_page: PageClient, prefix: str) -> None:
    response = private_page.get(f"{prefix}/compare?token={TOKEN}&b=%26")
    assert (response.status, response.headers["location"]) == (303, "/images/compare?b=%26")
    [cookie] = response.cookies
    assert "Path=/images" in cookie.split("; ")
    assert private_page.get(f"{prefix}/api/about", cookie=cookie.partition(";")[0]).status == 200
    form = private_page.get(f"{prefix}/compare?a=1", accept="text/html")
    assert form.status == 401
    assert b'<a href="/images/compare?a=1">' in form.body
    assert "/images/?token=" in private_page.get(f"{prefix}/api/about").json["remedy"]
    redirect = private_page.request("GET", f"{prefix}//evil.example/x?token={TOKEN}")
    assert redirect.headers["location"] == "/images/evil.example/x"


@pytest.mark.parametrize("prefix", ["", "/images"])
def test_access_is_checked_below_the_path(private_page: PageClient, prefix: str) -> None:
    bearer = f"Bearer {TOKEN}"
    assert private_page.get(f"{prefix}/health", host="evil.example").body == b"ok\n"
    assert private_page.get(f"{prefix}/api/about").status == 401
    assert private_page.get(f"{prefix}/api/about", authorization=bearer, host="evil.example").status == 403
    posted = private_page.post(f"{prefix}/api/search", CAT, authorization=bearer, origin="http://evil.example")
    assert posted.status == 403
    assert private_page.get("/images/images/health").status == 401  # stripped once


def test_text_is_compressed_if_accepted(prefixed_page: PageClient) -> None:
    for target in ("/", "/static/search-view.js", "/static/parts.css"):
        plain, compressed = prefixed_page.get(target), prefixed_page.request("GET", target, None, GZIP)
        assert compressed.headers["content-encoding"] == "gzip", target
        assert gzip.decompress(compressed.body) == plain.body
        assert len(compressed.body) < 0.6 * len(plain.body)
        assert (plain.headers["vary"], compressed.headers["vary"]) == ("Accept-Encoding", "Accept-Encoding")
        assert compressed.headers.get("etag") == plain.headers.get("etag")
        assert compressed.headers["content-length"] == str(len(compressed.body))
        for name, value in SECURITY_HEADERS.items():
            assert compressed.headers[name] == value or name == "cache-control"
        head = prefixed_page.request("HEAD", target, None, GZIP)
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", compressed.headers["content-length"])
    found = prefixed_page.request("POST", "/api/search", b'{"text": "cat"}', {**GZIP, "content-type": "application/json"})
    assert found.headers["content-encoding"] == "gzip"
    assert b'"hits"' in gzip.decompress(found.body)


def test_images_and_short_responses_are_not_compressed(prefixed_page: PageClient, corpus: Corpus) -> None:
    id_ = corpus.get_id("tabby-cat")
    for target in (f"/thumb/{id_}", f"/original/{id_}", "/health", "/static/icon.svg", "/nothing"):
        assert "content-encoding" not in prefixed_page.request("GET", target, None, GZIP).headers, target


def test_versioned_files_are_cached_forever(prefixed_page: PageClient) -> None:
    html = prefixed_page.get("/").body.decode()
    [start] = re.findall(r'<script type="module" src="([^"]+)">', html)
    response = prefixed_page.get(f"/{start}")
    assert response.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert prefixed_page.get("/static/main.js").headers["cache-control"] == "no-cache"
    assert prefixed_page.get("/static/main.js").body == response.body
    assert prefixed_page.get("/static/000000000000/main.js").status == 404
    for target in ("/", "/static/main.js"):
        etag = prefixed_page.get(target).headers["etag"]
        assert prefixed_page.get(target, if_none_match='"other"').status == 200
        for known in (etag, f'"other", {etag}', etag.removeprefix("W/")):
            unchanged = prefixed_page.request("GET", target, None, {**GZIP, "if-none-match": known})
            assert (unchanged.status, unchanged.body, unchanged.headers["etag"]) == (304, b"", etag)
            assert (unchanged.headers["vary"], unchanged.headers["cache-control"]) == ("Accept-Encoding", "no-cache")
