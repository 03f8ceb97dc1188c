"""Errors of the page are JSON with the right status. A real node, real HTTP."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from support.corpora.web_corpus import NAMES, Corpus
from support.servers.hostile_http_server import PageClient


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/api/nothing", 404),
        ("GET", "/api/search", 405),
        ("POST", "/", 424),
        ("PUT", "/api/search", 405),
        ("DELETE", "/api/image/x", 405),
        ("OPTIONS", "/api/search", 405),
        ("GET", "/api/image/nope", 404),
        ("GET", "/api/image/", 404),
        ("GET", "/api/image/nope/neighbors", 404),
        ("GET", "/api/image/nope/other", 404),
        ("GET", "/thumb/nope", 404),
        ("GET", "/thumb/", 404),
        ("GET", "/original/nope", 404),
        ("GET", "/api/image/%ff", 404),
        ("GET", "/static/nothing.js", 404),
        ("GET", "/static/index.html", 404),
        ("GET", "/static/", 404),
    ],
)
def test_missing_resources_are_reported_as_json(page: PageClient, method: str, target: str, status: int) -> None:
    response = page.request(method, target)
    assert (response.status, response.headers["content-type"]) == (status, "application/json")
    assert set(response.json) == {"error", "error_type", "code", "remedy"}


@pytest.mark.parametrize(
    ("body", "code", "fact"),
    [
        ({"text": "-cat"}, "no-input", "exclude"),
        ({"text": "the of"}, "no-known-word", "'the of'"),
        ({"text": "cat", "k": 0}, "invalid-body", "`k`"),
        ({"text": "cat", "require": ["the"]}, "word-not-in-vocabulary", "'the'"),
        ({"filter": "widht:>800"}, "no-such-filter-field", "'widht'"),
        ({"filters": [{"field": "widht", "gte": 800}]}, "field-not-usable", "'widht'"),
        ({"filters": [{"field": "width", "gte": "a"}]}, "value-not-a-number", "'width'"),
        ({"filters": [{"field": "taken_at", "gte": "a"}]}, "value-not-a-date", "'taken_at'"),
        ({"filters": [{"field": "width"}]}, "invalid-body", "`filters[0]`"),
        ({"top_tokens": ["cat"]}, "invalid-body", "'top_tokens'"),
        ({"text": "cat", "filter": '{"sparse_vector": {"field": "tokens"}}'}, "filter-not-a-string", ""),
        ({"text": "cat", "filter": '{"match_all": {}}'}, "filter-not-a-string", ""),
        ({"text": "cat", "after": [1, 2]}, "invalid-cursor", "[1, 2]"),
        ({"text": "cat", "after": [1.0, "u", "s", {"a": 1}]}, "invalid-cursor", "[1.0, 'u', 's', {'a': 1}]"),
        ({"text": "cat", "sort": "widht:asc"}, "field-not-usable", "'widht'"),
        ({"text": "cat", "sort": "caption:asc"}, "field-not-sortable", "'caption'"),
        ({"text": "cat", "sort": "format:asc"}, "field-not-sortable", "'format'"),
        ({"text": "cat", "sort": "width:up"}, "invalid-sort", "'width:up'"),
        ({"text": "cat", "sort": f"{'w' * 600}:asc"}, "invalid-body", "`sort`"),
        ({"text": "cat", "sort": "width:asc", "after": ["x", "u", "s", "i"]}, "invalid-cursor", "'x'"),
        ({"similar_to": "nope"}, "no-such-image", "'nope'"),
    ],
)
@pytest.mark.parametrize("route", ["search", "facets"])
def test_impossible_queries_are_rejected(page: PageClient, route: str, body: dict[str, object], code: str, fact: str) -> None:
    response = page.post(f"/api/{route}", body)
    assert (response.status, response.json["code"]) == (404 if code == "no-such-image" else 400, code)
    assert fact in response.json["error"]


@pytest.mark.parametrize(
    ("text", "query_filter", "fact"),
    [
        ("cat", "width:((", "[width:((]"),
        ("cat", "width:abc", '"abc"'),
        ("", "width:>>10", '">10"'),
        ("", "taken_at:yesterday", "[yesterday]"),
        ("", 'caption:"cat', '[caption:"cat]'),
        ("", "caption:cat) dog", "[caption:cat) dog]"),
        ("cat", "unknown query [sparse_vector]", "[unknown query [sparse_vector]]"),
    ],
)
@pytest.mark.parametrize("route", ["search", "facets"])
def test_filters_that_the_cluster_rejects_are_named(
    page: PageClient, route: str, text: str, query_filter: str, fact: str
) -> None:
    response = page.post(f"/api/{route}", {"text": text, "filter": query_filter})
    assert response.status == 400
    assert response.json["code"] == "query-rejected"
    assert fact in response.json["error"]


@pytest.mark.parametrize(
    "body", [{"text": " ".join(["cat"] * 400)}, {"vector": {f"word{i}": 1 + i for i in range(3000)}}], ids=["text", "vector"]
)
def test_large_queries_are_answered(page: PageClient, body: dict[str, object]) -> None:
    assert [page.post(f"/api/{route}", body).status for route in ("search", "facets")] == [200, 200]


def test_neighbors_in_odd_numbers(page: PageClient, corpus: Corpus) -> None:
    id_ = corpus.get_id("tabby-cat")
    assert len(page.get(f"/api/image/{id_}/neighbors").json["hits"]) == len(NAMES) - 1
    for odd in ("0", "-1", "x", "101", "1e2", "", "١", "99999999999"):
        assert page.get(f"/api/image/{id_}/neighbors?k={quote(odd)}").status == 400
