"""The node with k-NN and neural-search: `neural_sparse`, alone and with conditions, next to dense vectors."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from opensearchpy import OpenSearch
from support.corpora.unicode_vectors import create_index, draw_images, draw_queries
from support.oracles.search_oracle import ROUNDING, TRUNCATION

from stair_es.cluster.client.capabilities import get_cluster_info, list_cluster_plugins
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.search.dsl.select import IndexFields, select_query_type
from stair_es.search.query import SearchQuery
from stair_es.search.request import build_search_request
from stair_es.types import SparseVector


@pytest.fixture(scope="module")
def plugin_client(plugin_url: str) -> Iterator[OpenSearch]:
    with Cluster(Connection(url=plugin_url)) as cluster:
        yield cluster.client


@pytest.fixture(scope="module")
def unicode_index(plugin_client: OpenSearch, plugin_url: str) -> Iterator[tuple[str, dict[str, SparseVector]]]:
    index, images = f"test-{uuid.uuid4().hex[:12]}", draw_images()
    create_index(plugin_client, index, DocumentSettings(), plugin_url, images)
    yield index, images
    plugin_client.indices.delete(index=index)


CONDITIONS: Mapping[str, dict[str, Any]] = {
    "alone": {},
    "filter": {"filters": [{"range": {"uri": {"lt": "100"}}}]},
    "require": {"required": [("word7",)]},
    "exclude": {"excluded": [("word8",), ("word9", "a.b")]},
    "all": {"filters": [{"range": {"uri": {"gte": "020"}}}], "required": [("##ing",)], "excluded": [("word8",)]},
}


def is_match(query: SearchQuery, name: str, image: SparseVector) -> bool:
    """Return whether a document meets the conditions of `CONDITIONS`."""
    bounds = query.filters[0]["range"]["uri"] if query.filters else {}
    tokens = set(image.tokens)
    return (
        name < bounds.get("lt", "~")
        and name >= bounds.get("gte", "")
        and all(tokens.issuperset(word) for word in query.required)
        and not any(tokens.issuperset(word) for word in query.excluded)
    )


@pytest.mark.parametrize("conditions", CONDITIONS.values(), ids=CONDITIONS)
def test_neural_sparse_is_exact(
    plugin_client: OpenSearch, unicode_index: tuple[str, dict[str, SparseVector]], conditions: dict[str, Any]
) -> None:
    index, images = unicode_index
    compared = 0
    for vector in draw_queries()[:: 2 if conditions else 1]:
        query = SearchQuery(vector=vector, **conditions)
        body = build_search_request(query, "neural_sparse", max_clauses=1024, k=1000).body
        hits = plugin_client.search(index=index, body={**body, "_source": False})["hits"]["hits"]
        assert [hit["_score"] for hit in hits] == sorted((hit["_score"] for hit in hits), reverse=True)
        expected_images = {name: image for name, image in images.items() if is_match(query, name, image)}
        assert {hit["_id"] for hit in hits} == {
            name for name, image in expected_images.items() if set(vector.tokens) & set(image.tokens)
        }
        for hit in hits:
            exact = vector.dot(images[hit["_id"]])
            assert exact * (1 - TRUNCATION) <= hit["_score"] <= exact * (1 + ROUNDING), (vector, hit["_id"])
        compared += len(hits)
    assert compared > (20 if conditions else 1500)


def test_the_query_type_is_possible_with_the_plugin(plugin_client: OpenSearch, plugin_url: str) -> None:
    cluster, fields = Cluster(Connection(url=plugin_url), plugin_client), IndexFields(tokens="rank_features")
    query_type = select_query_type(get_cluster_info(cluster), fields, lambda: list_cluster_plugins(cluster), "neural_sparse")
    assert query_type == "neural_sparse"


def test_dense_and_sparse_vectors_are_ranked_in_one_index(
    plugin_client: OpenSearch, plugin_url: str, make_index_name: Callable[[str], str]
) -> None:
    index = make_index_name(plugin_url)
    dense_field = {
        "type": "knn_vector",
        "dimension": 2,
        "method": {"name": "hnsw", "engine": "lucene", "space_type": "innerproduct"},
    }
    mappings = {"properties": {"dense": dense_field, "tokens": {"type": "rank_features"}}}
    plugin_client.indices.create(index=index, body={"settings": {"index": {"knn": True}}, "mappings": mappings})
    for name, vector, weight in (("near", [0.9, 0.1], 0.1), ("middle", [0.5, 0.5], 0.2), ("far", [0.1, 0.9], 0.9)):
        plugin_client.index(index=index, id=name, body={"dense": vector, "tokens": {"dog": weight}})
    plugin_client.indices.refresh(index=index)
    for query, order in (
        ({"knn": {"dense": {"vector": [1, 0], "k": 3}}}, ["near", "middle", "far"]),
        ({"rank_feature": {"field": "tokens.dog", "linear": {}}}, ["far", "middle", "near"]),
    ):
        hits = plugin_client.search(index=index, body={"query": query})["hits"]["hits"]
        assert [hit["_id"] for hit in hits] == order
