"""Exact dot products of each query type, within the precision of the field."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from opensearchpy import RequestError
from support.corpora.unicode_vectors import create_index, draw_images, draw_queries
from support.oracles.search_oracle import ROUNDING, TRUNCATION
from support.servers.recording_proxy import RecordedRequest, RecordingProxy, StubResponse

from stair_es.cluster.client.capabilities import NEURAL_SEARCH, get_cluster_info, list_cluster_plugins
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import IMPACT_SCALE, DocumentSettings, is_single_term
from stair_es.errors import QueryError
from stair_es.search.dsl.select import IndexFields, build_sparse_query, select_query_type
from stair_es.types import QueryType, SparseVector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from opensearchpy import OpenSearch


@pytest.fixture(scope="module")
def images() -> dict[str, SparseVector]:
    return draw_images()


@pytest.fixture(scope="module")
def queries() -> list[SparseVector]:
    return draw_queries()


def scores(client: OpenSearch, index: str, clause: Mapping[str, Any]) -> dict[str, float]:
    hits = client.search(index=index, body={"size": 1000, "query": clause, "_source": False})["hits"]["hits"]
    return {hit["_id"]: hit["_score"] for hit in hits}


def agree(
    client: OpenSearch, index: str, query_type: QueryType, images: Mapping[str, SparseVector], queries: list[SparseVector]
) -> None:
    """All images with a word in common are found, no other, in the exact order up to the truncation, with the exact scores."""
    compared = 0
    for query in queries:
        found = scores(client, index, build_sparse_query(query_type, query, max_clauses=1024).clause)
        exact = {name: query.dot(image) for name, image in images.items() if set(query.tokens) & set(image.tokens)}
        assert found.keys() == exact.keys()
        for name, score in found.items():
            assert exact[name] * (1 - TRUNCATION) <= score <= exact[name] * (1 + ROUNDING), (query, name)
        assert list(found.values()) == sorted(found.values(), reverse=True)
        compared += len(found)
    assert compared > 1500


def test_rank_features(
    engine: OpenSearch,
    rank_features_url: str,
    engine_index: str,
    images: Mapping[str, SparseVector],
    queries: list[SparseVector],
) -> None:
    fields = create_index(engine, engine_index, DocumentSettings(), rank_features_url, images)
    cluster = Cluster(Connection(url=rank_features_url), engine)
    assert select_query_type(get_cluster_info(cluster), fields, lambda: list_cluster_plugins(cluster)) == "rank_features"
    agree(engine, engine_index, "rank_features", images, queries)


def test_neural_sparse(
    plugin_url: str, make_index_name: Callable[[str], str], images: Mapping[str, SparseVector], queries: list[SparseVector]
) -> None:
    index = make_index_name(plugin_url)
    with Cluster(Connection(url=plugin_url)) as cluster:
        fields = create_index(cluster.client, index, DocumentSettings(), plugin_url, images)
        assert (
            select_query_type(get_cluster_info(cluster), fields, lambda: list_cluster_plugins(cluster), "neural_sparse")
            == "neural_sparse"
        )
        agree(cluster.client, index, "neural_sparse", images, queries)


@pytest.fixture
def elastic(elasticsearch9_url: str) -> Iterator[OpenSearch]:
    made = Connection(url=elasticsearch9_url).client()
    yield made
    made.close()


def test_sparse_vector(
    elastic: OpenSearch,
    elasticsearch9_url: str,
    make_index_name: Callable[[str], str],
    images: Mapping[str, SparseVector],
    queries: list[SparseVector],
) -> None:
    index = make_index_name(elasticsearch9_url)
    fields = create_index(elastic, index, DocumentSettings(vector="sparse_vector"), elasticsearch9_url, images)
    cluster = Cluster(Connection(url=elasticsearch9_url), elastic)
    target = get_cluster_info(cluster)
    assert select_query_type(target, fields, lambda: list_cluster_plugins(cluster)) == "sparse_vector"
    assert select_query_type(target, fields, lambda: list_cluster_plugins(cluster), "sparse_vector") == "sparse_vector"
    agree(elastic, index, "sparse_vector", images, queries)


def test_nothing_is_pruned_even_where_the_index_would(
    elastic: OpenSearch, elasticsearch9_url: str, make_index_name: Callable[[str], str]
) -> None:
    index = make_index_name(elasticsearch9_url)
    pruning = {"prune": True, "pruning_config": {"tokens_freq_ratio_threshold": 1, "tokens_weight_threshold": 1}}
    mapping = {"properties": {"tokens": {"type": "sparse_vector", "index_options": pruning}}}
    elastic.indices.create(index=index, body={"mappings": mapping})
    for number in range(30):
        tokens = {"all": 0.01, **{f"w{number}-{other}": 1.0 for other in range(20)}}
        elastic.index(index=index, id=str(number), body={"tokens": tokens})
    elastic.indices.refresh(index=index)
    vector = {"w7-1": 1.0, "all": 0.01}
    pruned = {"sparse_vector": {"field": "tokens", "query_vector": vector}}
    assert len(scores(elastic, index, pruned)) == 1
    assert len(scores(elastic, index, build_sparse_query("sparse_vector", SparseVector.from_mapping(vector)).clause)) == 30


def test_impacts(
    client: OpenSearch, node_url: str, index_name: str, images: Mapping[str, SparseVector], queries: list[SparseVector]
) -> None:
    fields = create_index(client, index_name, DocumentSettings(impacts=True), node_url, images)
    assert (
        select_query_type(get_cluster_info(Cluster(Connection(url=node_url), client)), fields, frozenset, "impacts") == "impacts"
    )
    compared = 0
    for query in queries:
        if not any(map(is_single_term, query.tokens)):
            with pytest.raises(QueryError, match="whole words"):
                build_sparse_query("impacts", query)
            continue
        vector = build_sparse_query("impacts", query)
        assert {*vector.vector.tokens, *vector.truncated.tokens} == {*query.tokens}
        assert not any(map(is_single_term, vector.truncated.tokens))
        found = scores(client, index_name, vector.clause)
        sent = vector.vector.to_dict()
        for name, image in images.items():
            common = {word: weight for word, weight in image if word in sent}
            assert (name in found) == bool(common)
            if common:
                kept = {word: max(1, round(weight * IMPACT_SCALE)) / IMPACT_SCALE for word, weight in common.items()}
                quantised = sum(sent[word] * weight for word, weight in kept.items())
                assert math.isclose(found[name], quantised, rel_tol=ROUNDING)
                slack = sum(sent[word] for word in common) / IMPACT_SCALE  # half a step a word, less than one for tiny weights
                assert abs(found[name] - vector.vector.dot(image)) <= slack * (1 + ROUNDING)
                compared += 1
        assert list(found.values()) == sorted(found.values(), reverse=True)
    assert compared > 1500


def test_impacts_of_words_in_capitals(client: OpenSearch, node_url: str, index_name: str) -> None:
    named = {word: SparseVector.from_mapping({word: 1.0}) for word in ("Dog", "ÉTÉ", "İstanbul", "ΣΟΦΟΣ", "ẞtraße", "ǅ")}
    create_index(client, index_name, DocumentSettings(impacts=True), node_url, named)
    for word, vector in named.items():
        assert scores(client, index_name, build_sparse_query("impacts", vector).clause) == {word: pytest.approx(1.0)}, word


def test_long_queries_are_cut_to_the_limit_of_each_node(engine: OpenSearch, rank_features_url: str, engine_index: str) -> None:
    many = SparseVector.from_pairs((f"w{number:05}", 1 + 1 / (1 + number)) for number in range(10_000))
    create_index(engine, engine_index, DocumentSettings(), rank_features_url, {"first": many.top(60)})
    limit = get_cluster_info(Cluster(Connection(url=rank_features_url), engine)).max_clauses
    fits = build_sparse_query("rank_features", many, max_clauses=limit)
    assert (len(fits.vector), len(fits.truncated)) == (limit, 10_000 - limit)
    score = scores(engine, engine_index, fits.clause)["first"]
    assert many.dot(many.top(60)) * (1 - TRUNCATION) <= score <= many.dot(many.top(60)) * (1 + ROUNDING)
    with pytest.raises(RequestError):
        scores(engine, engine_index, build_sparse_query("rank_features", many, max_clauses=limit + 1).clause)


def test_impacts_are_limited_by_the_node(client: OpenSearch, node_url: str, index_name: str) -> None:
    many = SparseVector.from_pairs((f"w{number:05}", 1 + 1 / (1 + number)) for number in range(2000))
    create_index(client, index_name, DocumentSettings(impacts=True), node_url, {"first": many.top(60)})
    limit = get_cluster_info(Cluster(Connection(url=node_url), client)).max_clauses
    assert scores(client, index_name, build_sparse_query("impacts", many, max_clauses=limit).clause).keys() == {"first"}
    with pytest.raises(RequestError):
        scores(client, index_name, build_sparse_query("impacts", many, max_clauses=limit + 1).clause)


def test_a_query_type_without_its_plugin_is_rejected_by_us_and_by_the_node(
    client: OpenSearch, node_url: str, index_name: str
) -> None:
    cluster = Cluster(Connection(url=node_url), client)
    assert NEURAL_SEARCH not in list_cluster_plugins(cluster)
    fields = IndexFields(tokens="rank_features")
    with pytest.raises(QueryError, match=NEURAL_SEARCH):
        select_query_type(get_cluster_info(cluster), fields, lambda: list_cluster_plugins(cluster), "neural_sparse")
    client.indices.create(index=index_name)
    with pytest.raises(RequestError, match="unknown query"):
        scores(client, index_name, build_sparse_query("neural_sparse", SparseVector.from_mapping({"dog": 1.0})).clause)


def lists(*plugins_of_nodes: list[str]) -> Callable[[RecordedRequest], StubResponse | None]:
    """A gate that lets a node say of a cluster's nodes which plugins they have."""
    nodes = {
        str(number): {"name": f"node-{number}", **({"plugins": [{"name": name} for name in names]} if names else {})}
        for number, names in enumerate(plugins_of_nodes)
    }
    said = StubResponse(status=200, body=json.dumps({"nodes": nodes}).encode())
    return lambda asked: said if asked.target.startswith("/_nodes/plugins") else None


