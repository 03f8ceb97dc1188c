"""Random requests with unusual words and texts: each is served or rejected, none breaks the server."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.corpora.web_corpus import Corpus, ingest_corpus
from support.servers.hostile_http_server import PageClient, serve_page
from support.strategies import TOKENS, draw_condition, limit_examples, mix_rarely

from stair_es.cluster.client.connection import Connection
from stair_es.web.search.params import SEARCH_METHODS

FIELDS = ("top_tokens", "colors", "format", "width", "taken_at", "ingested_at", "uri", "caption", "tokens")


@pytest.fixture(scope="module")
def web_corpus(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    with ingest_corpus(node_url, "test-web-fuzz", tmp_path_factory.mktemp("photos")) as corpus:
        yield corpus


@pytest.fixture(scope="module")
def page_client(node_url: str, web_corpus: Corpus) -> Iterator[PageClient]:
    with serve_page(Connection(url=node_url), web_corpus.alias) as client:
        yield client


def build_requests(ids: list[str], known_words: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy for search requests: a text and up to three other parameters."""
    words = mix_rarely(st.sampled_from(known_words), TOKENS)
    weights = st.sampled_from((0, 0.5, 1, 3, 1e5, 1e-40, 1e30, 1e300))
    texts = st.lists(st.tuples(st.sampled_from(("", "+", "-", "^")), words).map("".join), max_size=4).map(" ".join)
    filters = st.sampled_from(("width:>10", "*", "/a+/", "_exists_:caption", "(", "a:b:c"))
    parameters: dict[str, st.SearchStrategy[Any]] = {
        "similar_to": st.sampled_from(ids) | TOKENS,
        "vector": st.dictionaries(words, weights, min_size=1, max_size=5),
        "factors": st.dictionaries(words, weights, min_size=1, max_size=3),
        "require": st.tuples(words),
        "exclude": st.tuples(words),
        "filters": st.lists(draw_condition(st.sampled_from(FIELDS) | words), min_size=1, max_size=3),
        "filter": words.map("caption:{}".format) | words | filters,
        "k": st.sampled_from((1, 5, 200)),
        "method": st.sampled_from(SEARCH_METHODS),
    }
    names = st.lists(st.sampled_from(sorted(parameters)), max_size=3, unique=True)
    return names.flatmap(lambda chosen: st.fixed_dictionaries({"text": texts, **{name: parameters[name] for name in chosen}}))


def test_no_request_breaks_the_server(page_client: PageClient, web_corpus: Corpus) -> None:
    stored = web_corpus.read_documents()
    words = sorted({word for source in stored.values() for word in source["top_tokens"]})
    statuses: Counter[int] = Counter()

    @limit_examples(0.75)
    @given(request=build_requests(sorted(stored), words))
    def check_request(request: dict[str, Any]) -> None:
        for route in ("/api/search", "/api/facets"):
            response = page_client.post(route, request)
            statuses[response.status] += 1
            assert response.status in (200, 400, 404)
            if response.status == 200 and route == "/api/search":
                scores = [hit["score"] for hit in response.json["hits"]]
                assert scores == sorted(scores, reverse=True)
                assert all(map(math.isfinite, scores))
            if response.status != 200:
                assert set(response.json) == {"code", "error", "error_type", "remedy"}
                assert response.json["error"]

    check_request()
    assert statuses[200] > statuses.total() / 8
    assert statuses[400] > statuses.total() / 20
    assert page_client.messages == []
