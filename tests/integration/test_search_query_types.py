"""Exact dot products of each query type, within the precision of the field."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from opensearchpy import RequestError
from support.corpora.unicode_vectors import create_index, draw_images, draw_queries
from support.errors import expect_error
from support.oracles.search_oracle import ROUNDING, TRUNCATION
from support.servers.recording_proxy import RecordedRequest, RecordingProxy, StubResponse

from stair_es.cluster.client.capabilities import NEURAL_SEARCH, get_cluster_info, list_cluster_plugins
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import IMPACT_SCALE, DocumentSettings, is_single_term
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


def read_scores(client: OpenSearch, index: str, clause: Mapping[str, Any]) -> dict[str, float]:
    hits = client.search(index=index, body={"size": 1000, "query": clause, "_source": False})["hits"]["hits"]
    return {hit["_id"]: hit["_score"] for hit in hits}


def check_scores(
    client: OpenSearch, index: str, query_type: QueryType, images: Mapping[str, SparseVector], queries: list[SparseVector]
) -> None:
    """Check that the images with a common token are found and no others, in order, with exact scores up to the truncation."""
    compared = 0
    for query in queries:
        found = read_scores(client, index, build_sparse_query(query_type, query, max_clauses=1024).clause)
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
    check_scores(engine, engine_index, "rank_features", images, queries)


@pytest.fixture
def elasticsearch9_client(elasticsearch9_url: str) -> Iterator[OpenSearch]:
    client = Connection(url=elasticsearch9_url).client()
    yield client
    client.close()


def test_sparse_vector(
    elasticsearch9_client: OpenSearch,
    elasticsearch9_url: str,
    make_index_name: Callable[[str], str],
    images: Mapping[str, SparseVector],
    queries: list[SparseVector],
) -> None:
    index = make_index_name(elasticsearch9_url)
    fields = create_index(elasticsearch9_client, index, DocumentSettings(vector="sparse_vector"), elasticsearch9_url, images)
    cluster = Cluster(Connection(url=elasticsearch9_url), elasticsearch9_client)
    cluster_info = get_cluster_info(cluster)
    assert select_query_type(cluster_info, fields, lambda: list_cluster_plugins(cluster)) == "sparse_vector"
    assert select_query_type(cluster_info, fields, lambda: list_cluster_plugins(cluster), "sparse_vector") == "sparse_vector"
    check_scores(elasticsearch9_client, index, "sparse_vector", images, queries)


def test_nothing_is_pruned_even_where_the_index_would(
    elasticsearch9_client: OpenSearch, elasticsearch9_url: str, make_index_name: Callable[[str], str]
) -> None:
    index = make_index_name(elasticsearch9_url)
    pruning = {"prune": True, "pruning_config": {"tokens_freq_ratio_threshold": 1, "tokens_weight_threshold": 1}}
    mapping = {"properties": {"tokens": {"type": "sparse_vector", "index_options": pruning}}}
    elasticsearch9_client.indices.create(index=index, body={"mappings": mapping})
    for number in range(30):
        tokens = {"all": 0.01, **{f"w{number}-{other}": 1.0 for other in range(20)}}
        elasticsearch9_client.index(index=index, id=str(number), body={"tokens": tokens})
    elasticsearch9_client.indices.refresh(index=index)
    vector = {"w7-1": 1.0, "all": 0.01}
    pruned = {"sparse_vector": {"field": "tokens", "query_vector": vector}}
    unpruned = build_sparse_query("sparse_vector", SparseVector.from_mapping(vector)).clause
    assert len(read_scores(elasticsearch9_client, index, pruned)) == 1
    assert len(read_scores(elasticsearch9_client, index, unpruned)) == 30


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
            with expect_error("no-whole-words"):
                build_sparse_query("impacts", query)
            continue
        vector = build_sparse_query("impacts", query)
        assert {*vector.vector.tokens, *vector.truncated.tokens} == {*query.tokens}
        assert not any(map(is_single_term, vector.truncated.tokens))
        found = read_scores(client, index_name, vector.clause)
        sent = vector.vector.to_dict()
        for name, image in images.items():
            common = {word: weight for word, weight in image if word in sent}
            assert (name in found) == bool(common)
            if common:
                stored = {word: max(1, round(weight * IMPACT_SCALE)) / IMPACT_SCALE for word, weight in common.items()}
                quantized = sum(sent[word] * weight for word, weight in stored.items())
                assert math.isclose(found[name], quantized, rel_tol=ROUNDING)
                slack = sum(sent[word] for word in common) / IMPACT_SCALE  # half a step a word, less than one for tiny weights
                assert abs(found[name] - vector.vector.dot(image)) <= slack * (1 + ROUNDING)
                compared += 1
        assert list(found.values()) == sorted(found.values(), reverse=True)
    assert compared > 1500


def test_impacts_of_words_in_capitals(client: OpenSearch, node_url: str, index_name: str) -> None:
    named = {word: SparseVector.from_mapping({word: 1.0}) for word in ("Dog", "ÉTÉ", "İstanbul", "ΣΟΦΟΣ", "ẞtraße", "ǅ")}
    create_index(client, index_name, DocumentSettings(impacts=True), node_url, named)
    for word, vector in named.items():
        assert read_scores(client, index_name, build_sparse_query("impacts", vector).clause) == {word: pytest.approx(1.0)}, word


def test_long_queries_are_cut_to_the_limit_of_each_node(engine: OpenSearch, rank_features_url: str, engine_index: str) -> None:
    many = SparseVector.from_pairs((f"w{number:05}", 1 + 1 / (1 + number)) for number in range(10_000))
    create_index(engine, engine_index, DocumentSettings(), rank_features_url, {"first": many.top(60)})
    limit = get_cluster_info(Cluster(Connection(url=rank_features_url), engine)).max_clauses
    fits = build_sparse_query("rank_features", many, max_clauses=limit)
    assert (len(fits.vector), len(fits.truncated)) == (limit, 10_000 - limit)
    score = read_scores(engine, engine_index, fits.clause)["first"]
    assert many.dot(many.top(60)) * (1 - TRUNCATION) <= score <= many.dot(many.top(60)) * (1 + ROUNDING)
    with pytest.raises(RequestError):
        read_scores(engine, engine_index, build_sparse_query("rank_features", many, max_clauses=limit + 1).clause)


def test_impacts_are_limited_by_the_node(client: OpenSearch, node_url: str, index_name: str) -> None:
    many = SparseVector.from_pairs((f"w{number:05}", 1 + 1 / (1 + number)) for number in range(2000))
    create_index(client, index_name, DocumentSettings(impacts=True), node_url, {"first": many.top(60)})
    limit = get_cluster_info(Cluster(Connection(url=node_url), client)).max_clauses
    assert read_scores(client, index_name, build_sparse_query("impacts", many, max_clauses=limit).clause).keys() == {"first"}
    with pytest.raises(RequestError):
        read_scores(client, index_name, build_sparse_query("impacts", many, max_clauses=limit + 1).clause)


def test_query_types_without_their_plugin_are_rejected(client: OpenSearch, node_url: str, index_name: str) -> None:
    cluster = Cluster(Connection(url=node_url), client)
    assert NEURAL_SEARCH not in list_cluster_plugins(cluster)
    fields = IndexFields(tokens="rank_features")
    with expect_error("query-type-not-possible") as caught:
        select_query_type(get_cluster_info(cluster), fields, lambda: list_cluster_plugins(cluster), "neural_sparse")
    assert NEURAL_SEARCH in caught.value.message
    client.indices.create(index=index_name)
    with pytest.raises(RequestError, match="unknown query"):
        read_scores(client, index_name, build_sparse_query("neural_sparse", SparseVector.from_mapping({"dog": 1.0})).clause)


def report_plugins(*plugins_of_nodes: list[str]) -> Callable[[RecordedRequest], StubResponse | None]:
    """Return a gate that reports these plugins of the cluster's nodes."""
    nodes = {
        str(number): {"name": f"node-{number}", **({"plugins": [{"name": name} for name in names]} if names else {})}
        for number, names in enumerate(plugins_of_nodes)
    }
    response = StubResponse(status=200, body=json.dumps({"nodes": nodes}).encode())
    return lambda request: response if request.target.startswith("/_nodes/plugins") else None


