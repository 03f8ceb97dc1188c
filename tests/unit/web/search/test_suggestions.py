"""Suggested tokens."""

from typing import Any

from stair_es.web.search.content_facts import MAX_SUGGESTIONS, build_suggestions_request, parse_suggestions

STOP_WORDS = frozenset({"the"})


def build_response(documents: list[dict[str, float]], total: int = 0) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for tokens in documents:
        for token in tokens:
            counts[token] = counts.get(token, 0) + 1
    buckets = [{"key": token, "doc_count": count} for token, count in counts.items()]
    hits = [{"_source": {"tokens": tokens, "top_tokens": list(tokens)}} for tokens in documents]
    return {"hits": {"total": {"value": total or len(documents)}, "hits": hits}, "aggregations": {"tokens": {"buckets": buckets}}}


def list_suggestions(documents: list[dict[str, float]], muted: frozenset[str] = frozenset(), total: int = 0) -> list[str]:
    return [each["token"] for each in parse_suggestions(build_response(documents, total), muted, STOP_WORDS)]


FILLER: list[dict[str, float]] = [{f"filler{i}": 0.1} for i in range(20)]


def test_heavy_tokens_come_first_with_their_counts() -> None:
    documents = [{"cat": 0.9}, {"cat": 0.9}, {"car": 0.8}, {"car": 0.8}, {"car": 0.8}, *FILLER]
    assert parse_suggestions(build_response(documents), frozenset(), STOP_WORDS) == [
        {"token": "car", "count": 3},  # three images are more reliable than two
        {"token": "cat", "count": 2},
    ]


def test_words_that_say_little_are_left_out() -> None:
    pair = {"cat": 0.9, "##ling": 0.9, "the": 0.9, "a1": 0.9, "of": 0.9, "猫": 0.8}
    assert list_suggestions([pair, pair, *FILLER]) == ["cat"]  # the others have the same images
    for token, shown in (("##ling", False), ("the", False), ("a1", False), ("ox", False), ("猫", True), ("zoë", True)):
        assert list_suggestions([{token: 0.9}, {token: 0.9}, *FILLER]) == ([token] if shown else [])
    assert list_suggestions([{"cat": 0.9}, *FILLER]) == []  # once
    assert list_suggestions([{"cat": 0.9}] * 9 + FILLER[:9]) == []  # everywhere
    assert list_suggestions([{"cat": 0.9}] * 2 + FILLER, frozenset({"cat"})) == []  # muted
    assert list_suggestions([{"cat": 0.9}] * 2 + FILLER, total=10_000) == []  # too rare for what is left of the sample


def test_words_that_only_accompany_others_are_left_out() -> None:
    documents = [{f"a{i}": 0.9, f"b{i}": 0.8, f"c{i}": 0.7, "sky": 0.6} for i in range(4)]
    assert list_suggestions([*documents, *FILLER]) == []
    assert list_suggestions([*({"sky": 0.9} for _ in range(4)), *documents[:2], *FILLER, *FILLER]) == ["sky"]


def test_light_words_and_more_than_enough_are_left_out() -> None:
    words = [chr(97 + i) * 4 for i in range(26)]
    documents = [{word: weight} for word in words for weight in (0.5, 0.5)]
    assert list_suggestions(documents) == words[:MAX_SUGGESTIONS]
    assert list_suggestions([*documents[:2], {"weak": 0.1}, {"weak": 0.1}, *FILLER]) == ["aaaa"]


def test_strange_documents_suggest_nothing() -> None:
    assert build_suggestions_request()["size"] > 0
    strange: list[Any] = [None, {}, {"tokens": 3, "top_tokens": ["a"]}, {"tokens": {"cat": "x"}, "top_tokens": 7}]
    response = build_response([])
    response["hits"]["hits"] = [{"_source": source} for source in strange] + [{}]
    assert parse_suggestions(response, frozenset(), STOP_WORDS) == []
