"""The clause of each query type, the selection of a query type, and the limits that all share."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.errors import expect_error
from support.strategies import ENGINE_WEIGHTS, TOKENS, build_vectors

from stair_es import resources
from stair_es.cluster.client.capabilities import NEURAL_SEARCH, ClusterInfo, Distribution
from stair_es.errors import QueryError
from stair_es.feature_names import escape_feature
from stair_es.model.vocabularies.wordpiece import load_wordpiece_vocabulary
from stair_es.search.dsl.select import (
    MAX_QUERY_TOKEN_WEIGHT,
    QUERY_TYPES,
    IndexFields,
    build_impacts_query,
    build_neural_sparse_query,
    build_sparse_query,
    select_query_type,
)
from stair_es.search.query import SearchQuery
from stair_es.search.request import build_search_request
from stair_es.types import QueryType, SparseVector

GOLDEN_FOLDER = Path(__file__).parents[3] / "golden"
GOLDEN_CLAUSES = sorted((GOLDEN_FOLDER / "query_types").glob("*.json"))
GOLDEN_BODIES = sorted(GOLDEN_FOLDER.glob("query_*.json"))
BERT = load_wordpiece_vocabulary().tokens
WORDS = [word for word in BERT if word.isalpha() and word.isascii() and word.islower()][:2000]


def load_case(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def read_clause_weights(clause: dict[str, Any]) -> dict[str, float]:
    """Return key of the token -> weight that the engine uses, for any query type."""
    if "bool" in clause:
        leaves = [next(iter(leaf.values())) for leaf in clause["bool"]["should"]]
        if "field" in leaves[0]:
            assert all(leaf["linear"] == {} for leaf in leaves)
            return {leaf["field"].removeprefix("tokens."): leaf["boost"] for leaf in leaves}
        return {leaf["impacts"]["value"]: leaf["impacts"]["boost"] * 1000 for leaf in leaves}
    if "sparse_vector" in clause:
        return dict(clause["sparse_vector"]["query_vector"])
    inner = next(iter(next(iter(clause.values())).values()))
    return {key: weight * inner.get("boost", 1) for key, weight in inner["query_tokens"].items()}


def test_every_query_type_has_a_golden_clause() -> None:
    assert {load_case(path)["query_type"] for path in GOLDEN_CLAUSES} == set(QUERY_TYPES)
    assert len(GOLDEN_BODIES) >= 2


@pytest.mark.parametrize("path", GOLDEN_BODIES, ids=lambda path: path.stem)
def test_golden_bodies(path: Path) -> None:
    golden = load_case(path)
    query = SearchQuery(vector=SparseVector.from_mapping(golden["vector"]))
    request = build_search_request(query, "rank_features", max_clauses=1024, k=golden["k"])
    assert request.body == golden["body"]
    assert not len(request.truncated)


@pytest.mark.parametrize("path", GOLDEN_CLAUSES, ids=lambda path: path.stem)
def test_golden_clauses(path: Path) -> None:
    golden = load_case(path)
    query = build_sparse_query(golden["query_type"], SparseVector.from_mapping(golden["vector"]), max_clauses=1024)
    assert query.clause == golden["clause"]
    assert golden["documentation"]
    assert all(page.startswith("https://") for page in golden["documentation"])


@pytest.mark.parametrize("query_type", QUERY_TYPES)
class TestEveryQueryType:
    @given(vector=build_vectors(TOKENS | st.sampled_from(WORDS), ENGINE_WEIGHTS), limit=st.integers(1, 30))
    def test_the_clause_has_the_heaviest_tokens_with_their_weights(
        self, query_type: QueryType, vector: SparseVector, limit: int
    ) -> None:
        try:
            query = build_sparse_query(query_type, vector, max_clauses=limit)
        except QueryError:
            assert query_type == "impacts"
            return
        clause_weights = read_clause_weights(query.clause)
        kept, truncated = query.vector.to_dict(), query.truncated.to_dict()
        assert sorted(clause_weights.values()) == pytest.approx(sorted(kept.values()), rel=1e-6)
        assert len(kept) <= limit
        assert {**truncated, **vector.to_dict()} == vector.to_dict()
        assert sorted((*kept, *truncated)) == sorted(vector.tokens)
        for token, weight in kept.items():  # the shortest number of the same float32
            assert np.float32(weight) == np.float32(vector.to_dict()[token])
            assert weight == float(f"{weight:.9g}")
        if query_type != "impacts":
            assert clause_weights == {escape_feature(token): pytest.approx(weight) for token, weight in kept.items()}
            assert np.float32(max(truncated.values(), default=0.0)) <= min(kept.values())
        if query_type in ("rank_features", "sparse_vector"):
            assert sorted(clause_weights.values()) == sorted(kept.values())
            assert len(kept) == min(limit, len(vector))

    def test_the_default_clause_limit_is_that_of_every_engine(self, query_type: QueryType) -> None:
        assert len(build_sparse_query(query_type, SparseVector.from_mapping(dict.fromkeys(WORDS, 1.0))).vector) == 1024

    @pytest.mark.parametrize("limit", [0, -1])
    def test_a_limit_below_1_is_rejected(self, query_type: QueryType, limit: int) -> None:
        with expect_error("invalid-max-clauses", QueryError):
            build_sparse_query(query_type, SparseVector.from_mapping({"car": 1.0}), max_clauses=limit)

    def test_an_empty_vector_is_rejected(self, query_type: QueryType) -> None:
        with expect_error("query-empty", QueryError):
            build_sparse_query(query_type, SparseVector((), ()))

    @pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf, 0.0, -1.0, 1e31, 1e39, 1e308])
    def test_invalid_weights_are_rejected(self, query_type: QueryType, weight: float) -> None:
        with expect_error("weight-too-large" if weight > 0 else "weight-not-positive", QueryError) as caught:
            build_sparse_query(query_type, SparseVector(("dog", "car"), (1.0, weight)))
        assert "'car'" in caught.value.message

    def test_tiny_weights_are_truncated_and_reported(self, query_type: QueryType) -> None:
        query = build_sparse_query(query_type, SparseVector.from_mapping({"car": 1.0, "dust": 1e-60}))
        assert query.vector.tokens == ("car",)
        assert query.truncated.tokens == ("dust",)
        with expect_error("query-empty", QueryError):
            build_sparse_query(query_type, SparseVector.from_mapping({"dust": 1e-60}))

    @pytest.mark.parametrize(
        ("token", "code"),
        [("\ud800", "not-unicode"), ("x" * 40_000, "token-too-long"), ("é" * 20_000, "token-too-long")],
    )
    def test_invalid_tokens_are_rejected(self, query_type: QueryType, token: str, code: str) -> None:
        with expect_error(code, QueryError):
            build_sparse_query(query_type, SparseVector.from_mapping({"car": 1.0, token: 0.5}))

    def test_unsorted_vectors_lose_their_lightest_words(self, query_type: QueryType) -> None:
        query = build_sparse_query(query_type, SparseVector(("car", "dog", "red"), (1.0, 3.0, 2.0)), max_clauses=2)
        assert query.vector.tokens == ("dog", "red")
        assert query.truncated.tokens == ("car",)

    @given(weight=ENGINE_WEIGHTS)
    def test_no_single_weight_makes_a_clause_without_words(self, query_type: QueryType, weight: float) -> None:
        query = build_sparse_query(query_type, SparseVector.from_mapping({"car": weight}))
        assert list(read_clause_weights(query.clause).values()) == [pytest.approx(weight)]
        assert query.vector.tokens == ("car",)


@given(vector=build_vectors(weights=ENGINE_WEIGHTS))
def test_neural_sparse_weights_are_within_lucenes_bounds(vector: SparseVector) -> None:
    """They are the weights, divided by a power of two, which is the boost."""
    query = build_neural_sparse_query(vector)
    field = query.clause["neural_sparse"]["tokens"]
    scale = field.get("boost", 1.0)
    assert math.frexp(scale)[0] == 0.5
    assert ("boost" in field) == (scale > 1) == (query.vector.weights[0] > MAX_QUERY_TOKEN_WEIGHT)
    assert [weight * scale for weight in field["query_tokens"].values()] == [*query.vector.weights]
    assert all(0 < np.float32(weight) <= MAX_QUERY_TOKEN_WEIGHT for weight in field["query_tokens"].values())
    assert scale == 1 or max(field["query_tokens"].values()) > MAX_QUERY_TOKEN_WEIGHT / 2


def test_unsupported_impacts_are_left_out_and_reported() -> None:
    query = build_impacts_query(
        SparseVector.from_mapping({"##ing": 3.0, "dog": 2.0, ".": 1.5, "a b": 1.0, "cat": 0.5}), max_clauses=1
    )
    assert query.vector.tokens == ("dog",)
    assert query.truncated.tokens == ("##ing", ".", "a b", "cat")
    with expect_error("no-whole-words", QueryError):
        build_impacts_query(SparseVector.from_mapping({"##ing": 3.0}))


def test_impact_queries_have_each_word_once() -> None:
    query = build_impacts_query(SparseVector.from_mapping({"Dog": 2.0, "dog": 1.0, "ÉTÉ": 0.5}))
    assert list(read_clause_weights(query.clause)) == ["dog", "été"]
    assert query.truncated.tokens == ("dog",)


WORDS_FIELD = IndexFields(tokens="rank_features")
SPARSE_FIELD = IndexFields(tokens="sparse_vector")
ALL = IndexFields(tokens="rank_features", impacts=True)


def make_cluster_info(distribution: Distribution, *version: int) -> ClusterInfo:
    return ClusterInfo(distribution=distribution, version=version, max_clauses=1024)


def fail_to_list_plugins() -> frozenset[str]:
    raise AssertionError("nobody asked for the plugins")


@pytest.mark.parametrize(
    ("cluster_info", "fields", "chosen"),
    [
        (make_cluster_info("opensearch", 1, 1), WORDS_FIELD, "rank_features"),
        (make_cluster_info("opensearch", 3, 8), ALL, "rank_features"),
        (make_cluster_info("opensearch"), WORDS_FIELD, "rank_features"),
        (make_cluster_info("elasticsearch", 7, 17), WORDS_FIELD, "rank_features"),
        (make_cluster_info("elasticsearch", 9, 5), WORDS_FIELD, "rank_features"),
        (make_cluster_info("elasticsearch", 8, 15), SPARSE_FIELD, "sparse_vector"),
        (make_cluster_info("opensearch", 3, 8), IndexFields(tokens=None, impacts=True), "impacts"),
    ],
)
def test_the_cluster_and_the_index_decide(cluster_info: ClusterInfo, fields: IndexFields, chosen: QueryType) -> None:
    assert select_query_type(cluster_info, fields, fail_to_list_plugins) == chosen
    assert select_query_type(cluster_info, fields, fail_to_list_plugins, chosen) == chosen


@pytest.mark.parametrize(
    ("requested", "cluster_info", "fields", "facts"),
    [
        ("neural_sparse", make_cluster_info("opensearch", 2, 13), WORDS_FIELD, ["2.14", "OpenSearch 2.13"]),
        ("neural_sparse", make_cluster_info("elasticsearch", 9, 5), WORDS_FIELD, ["OpenSearch 2.14"]),
        ("neural_sparse", make_cluster_info("opensearch", 3, 8), WORDS_FIELD, [NEURAL_SEARCH]),
        ("neural_sparse", make_cluster_info("opensearch", 3, 8), SPARSE_FIELD, ["`tokens`", "sparse_vector"]),
        ("sparse_vector", make_cluster_info("opensearch", 3, 8), WORDS_FIELD, ["Elasticsearch 8.15"]),
        ("sparse_vector", make_cluster_info("elasticsearch", 9, 5), WORDS_FIELD, ["rank_features", "sparse_vector"]),
        ("sparse_vector", make_cluster_info("elasticsearch", 8, 14), SPARSE_FIELD, ["Elasticsearch 8.15"]),
        ("rank_features", make_cluster_info("elasticsearch", 9, 5), SPARSE_FIELD, ["sparse_vector", "rank_features"]),
        ("impacts", make_cluster_info("opensearch", 3, 8), WORDS_FIELD, ["`impacts`"]),
        ("rank_features", make_cluster_info("opensearch", 3, 8), IndexFields(tokens=None), ["`tokens`", "missing"]),
    ],
)
def test_an_impossible_query_type_is_rejected_with_its_reason(
    requested: QueryType, cluster_info: ClusterInfo, fields: IndexFields, facts: list[str]
) -> None:
    with expect_error("query-type-not-possible", QueryError) as caught:
        select_query_type(cluster_info, fields, lambda: frozenset({"opensearch-knn"}), requested)
    assert requested in caught.value.message
    assert [fact for fact in facts if fact not in caught.value.message] == []
    assert caught.value.remedy


def test_plugin_enables_its_query_type() -> None:
    requested: QueryType = "neural_sparse"
    having = frozenset({NEURAL_SEARCH})
    assert select_query_type(make_cluster_info("opensearch", 3, 8), ALL, lambda: having, requested) == requested
    # Serverless has it and lists none
    assert select_query_type(make_cluster_info("opensearch"), ALL, fail_to_list_plugins, requested) == requested


def test_a_rejection_names_the_possible_query_type() -> None:
    with expect_error("query-type-not-possible", QueryError) as caught:
        select_query_type(make_cluster_info("opensearch", 3, 8), WORDS_FIELD, fail_to_list_plugins, "impacts")
    assert "rank_features" in caught.value.remedy
    with expect_error("no-searchable-tokens", QueryError):
        select_query_type(make_cluster_info("opensearch", 3, 8), IndexFields(tokens="keyword"), fail_to_list_plugins)
    with expect_error("no-searchable-tokens", QueryError) as caught:
        select_query_type(make_cluster_info("elasticsearch", 8, 14), SPARSE_FIELD, fail_to_list_plugins)
    assert all(version in caught.value.message for version in ("Elasticsearch 8.15", "Elasticsearch 8.14"))
    with expect_error("unknown-query-type", QueryError):
        select_query_type(make_cluster_info("opensearch", 3, 8), WORDS_FIELD, fail_to_list_plugins, "dense")  # type: ignore[arg-type]


def test_fields_of_a_mapping() -> None:
    image = resources.load_json_resource("mappings", "image")["mappings"]["properties"]
    impacts = resources.load_json_resource("mappings", "impacts")["mappings"]["properties"]
    assert IndexFields.from_mapping(image) == IndexFields(tokens="rank_features")
    assert IndexFields.from_mapping({**image, **impacts}).impacts
    assert IndexFields.from_mapping({}) == IndexFields(tokens=None)