@pytest.mark.parametrize(
    ("plugins", "is_possible"),
    [
        ([["opensearch-knn", NEURAL_SEARCH]], True),
        ([[NEURAL_SEARCH], ["opensearch-knn", NEURAL_SEARCH]], True),
        ([[NEURAL_SEARCH], ["opensearch-knn"]], False),
        ([[NEURAL_SEARCH], []], False),
    ],
)
def test_the_plugin_is_needed_on_every_node(node_url: str, plugins: list[list[str]], is_possible: bool) -> None:
    fields = IndexFields(tokens="rank_features")
    expectation = nullcontext() if is_possible else expect_error("query-type-not-possible")
    with (
        RecordingProxy(node_url, gate=report_plugins(*plugins)) as proxy,
        Cluster(Connection(url=proxy.url)) as cluster,
        expectation,
    ):
        select_query_type(get_cluster_info(cluster), fields, lambda: list_cluster_plugins(cluster), "neural_sparse")


def test_forbidden_plugin_list_has_a_remedy(node_url: str) -> None:
    def forbid_plugins(request: RecordedRequest) -> StubResponse | None:
        return StubResponse(status=403) if request.target.startswith("/_nodes/plugins") else None

    with RecordingProxy(node_url, gate=forbid_plugins) as proxy, Cluster(Connection(url=proxy.url)) as cluster:
        cluster_info, fields = get_cluster_info(cluster), IndexFields(tokens="rank_features")
        with expect_error("plugins-unknown") as caught:
            select_query_type(cluster_info, fields, lambda: list_cluster_plugins(cluster), "neural_sparse")
        assert "cluster:monitor/nodes/info" in caught.value.remedy
        assert select_query_type(cluster_info, fields, lambda: list_cluster_plugins(cluster)) == "rank_features"
        assert len([request for request in proxy.requests if request.target.startswith("/_nodes/plugins")]) == 1
