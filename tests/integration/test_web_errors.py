"""Errors of the page are JSON with the right status. A real node, real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest
from support.corpora.web_corpus import NAMES, Corpus, ingest_corpus
from support.servers.hostile_http_server import PageClient, serve_page

from stair_es.cluster.client.connection import Connection


@pytest.fixture(scope="module")
def corpus(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    with ingest_corpus(node_url, "test-web-errors", tmp_path_factory.mktemp("photos")) as made:
        yield made


@pytest.fixture(scope="module")
def page(node_url: str, corpus: Corpus) -> Iterator[PageClient]:
    with serve_page(Connection(url=node_url), corpus.alias, roots=(corpus.folder,)) as made:
        yield made


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
    answer = page.request(method, target)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    assert set(answer.json) == {"error", "error_type", "code", "remedy"}


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"text": "-cat"}, 400, "only excludes words"),
        ({"text": "the of"}, 400, "none of the words"),
        ({"text": "cat", "k": 0}, 400, "`k`"),
        ({"text": "cat", "require": ["the"]}, 400, "'the' is not in the vocabulary"),
        ({"text": "cat", "filter": "width:(("}, 400, "Failed to parse query [width:((]"),
        ({"text": "cat", "filter": "width:abc"}, 400, 'For input string: "abc"'),
        ({"filter": "width:>>10"}, 400, 'For input string: ">10"'),
        ({"filter": "taken_at:yesterday"}, 400, "failed to parse date field [yesterday]"),
        ({"filter": 'caption:"cat'}, 400, 'Failed to parse query [caption:"cat]'),
        ({"filter": "caption:cat) dog"}, 400, "Failed to parse query [caption:cat) dog]"),
        ({"filter": "widht:>800"}, 400, "refers to the field 'widht'"),
        ({"filters": [{"field": "widht", "gte": 800}]}, 400, "refers to the field 'widht'"),
        ({"filters": [{"field": "width", "gte": "a"}]}, 400, "'a' is not a number"),
        ({"filters": [{"field": "taken_at", "gte": "a"}]}, 400, "'a' is not a date"),
        ({"filters": [{"field": "width"}]}, 400, "needs exactly one of"),
        ({"top_tokens": ["cat"]}, 400, "unknown field 'top_tokens'"),
        (
            {"text": "cat", "filter": "unknown query [sparse_vector]"},
            400,
            "Failed to parse query [unknown query [sparse_vector]]",
        ),
        ({"text": "cat", "filter": '{"sparse_vector": {"field": "tokens"}}'}, 400, "not a query string"),
        ({"text": "cat", "filter": '{"match_all": {}}'}, 400, "not a query string"),
        ({"text": "cat", "after": [1, 2]}, 400, "not a cursor"),
        ({"text": "cat", "after": [1.0, "u", "s", {"a": 1}]}, 400, "not a cursor"),
        ({"similar_to": "nope"}, 404, "no image 'nope'"),
        ({"text": " ".join(["cat"] * 400)}, 200, None),
        ({"vector": {f"word{i}": 1 + i for i in range(3000)}}, 200, None),
    ],
)
def test_queries_that_can_t_be(page: PageClient, body: dict[str, object], status: int, message: str | None) -> None:
    for route in ("/api/search", "/api/facets"):
        answer = page.post(route, body)
        assert answer.status == status, answer.body
        if message:
            assert message in answer.json["error"]


def test_neighbors_in_odd_numbers(page: PageClient, corpus: Corpus) -> None:
    id_ = corpus.get_id("tabby-cat")
    assert len(page.get(f"/api/image/{id_}/neighbors").json["hits"]) == len(NAMES) - 1
    for odd in ("0", "-1", "x", "101", "1e2", "", "١", "99999999999"):
        assert page.get(f"/api/image/{id_}/neighbors?k={quote(odd)}").status == 400