@pytest.mark.parametrize(
    ("of_nodes", "possible"),
    [
        ([["opensearch-knn", NEURAL_SEARCH]], True),
        ([[NEURAL_SEARCH], ["opensearch-knn", NEURAL_SEARCH]], True),
        ([[NEURAL_SEARCH], ["opensearch-knn"]], False),
        ([[NEURAL_SEARCH], []], False),
    ],
)
def test_the_plugin_counts_where_every_node_has_it(node_url: str, of_nodes: list[list[str]], possible: bool) -> None:
    with RecordingProxy(node_url, gate=lists(*of_nodes)) as proxy:
        connection = Connection(url=proxy.url)
        with Cluster(connection) as cluster:
            target, fields = get_cluster_info(cluster), IndexFields(tokens="rank_features")
            if possible:
                assert (
                    select_query_type(target, fields, lambda: list_cluster_plugins(cluster), "neural_sparse") == "neural_sparse"
                )
            else:
                with pytest.raises(QueryError, match="on every node"):
                    select_query_type(target, fields, lambda: list_cluster_plugins(cluster), "neural_sparse")


def test_forbidden_plugin_list_has_a_remedy(node_url: str) -> None:
    def gate(asked: RecordedRequest) -> StubResponse | None:
        return StubResponse(status=403) if asked.target.startswith("/_nodes/plugins") else None

    with RecordingProxy(node_url, gate=gate) as proxy:
        connection = Connection(url=proxy.url)
        with Cluster(connection) as cluster:
            target, fields = get_cluster_info(cluster), IndexFields(tokens="rank_features")
            with pytest.raises(QueryError, match="can't determine which plugins") as failure:
                select_query_type(target, fields, lambda: list_cluster_plugins(cluster), "neural_sparse")
            assert "cluster:monitor/nodes/info" in failure.value.remedy
            assert select_query_type(target, fields, lambda: list_cluster_plugins(cluster)) == "rank_features"
            assert len([asked for asked in proxy.requests if asked.target.startswith("/_nodes/plugins")]) == 1
