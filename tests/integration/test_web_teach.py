"""Words taught on the page: previewed, applied, listed and taken back; a real node, real HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.corpora.web_corpus import Corpus
from support.servers.hostile_http_server import PageClient, serve_page

from stair_es.cluster.client.connection import Connection
from stair_es.cluster.policy.manager import PolicyManager
from stair_es.teaching.teacher import MAX_MARKS
from stair_es.web.auth import AccessPolicy

WORD = "gefleckt und weich"
SHOWN, OTHERS = ("tabby-cat", "kitten-with-yarn", "two-spaniels"), ("giant-panda",)
TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def teaching_page(corpus: Corpus) -> Iterator[PageClient]:
    """A page that may teach the index."""
    with serve_page(Connection(url=corpus.url), corpus.alias, teach=True) as client:
        yield client


@pytest.fixture(scope="module")
def marks(corpus: Corpus) -> dict[str, list[str]]:
    """The marked images."""
    return {"yes": [corpus.get_id(name) for name in SHOWN], "no": [corpus.get_id(name) for name in OTHERS]}


def post(page: PageClient, target: str, body: object) -> dict[str, Any]:
    response = page.post(f"/api/{target}", body)
    assert response.status == 200, response.body
    answer: dict[str, Any] = response.json
    return answer


def rank_similar(page: PageClient, id_: str) -> list[tuple[str, float]]:
    return [(hit["id"], hit["score"]) for hit in post(page, "search", {"similar_to": id_})["hits"]]


def test_a_word_is_previewed_applied_searched_and_taken_back(
    teaching_page: PageClient, corpus: Corpus, marks: dict[str, list[str]]
) -> None:
    before = corpus.read_documents()
    lesson = {"word": f" {WORD.upper()} ", **marks}
    assert [each["word"] for each in post(teaching_page, "search", {"text": WORD})["unknown_words"]] == [
        "gefleckt",
        "und",
        "weich",
    ]
    preview = post(teaching_page, "teach", {**lesson, "yes": [*marks["yes"], "erased"]})
    assert corpus.read_documents() == before
    assert (preview["word"], preview["known"], preview["taught"], preview["erased"]) == (WORD, False, False, 1)
    assert (preview["yes"], preview["no"], preview["images"]) == (marks["yes"], marks["no"], len(before))
    assert preview["matches"] == sum(not hit["weak"] for hit in preview["hits"])
    assert 0 < preview["precision"] <= 1
    assert [weight for _, weight in preview["tokens"]] == sorted((weight for _, weight in preview["tokens"]), reverse=True)
    assert [hit["score"] for hit in preview["hits"]] == sorted((hit["score"] for hit in preview["hits"]), reverse=True)
    assert {reason["token"] for hit in preview["hits"] for reason in hit["contributions"]} <= {
        token for token, _ in preview["tokens"]
    }

    similar = rank_similar(teaching_page, marks["yes"][0])
    applied = post(teaching_page, "teach/apply", lesson)
    assert (applied["changed"], applied["failed"], applied["tokens"]) == (len(preview["hits"]), 0, preview["tokens"])
    weights = {id_: each["tokens"].get(f"#{WORD}") for id_, each in corpus.read_documents().items()}
    assert {id_: weight for id_, weight in weights.items() if weight} == {hit["id"]: hit["score"] for hit in preview["hits"]}
    found = post(teaching_page, "search", {"text": WORD, "method": "words"})
    assert [hit["id"] for hit in found["hits"]] == [hit["id"] for hit in preview["hits"]]
    assert [each["token"] for each in found["query"]] == [f"#{WORD}"]
    assert found["unknown_words"] == []
    assert rank_similar(teaching_page, marks["yes"][0]) == similar
    token, ids = f"#{WORD}", {hit["id"] for hit in preview["hits"]}
    matches = {hit["id"] for hit in preview["hits"] if not hit["weak"]}
    assert {hit["id"] for hit in post(teaching_page, "search", {"text": "animal", "require": [token]})["hits"]} <= matches
    others = {hit["id"] for hit in post(teaching_page, "search", {"text": "animal", "exclude": [token]})["hits"]}
    assert matches.isdisjoint(others)
    assert matches <= ids
    added = post(teaching_page, "search", {"factors": {token: 0.5}})
    assert [(each["token"], each["added"], each["factor"]) for each in added["query"]] == [(token, True, 0.5)]
    [taught] = teaching_page.get("/api/taught").json["words"]
    assert taught == {name: applied[name] for name in taught.keys() - {"erased"}} | {"erased": 0}
    assert post(teaching_page, "teach", lesson)["taught"] is True

    assert post(teaching_page, "teach/forget", {"word": WORD})["changed"] == len(preview["hits"])
    assert corpus.read_documents() == before
    assert teaching_page.get("/api/taught").json == {"words": []}
    assert len(post(teaching_page, "search", {"text": WORD})["unknown_words"]) == 3


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"word": "9"}, "not-a-teachable-word"),
        ({"word": "x" * 65}, "not-a-teachable-word"),
        ({"word": "x" * 201}, "invalid-body"),
        ({"yes": ["x"] * (MAX_MARKS + 1)}, "invalid-body"),
        ({"no": ["x"] * (MAX_MARKS + 1)}, "invalid-body"),
        ({"yes": ["x" * 2049]}, "invalid-body"),
        ({"yes": ["a", "b", "c"]}, "too-few-marks"),
        ({"mode": "other"}, "invalid-body"),
        ({"words": []}, "invalid-body"),
        ({"word": None}, "invalid-body"),
    ],
)
@pytest.mark.parametrize("target", ["teach", "teach/apply"])
def test_words_and_marks_out_of_bounds_are_rejected(
    teaching_page: PageClient, marks: dict[str, list[str]], target: str, changes: dict[str, object], code: str
) -> None:
    response = teaching_page.post(f"/api/{target}", {"word": WORD, **marks, **changes})
    assert (response.status, response.json["code"]) == (400, code)


def test_contradictions_and_unknown_words_are_rejected(teaching_page: PageClient, marks: dict[str, list[str]]) -> None:
    response = teaching_page.post("/api/teach", {"word": WORD, "yes": marks["yes"], "no": marks["yes"][:1]})
    assert (response.status, response.json["code"]) == (400, "contradicting-marks")
    response = teaching_page.post("/api/teach/forget", {"word": "cat"})
    assert (response.status, response.json["code"]) == (400, "not-a-taught-word")
    response = teaching_page.post("/api/teach", {"word": "x" * 300_000, **marks})
    assert (response.status, response.json["code"]) == (413, "body-too-large")


ROUTES = [("GET", "/api/taught"), *(("POST", f"/api/{name}") for name in ("teach", "teach/apply", "teach/forget"))]


@pytest.mark.parametrize(("method", "target"), ROUTES)
def test_only_a_page_that_may_teach_does(page: PageClient, corpus: Corpus, method: str, target: str) -> None:
    json_type = {"content-type": "application/json"}
    response = page.request(method, target, b"{}", json_type)
    assert (response.status, response.json["code"]) == (404, "teaching-disabled")
    with serve_page(Connection(url=corpus.url), corpus.alias, teach=True, guard=AccessPolicy(token=TOKEN)) as private:
        assert private.request(method, target, b"{}", json_type).status == 401
        bearer = {**json_type, "authorization": f"Bearer {TOKEN}"}
        assert private.request(method, target, b"{}", {**bearer, "origin": "http://evil.example"}).status == 403
        assert private.request(method, target, b"{}", bearer).status == (200 if method == "GET" else 400)
        assert private.get("/api/about", authorization=f"Bearer {TOKEN}").json["teach"] is True


@pytest.mark.parametrize(("method", "target"), ROUTES[1:])
def test_forms_of_other_sites_teach_nothing(teaching_page: PageClient, method: str, target: str) -> None:
    assert teaching_page.get(target).status == 405
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        response = teaching_page.request(method, target, b'{"word": "x"}', {"content-type": kind})
        assert (response.status, response.json["code"]) == (415, "body-not-json")


def test_one_word_is_taught_at_a_time(
    teaching_page: PageClient, marks: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on = threading.Event(), threading.Event()
    change_words = PolicyManager.change_words

    def wait(*arguments: Any) -> Any:  # noqa: ANN401  as the method
        begun.set()
        assert goes_on.wait(60)
        return change_words(*arguments)

    monkeypatch.setattr(PolicyManager, "change_words", wait)
    answers: list[int] = []
    first = threading.Thread(
        target=lambda: answers.append(teaching_page.post("/api/teach/apply", {"word": WORD, **marks}).status)
    )
    first.start()
    try:
        assert begun.wait(60)
        for target, body in (("apply", {"word": "andere", **marks}), ("forget", {"word": WORD})):
            response = teaching_page.post(f"/api/teach/{target}", body)
            assert (response.status, response.json["code"]) == (409, "teaching-in-progress")
        assert post(teaching_page, "teach", {"word": "andere", **marks})["word"] == "andere"
    finally:
        goes_on.set()
        first.join()
    assert answers == [200]
    post(teaching_page, "teach/forget", {"word": WORD})
