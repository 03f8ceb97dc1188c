"""Random requests with unusual words and texts: each is served or rejected, none breaks the server."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from support import fuzz_inputs
from support.corpora.web_corpus import Corpus, ingest_corpus
from support.servers.hostile_http_server import PageClient, serve_page

from stair_es.cluster.client.connection import Connection
from stair_es.web.search.params import SEARCH_METHODS

QUESTIONS = 75


@pytest.fixture(scope="module")
def corpus(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    with ingest_corpus(node_url, "test-web-fuzz", tmp_path_factory.mktemp("photos")) as made:
        yield made


@pytest.fixture(scope="module")
def page(node_url: str, corpus: Corpus) -> Iterator[PageClient]:
    with serve_page(Connection(url=node_url), corpus.alias) as made:
        yield made


def draw_condition(rng: random.Random, word: str) -> dict[str, Any]:
    value = rng.choice((word, 0, 640, -1, 2**31, 2**63, 1e300, 0.5, True, "2024", "2024-02-30", "9999-12-31", "0000-01-01"))
    field = rng.choice(("top_tokens", "colors", "format", "width", "taken_at", "ingested_at", "uri", "caption", "tokens", word))
    return {"field": field, **rng.choice(({"any": [value]}, {"all": [value]}, {"gte": value}, {"gt": value, "lte": value}))}


def draw_query(rng: random.Random, ids: list[str], words: list[str]) -> dict[str, Any]:
    def word() -> str:
        return rng.choice(words) if rng.random() < 0.5 else fuzz_inputs.draw_word(rng)

    def weight() -> float:
        return rng.choice((0, 0.5, 1, 3, 1e5, 1e-40, 1e30, 1e300))

    drawn: dict[str, Any] = {
        "text": " ".join(rng.choice(("", "+", "-", "^")) + word() for _ in range(rng.randint(0, 4))),
        "similar_to": rng.choice([*ids, fuzz_inputs.draw_word(rng)]),
        "vector": {word(): weight() for _ in range(rng.randint(1, 5))},
        "factors": {word(): weight() for _ in range(rng.randint(1, 3))},
        "require": [word()],
        "exclude": [word()],
        "filters": [draw_condition(rng, word()) for _ in range(rng.randint(1, 3))],
        "filter": rng.choice((f"caption:{word()}", word(), "width:>10", "*", "/a+/", "_exists_:caption", "(", "a:b:c")),
        "k": rng.choice((1, 5, 200)),
        "method": rng.choice(SEARCH_METHODS),
    }
    return {name: value for name, value in drawn.items() if rng.random() < 0.35 or name == "text"}


def test_no_query_breaks_the_server(page: PageClient, corpus: Corpus) -> None:
    rng = random.Random(7)
    stored = corpus.read_documents()
    words = sorted({word for source in stored.values() for word in source["top_tokens"]})
    statuses: Counter[int] = Counter()
    for number in range(QUESTIONS):
        body = draw_query(rng, list(stored), words)
        for route in ("/api/search", "/api/facets"):
            answer = page.post(route, body)
            statuses[answer.status] += 1
            assert answer.status in (200, 400, 404), (number, route, body, answer.body)
            if answer.status == 200 and route == "/api/search":
                scores = [hit["score"] for hit in answer.json["hits"]]
                assert scores == sorted(scores, reverse=True)
                assert all(map(math.isfinite, scores))
            if answer.status != 200:
                assert set(answer.json) == {"error", "error_type", "code", "remedy"}
                assert answer.json["error"]
    assert statuses[200] > QUESTIONS / 4
    assert statuses[400] > QUESTIONS / 10
    assert page.messages == []
