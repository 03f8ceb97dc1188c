"""Contributions of tokens to a score."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import NAMES, build_vectors

from stair_es.feature_names import escape_feature
from stair_es.model.base import MatchThresholds
from stair_es.search.dsl.query_words import MAX_CAPTION_WORDS
from stair_es.search.query import CaptionWord, SearchQuery, TokenGroup
from stair_es.search.ranking import fuse_rankings
from stair_es.search.request import build_search_request, build_word_request, parse_word_score
from stair_es.search.results import explain_score, parse_search_response
from stair_es.types import SparseVector

_VECTORS = build_vectors(st.sampled_from(NAMES), min_size=0, max_size=len(NAMES))


@given(query=_VECTORS, image=_VECTORS)
def test_the_contributions_sum_to_the_dot_product(query: SparseVector, image: SparseVector) -> None:
    contributions = explain_score(query, {escape_feature(token): weight for token, weight in image})
    assert math.fsum(each.contribution for each in contributions) == pytest.approx(query.dot(image), rel=1e-12)
    assert {each.token for each in contributions} == set(query.tokens) & set(image.tokens)


def test_contributions_are_sorted_by_size_then_name() -> None:
    query = SparseVector.from_mapping({"a": 3.0, "c": 1.0, "b": 1.0, "z": 9.0})
    contributions = explain_score(query, {"a": 1.0, "b": 5.0, "c": 5.0, "other": 7.0})
    assert [(each.token, each.contribution) for each in contributions] == [("b", 5.0), ("c", 5.0), ("a", 3.0)]
    assert (contributions[2].query_weight, contributions[2].document_weight) == (3.0, 1.0)


def build_thresholds(weak_cosine: float) -> MatchThresholds:
    return MatchThresholds(weak_cosine=weak_cosine, weak_image_cosine=weak_cosine, named_weight=0.25)


@pytest.mark.parametrize(("weak_cosine", "weak"), [(0.5, [False, False, True]), (1.0, [True, True, True]), (None, [False] * 3)])
def test_hits_below_the_cut_are_weak(weak_cosine: float | None, weak: list[bool]) -> None:
    thresholds = None if weak_cosine is None else build_thresholds(weak_cosine)
    query = SearchQuery(vector=SparseVector.from_mapping({"a": 3.0, "b": 4.0}), match_thresholds=thresholds)
    request = build_search_request(query, "rank_features", max_clauses=1024)
    hits = [{"_id": str(score), "_score": score} for score in (4.9, 2.5, 2.4)]
    result = parse_search_response({"hits": {"hits": hits}, "took": 1}, request)
    assert [hit.weak for hit in result.hits] == weak
    assert result.weak_below == (None if weak_cosine is None else 5 * weak_cosine)


@pytest.mark.parametrize(
    ("words", "tokens", "weak"),
    [
        ([("a",)], {"a": 0.25}, False),
        ([("a",)], {"a": 0.24}, True),
        ([("a",), ("b%.",)], {"a": 0.3, "b%25%2E": 0.3}, False),  # stored tokens are escaped
        ([("a",), ("b%.",)], {"a": 0.9}, True),
        ([("a",), ("muted",)], {"a": 0.3}, False),  # a token that isn't in the query can't be missed
        ([("muted",)], {"a": 0.9}, True),
        ([], {"a": 0.9}, True),
        ([("a",)], {"a": None}, True),  # a foreign document
    ],
)
def test_a_hit_with_each_word_of_the_query_is_a_match(words: list[TokenGroup], tokens: dict[str, float], weak: bool) -> None:
    vector = SparseVector.from_mapping({"a": 3.0, "b%.": 4.0})
    query = SearchQuery(vector=vector, match_thresholds=build_thresholds(0.5), named_words=words)
    request = build_search_request(query, "rank_features", max_clauses=1024)
    hits = [{"_id": "x", "_score": 0.1, "_source": {"tokens": {name: weight for name, weight in tokens.items() if weight}}}]
    assert parse_search_response({"hits": {"hits": hits}, "took": 1}, request).hits[0].weak is weak


@pytest.mark.parametrize(
    ("caption", "tokens", "weak"),
    [
        (["old", "dog"], {}, False),
        (["old"], {"dog": 0.25}, False),  # the picture has the other word
        (["old"], {"dog": 0.2}, True),
        (["old"], {"dog": 0.2, "pet": 1.0}, False),  # the score suffices
        (["dog"], {"dog": 0.9, "old": 0.9, "pet": 1.0}, True),  # only a caption tells what is old
        ([], {"dog": 0.9}, True),
    ],
)
def test_a_word_is_in_the_caption_or_in_the_picture(caption: list[str], tokens: dict[str, float], weak: bool) -> None:
    words = [CaptionWord("old", 0.5, ("old",)), CaptionWord("dog", 0.5, ("dog",))]
    query = SearchQuery(
        vector=SparseVector.from_mapping({"dog": 1.0, "pet": 1.0, "old": 0.1}),
        caption="old dog",
        caption_words=words,
        needed_words=["old"],
        match_thresholds=build_thresholds(0.5),
        named_words=[("old",), ("dog",)],
    )
    request = build_search_request(query, "rank_features", max_clauses=1024)
    hit = {"_id": "x", "_score": 9.0, "_source": {"tokens": tokens}, "matched_queries": [f"caption:{word}" for word in caption]}
    assert parse_search_response({"hits": {"hits": [hit]}, "took": 1}, request).hits[0].weak is weak


@pytest.mark.parametrize("added", [0, 1, 127])
def test_a_score_tells_the_words_whatever_a_cluster_adds(added: int) -> None:
    words = [CaptionWord(f"w{place}", 0.0) for place in range(MAX_CAPTION_WORDS)]
    clauses = build_word_request(SearchQuery(caption="w", caption_words=words), ["x"], 1)["query"]["bool"]["should"]
    for found in ([], [0], [MAX_CAPTION_WORDS - 1], [1, 3, 8], [*range(MAX_CAPTION_WORDS)]):
        score = float(np.float32(added + sum(clauses[place]["constant_score"]["boost"] for place in found)))
        assert parse_word_score(score, words) == tuple(f"w{place}" for place in found)


def test_fused_ranks_have_no_cut_and_no_cursor() -> None:
    query = SearchQuery(vector=SparseVector.from_mapping({"a": 1.0}), match_thresholds=build_thresholds(0.5))
    request = build_search_request(query, "rank_features", max_clauses=1024)
    result = parse_search_response(
        {"hits": {"hits": [{"_id": "x", "_score": 0.1, "sort": [0.1, "u", "s", "i"]}]}, "took": 1}, request
    )
    assert (result.hits[0].weak, result.hits[0].cursor) == (True, [0.1, "u", "s", "i"])
    fused = fuse_rankings(result, replace(result, hits=()), 1.0, 10)
    assert (fused.weak_below, [(hit.weak, hit.cursor) for hit in fused.hits]) == (None, [(False, None)])
