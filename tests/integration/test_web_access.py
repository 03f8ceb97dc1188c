"""Access control, and the headers that the browser enforces: a real server, real headers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.corpora.web_corpus import PHOTOS, Corpus, ingest_corpus
from support.servers.hostile_http_server import PageClient, serve_page

from stair_es.cluster.client.connection import Connection
from stair_es.web.auth import SECURITY_HEADERS, AccessPolicy

TOKEN = "correct-horse-battery-staple"
CAT = {"text": "cat"}


@pytest.fixture(scope="module")
def corpus(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    with ingest_corpus(node_url, "test-web-access", tmp_path_factory.mktemp("photos")) as made:
        yield made


@pytest.fixture(scope="module")
def page(node_url: str, corpus: Corpus) -> Iterator[PageClient]:
    with serve_page(Connection(url=node_url), corpus.alias, roots=(corpus.folder,)) as made:
        yield made


@pytest.fixture(scope="module")
def private(node_url: str, corpus: Corpus) -> Iterator[PageClient]:
    with serve_page(Connection(url=node_url), corpus.alias, guard=AccessPolicy(token=TOKEN)) as made:
        yield made


def test_every_answer_carries_the_policy(page: PageClient, corpus: Corpus) -> None:
    id_ = corpus.get_id("tabby-cat")
    answers = [
        page.get(target)
        for target in ("/", "/static/api.js", "/api/about", f"/api/image/{id_}", f"/thumb/{id_}", f"/original/{id_}", "/nothing")
    ]
    answers += [
        page.post("/api/search", CAT),
        page.post("/api/search", {}),
        page.post("/api/facets", CAT),
        page.post_image((PHOTOS / "tabby-cat.jpg").read_bytes()),
        page.post_image(b"", "text/html"),
        page.request("DELETE", "/"),
        page.get("/", host="evil.example"),
        page.post("/api/search", CAT, origin="http://evil.example"),
        page.request("HEAD", "/"),
    ]
    for answer in answers:
        for name, value in SECURITY_HEADERS.items():
            assert answer.headers[name] == value or name == "cache-control", (answer.status, name)
        assert "server" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers
    policy = SECURITY_HEADERS["content-security-policy"]
    assert "unsafe" not in policy
    assert "script-src 'self';" in policy


def test_possibly_stale_responses_are_not_cached(page: PageClient) -> None:
    for answer in (page.get("/api/about"), page.post("/api/search", CAT), page.get("/api/image/nope"), page.get("/nothing")):
        assert answer.headers["cache-control"] == "no-store"
    assert page.get("/").headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "10.0.0.1", "", "localhost@evil.example"])
@pytest.mark.parametrize("target", ["/", "/api/about", "/thumb/x", "/static/api.js"])
def test_a_foreign_host_name_is_rejected(page: PageClient, host: str, target: str) -> None:
    answer = page.request("GET", target, None, {"host": host})
    assert (answer.status, set(answer.json)) == (403, {"error", "error_type", "code", "remedy"})


def test_other_origins_cannot_request_or_embed(page: PageClient) -> None:
    own = f"http://127.0.0.1:{page.port}"
    assert page.post("/api/search", CAT, origin=own).status == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "https://evil.example"):
        assert page.post("/api/search", CAT, origin=origin).status == 403
        assert page.get("/api/about", origin=origin).status == 403
    for site, mode in (("cross-site", "no-cors"), ("same-site", "cors"), ("cross-site", "websocket")):
        assert page.get("/thumb/x", sec_fetch_site=site, sec_fetch_mode=mode).status == 403
    assert page.get("/", sec_fetch_site="cross-site", sec_fetch_mode="navigate").status == 200


def test_all_routes_need_the_token(private: PageClient, corpus: Corpus) -> None:
    id_ = corpus.get_id("tabby-cat")
    for target in ("/", "/compare", "/static/api.js", "/api/about", f"/api/image/{id_}", f"/thumb/{id_}", "/nothing"):
        answer = private.get(target)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert set(answer.json) == {"error", "error_type", "code", "remedy"}
        assert TOKEN not in str(answer)
    assert private.post("/api/search", CAT).status == 401


def test_browsers_get_a_token_form(private: PageClient) -> None:
    html = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    asks = private.request("GET", "//compare?a=red+car&token=wrong&b=%22%3E", None, html)
    assert (asks.status, asks.headers["content-type"], asks.cookies) == (401, "text/html; charset=utf-8", ())
    policy = asks.headers["content-security-policy"]
    assert policy == SECURITY_HEADERS["content-security-policy"].replace("form-action 'none'", "form-action 'self'")
    assert b'href="/compare?a=red+car&amp;b=%22%3E"' in asks.body
    assert private.request("HEAD", "/", None, html).status == 401
    posted = private.request("POST", "/api/search", b"{}", {**html, "content-type": "application/json"})
    assert (posted.status, set(posted.json)) == (401, {"error", "error_type", "code", "remedy"})


def test_bearer_token_is_accepted(private: PageClient) -> None:
    assert private.get("/api/about", authorization=f"Bearer {TOKEN}").status == 200
    assert private.post("/api/search", CAT, authorization=f"bearer {TOKEN}").status == 200
    for wrong in (f"Basic {TOKEN}", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN, "Bearer \xe9"):
        assert private.request("GET", "/api/about", None, {"authorization": wrong}).status == 401


def test_url_token_becomes_a_cookie(private: PageClient) -> None:
    answer = private.get(f"/compare?a=red+car&token={TOKEN}&b=%26")
    assert (answer.status, answer.headers["location"]) == (303, "/compare?a=red+car&b=%26")
    [cookie] = answer.cookies
    pair, *attributes = cookie.split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
    assert TOKEN not in cookie
    assert "Secure" not in attributes  # plain HTTP: the browser would drop it
    [behind_a_proxy] = private.get(f"/?token={TOKEN}", x_forwarded_proto="https").cookies
    assert "Secure" in behind_a_proxy.split("; ")
    assert private.get("/compare", cookie=pair).status == 200
    assert private.get("/api/about", cookie=f"other=1; {pair}; more=2").status == 200
    assert private.get("/api/about", cookie=pair[:-1]).status == 401
    assert private.get("/api/about", cookie=pair.partition("=")[0] + f"={TOKEN}").status == 401
    assert private.get("/api/about", cookie=pair.replace("=", "x=", 1)).status == 401


def test_wrong_url_token_fails_and_redirects_are_local(private: PageClient) -> None:
    for wrong in ("", "wrong", TOKEN + "x", "%00"):
        answer = private.get(f"/?token={wrong}")
        assert (answer.status, answer.cookies) == (401, ())
    assert private.request("POST", f"/api/search?token={TOKEN}", b"{}", {"content-type": "application/json"}).status == 401
    away = private.request("GET", f"//evil.example/x?token={TOKEN}")
    assert away.headers["location"] == "/evil.example/x"
    odd = private.request("GET", f"/image/a%0d%0aSet-Cookie:%20x?token={TOKEN}")
    assert (odd.status, odd.headers["location"]) == (303, "/image/a%0D%0ASet-Cookie%3A%20x")


def test_foreign_hosts_are_rejected(private: PageClient) -> None:
    assert private.get("/api/about", host="evil.example", authorization=f"Bearer {TOKEN}").status == 403
