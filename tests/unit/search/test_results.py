"""Contributions of tokens to a score."""

import math

import numpy as np
import pytest

from stair_es.feature_names import escape_feature
from stair_es.search.results import explain_score
from stair_es.types import SparseVector


def test_the_contributions_sum_to_the_dot_product() -> None:
    rng = np.random.default_rng(3)
    words = [f"w{i}" for i in range(200)]
    for _ in range(50):
        query = SparseVector.from_pairs((str(w), float(rng.exponential())) for w in rng.choice(words, 30, replace=False))
        image = SparseVector.from_pairs((str(w), float(rng.exponential())) for w in rng.choice(words, 64, replace=False))
        contributions = explain_score(query, {escape_feature(word): weight for word, weight in image})
        assert math.fsum(each.contribution for each in contributions) == pytest.approx(query.dot(image), rel=1e-12)
        assert {each.token for each in contributions} == set(query.tokens) & set(image.tokens)


def test_contributions_are_sorted_by_size_then_name() -> None:
    query = SparseVector.from_mapping({"a": 3.0, "c": 1.0, "b": 1.0, "z": 9.0})
    contributions = explain_score(query, {"a": 1.0, "b": 5.0, "c": 5.0, "other": 7.0})
    assert [(each.token, each.contribution) for each in contributions] == [("b", 5.0), ("c", 5.0), ("a", 3.0)]
    assert (contributions[2].query_weight, contributions[2].document_weight) == (3.0, 1.0)


def test_words_are_not_escaped_although_the_document_s_are() -> None:
    words = ("a.b", ".", "%", "100%", "", "##ing", "%2E")
    query = SparseVector.from_pairs((word, 1.0) for word in words)
    contributions = explain_score(query, {escape_feature(word): 2.0 for word in words})
    assert {each.token for each in contributions} == set(words)


def test_without_common_tokens_there_are_no_contributions() -> None:
    assert explain_score(SparseVector.from_mapping({"a": 1.0}), {"b": 1.0}) == ()
