"""Access control, and the headers that the browser enforces: a real server, real headers."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from support.corpora.web_corpus import PHOTOS, Corpus
from support.servers.coverage_reports import build_report
from support.servers.hostile_http_server import PageClient, serve_page

from stair_es.cluster.client.connection import Connection
from stair_es.web.auth import SECURITY_HEADERS, AccessPolicy
from stair_es.web.coverage import CoverageReport

TOKEN = "correct-horse-battery-staple"
CAT = {"text": "cat"}
REPORT = build_report(["<b>x</b>"], model="stair-mini-0")


@pytest.fixture(scope="module")
def private_page(node_url: str, corpus: Corpus) -> Iterator[PageClient]:
    report = msgspec.convert(REPORT, CoverageReport)
    with serve_page(Connection(url=node_url), corpus.alias, guard=AccessPolicy(token=TOKEN), coverage=report) as client:
        yield client


def test_every_response_carries_the_policy(page: PageClient, corpus: Corpus) -> None:
    id_ = corpus.get_id("tabby-cat")
    responses = [
        page.get(target)
        for target in (
            "/",
            "/static/api.js",
            "/api/about",
            "/api/coverage",
            f"/api/image/{id_}",
            f"/thumb/{id_}",
            f"/original/{id_}",
            "/nothing",
        )
    ]
    responses += [
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
    for response in responses:
        for name, value in SECURITY_HEADERS.items():
            assert response.headers[name] == value or name == "cache-control", (response.status, name)
        assert "server" not in response.headers
        assert "access-control-allow-origin" not in response.headers
    policy = SECURITY_HEADERS["content-security-policy"]
    assert "unsafe" not in policy
    assert "script-src 'self';" in policy


def test_only_named_sites_can_frame_the_page(node_url: str, corpus: Corpus) -> None:
    guard = AccessPolicy(frame_origins=("https://example.org", "http://localhost:1"))
    with serve_page(Connection(url=node_url), corpus.alias, guard=guard) as client:
        headers = client.get("/").headers
    assert "x-frame-options" not in headers
    own, framed = SECURITY_HEADERS["content-security-policy"].split("; "), headers["content-security-policy"].split("; ")
    assert {*framed} - {*own} == {"frame-ancestors https://example.org http://localhost:1"}
    assert {*own} - {*framed} == {"frame-ancestors 'none'"}


def test_possibly_stale_responses_are_not_cached(page: PageClient) -> None:
    for response in (page.get("/api/about"), page.post("/api/search", CAT), page.get("/api/image/nope"), page.get("/nothing")):
        assert response.headers["cache-control"] == "no-store"
    assert page.get("/").headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "10.0.0.1", "", "localhost@evil.example"])
@pytest.mark.parametrize("target", ["/", "/api/about", "/thumb/x", "/static/api.js"])
def test_a_foreign_host_name_is_rejected(page: PageClient, host: str, target: str) -> None:
    response = page.request("GET", target, None, {"host": host})
    assert (response.status, set(response.json)) == (403, {"error", "error_type", "code", "remedy"})


def test_other_origins_cannot_request_or_embed(page: PageClient) -> None:
    own = f"http://127.0.0.1:{page.port}"
    assert page.post("/api/search", CAT, origin=own).status == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "https://evil.example"):
        assert page.post("/api/search", CAT, origin=origin).status == 403
        assert page.get("/api/about", origin=origin).status == 403
    for site, mode in (("cross-site", "no-cors"), ("same-site", "cors"), ("cross-site", "websocket")):
        assert page.get("/thumb/x", sec_fetch_site=site, sec_fetch_mode=mode).status == 403
    assert page.get("/", sec_fetch_site="cross-site", sec_fetch_mode="navigate").status == 200


def test_all_routes_need_the_token(private_page: PageClient, corpus: Corpus) -> None:
    id_ = corpus.get_id("tabby-cat")
    for target in (
        "/",
        "/compare",
        "/coverage",
        "/static/api.js",
        "/api/about",
        "/api/coverage",
        f"/api/image/{id_}",
        f"/thumb/{id_}",
        "/nothing",
    ):
        response = private_page.get(target)
        assert (response.status, response.headers["www-authenticate"]) == (401, "Bearer")
        assert set(response.json) == {"error", "error_type", "code", "remedy"}
        assert TOKEN not in str(response)
    assert private_page.post("/api/search", CAT).status == 401


def test_browsers_get_a_token_form(private_page: PageClient) -> None:
    html = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    form = private_page.request("GET", "//compare?a=red+car&token=wrong&b=%22%3E", None, html)
    assert (form.status, form.headers["content-type"], form.cookies) == (401, "text/html; charset=utf-8", ())
    policy = form.headers["content-security-policy"]
    assert policy == SECURITY_HEADERS["content-security-policy"].replace("form-action 'none'", "form-action 'self'")
    assert b'href="/compare?a=red+car&amp;b=%22%3E"' in form.body
    assert private_page.request("HEAD", "/", None, html).status == 401
    posted = private_page.request("POST", "/api/search", b"{}", {**html, "content-type": "application/json"})
    assert (posted.status, set(posted.json)) == (401, {"error", "error_type", "code", "remedy"})


def test_bearer_token_is_accepted(private_page: PageClient) -> None:
    assert private_page.get("/api/about", authorization=f"Bearer {TOKEN}").status == 200
    assert private_page.post("/api/search", CAT, authorization=f"bearer {TOKEN}").status == 200
    for wrong in (f"Basic {TOKEN}", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN, "Bearer \xe9"):
        assert private_page.request("GET", "/api/about", None, {"authorization": wrong}).status == 401


def test_a_report_of_coverage_is_served_to_who_may_search(page: PageClient, private_page: PageClient) -> None:
    bearer = {"authorization": f"Bearer {TOKEN}"}
    response = private_page.get("/api/coverage", **bearer)
    assert response.status == 200
    assert response.json == {name: REPORT[name] for name in response.json}
    assert private_page.get("/api/coverage", **bearer, if_none_match=response.headers["etag"]).status == 304
    assert any("stair-mini-0" in message for message in private_page.messages)  # not the model of the index
    missing = page.get("/api/coverage")
    assert (missing.status, missing.json["code"], page.get("/coverage").status) == (404, "no-coverage-report", 200)
    assert [each.get("/api/about", **bearer).json["coverage"] for each in (page, private_page)] == [False, True]


def test_url_token_becomes_a_cookie(private_page: PageClient) -> None:
    response = private_page.get(f"/compare?a=red+car&token={TOKEN}&b=%26")
    assert (response.status, response.headers["location"]) == (303, "/compare?a=red+car&b=%26")
    [cookie] = response.cookies
    pair, *attributes = cookie.split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
    assert TOKEN not in cookie
    assert "Secure" not in attributes  # plain HTTP: the browser would drop it
    [proxied_cookie] = private_page.get(f"/?token={TOKEN}", x_forwarded_proto="https").cookies
    assert "Secure" in proxied_cookie.split("; ")
    assert private_page.get("/compare", cookie=pair).status == 200
    assert private_page.get("/api/about", cookie=f"other=1; {pair}; more=2").status == 200
    assert private_page.get("/api/about", cookie=pair[:-1]).status == 401
    assert private_page.get("/api/about", cookie=pair.partition("=")[0] + f"={TOKEN}").status == 401
    assert private_page.get("/api/about", cookie=pair.replace("=", "x=", 1)).status == 401


def test_wrong_url_token_fails_and_redirects_are_local(private_page: PageClient) -> None:
    for wrong in ("", "wrong", TOKEN + "x", "%00"):
        response = private_page.get(f"/?token={wrong}")
        assert (response.status, response.cookies) == (401, ())
    assert private_page.request("POST", f"/api/search?token={TOKEN}", b"{}", {"content-type": "application/json"}).status == 401
    redirect = private_page.request("GET", f"//evil.example/x?token={TOKEN}")
    assert redirect.headers["location"] == "/evil.example/x"
    escaped = private_page.request("GET", f"/image/a%0d%0aSet-Cookie:%20x?token={TOKEN}")
    assert (escaped.status, escaped.headers["location"]) == (303, "/image/a%0D%0ASet-Cookie%3A%20x")


def test_foreign_hosts_are_rejected(private_page: PageClient) -> None:
    assert private_page.get("/api/about", host="evil.example", authorization=f"Bearer {TOKEN}").status == 403
