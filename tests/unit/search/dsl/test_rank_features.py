"""Bodies of `rank_features` queries."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stair_es.errors import QueryError
from stair_es.search.dsl.select import build_rank_features_query
from stair_es.search.query import SearchQuery
from stair_es.search.request import build_search_request
from stair_es.types import SparseVector

GOLDEN = sorted((Path(__file__).parents[3] / "golden").glob("query_*.json"))


def test_golden_bodies_exist() -> None:
    assert len(GOLDEN) >= 2


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_bodies(path: Path) -> None:
    case: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    query = SearchQuery(vector=SparseVector.from_mapping(case["vector"]))
    request = build_search_request(query, "rank_features", max_clauses=1024, k=case["k"])
    assert request.body == case["body"]
    assert not len(request.truncated)


def test_every_clause_is_linear() -> None:
    clauses = _clauses(build_rank_features_query(SparseVector.from_mapping({"a": 1.0, "b": 2.0})).clause)
    assert all(clause["rank_feature"]["linear"] == {} for clause in clauses)


def test_an_empty_vector_is_rejected_because_an_empty_bool_matches_everything() -> None:
    with pytest.raises(QueryError, match="no token with a weight"):
        build_rank_features_query(SparseVector((), ()))


def test_the_lightest_words_are_cut_and_reported() -> None:
    vector = SparseVector.from_pairs((f"w{i:03}", 1.0 + i) for i in range(100))
    query = build_rank_features_query(vector, max_clauses=30)
    assert len(_clauses(query.clause)) == 30
    assert query.vector.tokens == vector.tokens[:30]
    assert query.truncated == SparseVector(vector.tokens[30:], vector.weights[30:])
    assert query.vector.weights[-1] > query.truncated.weights[0]


def test_the_exact_limit_is_kept() -> None:
    vector = SparseVector.from_pairs((f"w{i:04}", 1.0) for i in range(1024))
    query = build_rank_features_query(vector)
    assert len(_clauses(query.clause)) == 1024
    assert not len(query.truncated)


def test_boosts_are_exact_float32() -> None:
    rng = np.random.default_rng(7)
    weights = np.exp(rng.normal(0, 5, 500)).astype(np.float32)
    vector = SparseVector.from_pairs((f"w{i}", float(w)) for i, w in enumerate(weights))
    query = build_rank_features_query(vector)
    boosts = {c["rank_feature"]["field"]: c["rank_feature"]["boost"] for c in _clauses(query.clause)}
    for i, weight in enumerate(weights):
        assert np.float32(boosts[f"tokens.w{i}"]) == weight
        assert len(repr(boosts[f"tokens.w{i}"])) <= len(repr(float(weight)))
    assert query.vector.weights == tuple(boosts.values())


def test_a_weight_below_float32_never_becomes_a_clause_that_matches_with_score_0() -> None:
    query = build_rank_features_query(SparseVector.from_mapping({"car": 1.0, "dust": 1e-60}))
    assert query.vector.tokens == ("car",)
    assert query.truncated.tokens == ("dust",)


def test_a_weight_beyond_float32_is_rejected() -> None:
    with pytest.raises(QueryError, match="'car'"):
        build_rank_features_query(SparseVector.from_mapping({"car": 1e39}))


def test_a_limit_below_1_is_rejected() -> None:
    with pytest.raises(QueryError, match="max_clauses"):
        build_rank_features_query(SparseVector.from_mapping({"car": 1.0}), max_clauses=0)


def _clauses(clause: dict[str, Any]) -> list[dict[str, Any]]:
    should: list[dict[str, Any]] = clause["bool"]["should"]
    return should
