"""The clause of each query type, the selection of a query type, and the limits that all share."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stair_es import resources
from stair_es.cluster.client.capabilities import NEURAL_SEARCH, ClusterInfo, Distribution
from stair_es.errors import QueryError
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
from stair_es.types import QueryType, SparseVector

GOLDEN = sorted((Path(__file__).parents[3] / "golden" / "query_types").glob("*.json"))
BERT = load_wordpiece_vocabulary().tokens
WORDS = [word for word in BERT if word.isalpha() and word.isascii() and word.islower()][:2000]


def case(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def weights(clause: dict[str, Any]) -> dict[str, float]:
    """Return key of the token -> weight that the engine uses, for any query type."""
    if "bool" in clause:
        leaves = [next(iter(leaf.values())) for leaf in clause["bool"]["should"]]
        if "linear" in leaves[0]:
            return {leaf["field"].removeprefix("tokens."): leaf["boost"] for leaf in leaves}
        return {leaf["impacts"]["value"]: leaf["impacts"]["boost"] * 1000 for leaf in leaves}
    if "sparse_vector" in clause:
        return dict(clause["sparse_vector"]["query_vector"])
    inner = next(iter(next(iter(clause.values())).values()))
    return {key: weight * inner.get("boost", 1) for key, weight in inner["query_tokens"].items()}


def test_every_query_type_has_a_golden_body() -> None:
    assert {case(path)["query_type"] for path in GOLDEN} == set(QUERY_TYPES)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_bodies(path: Path) -> None:
    golden = case(path)
    query = build_sparse_query(golden["query_type"], SparseVector.from_mapping(golden["vector"]), max_clauses=1024)
    assert query.clause == golden["clause"]
    assert golden["documentation"]
    assert all(page.startswith("https://") for page in golden["documentation"])


@pytest.mark.parametrize("query_type", QUERY_TYPES)
class TestEveryQueryType:
    def test_weights_match_the_vector(self, query_type: QueryType) -> None:
        rng = np.random.default_rng(5)
        vector = SparseVector.from_pairs(zip(WORDS[:300], np.exp(rng.normal(0, 4, 300)).tolist(), strict=True))
        query = build_sparse_query(query_type, vector, max_clauses=1024)
        clause_weights = weights(query.clause)
        assert clause_weights == {word: pytest.approx(weight, rel=1e-6) for word, weight in vector}
        assert query.vector.tokens == vector.tokens
        assert not len(query.truncated)

    def test_the_lightest_tokens_are_truncated_and_reported(self, query_type: QueryType) -> None:
        vector = SparseVector.from_pairs((word, 1 + i / 7) for i, word in enumerate(WORDS))
        query = build_sparse_query(query_type, vector, max_clauses=50)
        assert len(weights(query.clause)) == 50
        assert query.vector.tokens == vector.tokens[:50]
        assert query.truncated == SparseVector(vector.tokens[50:], vector.weights[50:])

    def test_the_default_clause_limit_is_that_of_every_engine(self, query_type: QueryType) -> None:
        assert len(build_sparse_query(query_type, SparseVector.from_mapping(dict.fromkeys(WORDS, 1.0))).vector) == 1024

    @pytest.mark.parametrize("limit", [0, -1])
    def test_a_limit_below_1_is_rejected(self, query_type: QueryType, limit: int) -> None:
        with pytest.raises(QueryError, match="max_clauses"):
            build_sparse_query(query_type, SparseVector.from_mapping({"car": 1.0}), max_clauses=limit)

    def test_an_empty_vector_is_rejected(self, query_type: QueryType) -> None:
        with pytest.raises(QueryError, match="no token with a weight"):
            build_sparse_query(query_type, SparseVector((), ()))

    @pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf, 0.0, -1.0, 1e31, 1e39, 1e308])
    def test_invalid_weights_are_rejected(self, query_type: QueryType, weight: float) -> None:
        with pytest.raises(QueryError, match="'car'"):
            build_sparse_query(query_type, SparseVector(("dog", "car"), (1.0, weight)))

    def test_tiny_weights_are_truncated_and_reported(self, query_type: QueryType) -> None:
        query = build_sparse_query(query_type, SparseVector.from_mapping({"car": 1.0, "dust": 1e-60}))
        assert query.vector.tokens == ("car",)
        assert query.truncated.tokens == ("dust",)
        with pytest.raises(QueryError, match="no token with a weight"):
            build_sparse_query(query_type, SparseVector.from_mapping({"dust": 1e-60}))

    @pytest.mark.parametrize(
        ("word", "reason"),
        [("\ud800", "not valid Unicode"), ("x" * 40_000, "engines allow 32,766"), ("é" * 20_000, "engines allow 32,766")],
    )
    def test_invalid_tokens_are_rejected(self, query_type: QueryType, word: str, reason: str) -> None:
        with pytest.raises(QueryError, match=reason):
            build_sparse_query(query_type, SparseVector.from_mapping({"car": 1.0, word: 0.5}))

    def test_unsorted_vectors_lose_their_lightest_words(self, query_type: QueryType) -> None:
        query = build_sparse_query(query_type, SparseVector(("car", "dog", "red"), (1.0, 3.0, 2.0)), max_clauses=2)
        assert query.vector.tokens == ("dog", "red")
        assert query.truncated.tokens == ("car",)

    @pytest.mark.parametrize("weight", [2.0**-100, 1e-25, 2.0**100])
    def test_no_single_weight_makes_a_clause_without_words(self, query_type: QueryType, weight: float) -> None:
        query = build_sparse_query(query_type, SparseVector.from_mapping({"car": weight}))
        assert list(weights(query.clause).values()) == [pytest.approx(weight)]
        assert query.vector.tokens == ("car",)

    def test_extreme_weights_are_preserved(self, query_type: QueryType) -> None:
        query = build_sparse_query(query_type, SparseVector.from_mapping({"car": 2.0**100, "dog": 1.0}))
        clause_weights = sorted(weights(query.clause).values())
        assert clause_weights == pytest.approx([1.0, 2.0**100] if len(query.vector) == 2 else [2.0**100])
        assert {*query.vector.tokens, *query.truncated.tokens} == {"car", "dog"}


def test_neural_sparse_weights_are_within_lucenes_bounds_and_differ_by_a_power_of_two() -> None:
    for heaviest in (0.001, 1.0, 63.9, 64.0, 64.1, 127.0, 128.0, 1e6, 2.0**100):
        vector = SparseVector.from_mapping({"car": heaviest, "red": heaviest / 3})
        query = build_neural_sparse_query(vector)
        field = query.clause["neural_sparse"]["tokens"]
        tokens, scale = field["query_tokens"], field.get("boost", 1.0)
        assert 0 < tokens["red"] < tokens["car"] <= MAX_QUERY_TOKEN_WEIGHT
        assert math.frexp(scale)[0] == 0.5
        assert tokens["car"] * scale == query.vector.weights[0]
        assert ("boost" in field) == (heaviest > 64)


def test_neural_sparse_order_is_that_of_the_vector_even_for_neighbouring_floats() -> None:
    heavy = [float(np.float32(1000) + np.spacing(np.float32(1000)) * step) for step in range(5)]
    vector = SparseVector.from_pairs(zip("abcde", heavy, strict=True))
    tokens = build_neural_sparse_query(vector).clause["neural_sparse"]["tokens"]["query_tokens"]
    assert sorted(tokens, key=tokens.__getitem__, reverse=True) == list(vector.tokens)
    assert len(set(tokens.values())) == 5


def test_unsupported_impacts_are_left_out_and_reported() -> None:
    query = build_impacts_query(
        SparseVector.from_mapping({"##ing": 3.0, "dog": 2.0, ".": 1.5, "a b": 1.0, "cat": 0.5}), max_clauses=1
    )
    assert query.vector.tokens == ("dog",)
    assert query.truncated.tokens == ("##ing", ".", "a b", "cat")
    with pytest.raises(QueryError, match="whole words"):
        build_impacts_query(SparseVector.from_mapping({"##ing": 3.0}))


def test_impact_queries_have_each_word_once() -> None:
    query = build_impacts_query(SparseVector.from_mapping({"Dog": 2.0, "dog": 1.0, "ÉTÉ": 0.5}))
    assert list(weights(query.clause)) == ["dog", "été"]
    assert query.truncated.tokens == ("dog",)


WORDS_FIELD = IndexFields(tokens="rank_features")
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
        (make_cluster_info("elasticsearch", 8, 15), IndexFields(tokens="sparse_vector"), "sparse_vector"),
        (make_cluster_info("opensearch", 3, 8), IndexFields(tokens=None, impacts=True), "impacts"),
    ],
)
def test_the_cluster_and_the_index_decide(cluster_info: ClusterInfo, fields: IndexFields, chosen: QueryType) -> None:
    assert select_query_type(cluster_info, fields, fail_to_list_plugins) == chosen
    assert select_query_type(cluster_info, fields, fail_to_list_plugins, chosen) == chosen


@pytest.mark.parametrize(
    ("requested", "cluster_info", "fields", "reason"),
    [
        (
            "neural_sparse",
            make_cluster_info("opensearch", 2, 13),
            WORDS_FIELD,
            "OpenSearch 2.14 or newer, and this is OpenSearch 2.13",
        ),
        ("neural_sparse", make_cluster_info("elasticsearch", 9, 5), WORDS_FIELD, "OpenSearch 2.14"),
        ("neural_sparse", make_cluster_info("opensearch", 3, 8), WORDS_FIELD, NEURAL_SEARCH),
        (
            "neural_sparse",
            make_cluster_info("opensearch", 3, 8),
            IndexFields(tokens="sparse_vector"),
            "`tokens` of the index is sparse_vector",
        ),
        ("sparse_vector", make_cluster_info("opensearch", 3, 8), WORDS_FIELD, "Elasticsearch 8.15"),
        ("sparse_vector", make_cluster_info("elasticsearch", 9, 5), WORDS_FIELD, "rank_features, not sparse_vector"),
        ("sparse_vector", make_cluster_info("elasticsearch", 8, 14), IndexFields(tokens="sparse_vector"), "Elasticsearch 8.15"),
        (
            "rank_features",
            make_cluster_info("elasticsearch", 9, 5),
            IndexFields(tokens="sparse_vector"),
            "sparse_vector, not rank_features",
        ),
        ("impacts", make_cluster_info("opensearch", 3, 8), WORDS_FIELD, "no field `impacts`"),
        ("rank_features", make_cluster_info("opensearch", 3, 8), IndexFields(tokens=None), "missing"),
    ],
)
def test_an_impossible_query_type_is_rejected_with_its_reason(
    requested: QueryType, cluster_info: ClusterInfo, fields: IndexFields, reason: str
) -> None:
    with pytest.raises(QueryError, match=reason) as error:
        select_query_type(cluster_info, fields, lambda: frozenset({"opensearch-knn"}), requested)
    assert error.value.remedy


def test_plugin_enables_its_query_type() -> None:
    requested: QueryType = "neural_sparse"
    having = frozenset({NEURAL_SEARCH})
    assert select_query_type(make_cluster_info("opensearch", 3, 8), ALL, lambda: having, requested) == requested
    # Serverless has it and lists none
    assert select_query_type(make_cluster_info("opensearch"), ALL, fail_to_list_plugins, requested) == requested


def test_a_rejection_names_the_possible_query_types() -> None:
    with pytest.raises(QueryError) as error:
        select_query_type(make_cluster_info("opensearch", 3, 8), WORDS_FIELD, fail_to_list_plugins, "impacts")
    assert "rank_features is possible" in error.value.remedy
    with pytest.raises(QueryError, match="the index has no field that"):
        select_query_type(make_cluster_info("opensearch", 3, 8), IndexFields(tokens="keyword"), fail_to_list_plugins)
    with pytest.raises(QueryError, match=r"requires Elasticsearch 8\.15 or newer, and this is Elasticsearch 8\.14"):
        select_query_type(make_cluster_info("elasticsearch", 8, 14), IndexFields(tokens="sparse_vector"), fail_to_list_plugins)
    with pytest.raises(QueryError, match="unknown query type"):
        select_query_type(make_cluster_info("opensearch", 3, 8), WORDS_FIELD, fail_to_list_plugins, "dense")  # type: ignore[arg-type]


def test_fields_of_a_mapping() -> None:
    image = resources.load_json_resource("mappings", "image")["mappings"]["properties"]
    impacts = resources.load_json_resource("mappings", "impacts")["mappings"]["properties"]
    assert IndexFields.from_mapping(image) == IndexFields(tokens="rank_features")
    assert IndexFields.from_mapping({**image, **impacts}).impacts
    assert IndexFields.from_mapping({}) == IndexFields(tokens=None)
