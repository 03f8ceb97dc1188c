"""`neural_sparse` on a real node, next to conditions."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from opensearchpy import OpenSearch
from support.corpora.unicode_vectors import create_index, draw_images, draw_queries
from support.oracles.search_oracle import ROUNDING, TRUNCATION

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
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


def meets(query: SearchQuery, name: str, image: SparseVector) -> bool:
    """Whether a document meets the conditions, which only the tests above have."""
    bounds = query.filters[0]["range"]["uri"] if query.filters else {}
    has = set(image.tokens)
    return (
        name < bounds.get("lt", "~")
        and name >= bounds.get("gte", "")
        and all(has.issuperset(word) for word in query.required)
        and not any(has.issuperset(word) for word in query.excluded)
    )


@pytest.mark.parametrize("conditions", CONDITIONS.values(), ids=CONDITIONS)
def test_neural_sparse_next_to_conditions(
    plugin_client: OpenSearch, unicode_index: tuple[str, dict[str, SparseVector]], conditions: dict[str, Any]
) -> None:
    index, images = unicode_index
    compared = 0
    for vector in draw_queries()[:: 2 if conditions else 1]:
        query = SearchQuery(vector=vector, **conditions)
        body = build_search_request(query, "neural_sparse", max_clauses=1024, k=1000).body
        hits = plugin_client.search(index=index, body={**body, "_source": False})["hits"]["hits"]
        part = {name: image for name, image in images.items() if meets(query, name, image)}
        assert {hit["_id"] for hit in hits} == {name for name, image in part.items() if set(vector.tokens) & set(image.tokens)}
        for hit in hits:
            exact = vector.dot(images[hit["_id"]])
            assert exact * (1 - TRUNCATION) <= hit["_score"] <= exact * (1 + ROUNDING), (vector, hit["_id"])
        compared += len(hits)
    assert compared > 20
