"""The node with the kNN plugin, which the benchmarks compare with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable

VECTORS = {"near": [0.9, 0.1], "middle": [0.5, 0.5], "far": [0.1, 0.9]}
TOKENS = {"near": {"dog": 0.1}, "middle": {"dog": 0.2}, "far": {"dog": 0.9}}


def test_dense_and_sparse_are_ranked_in_one_node(plugin_url: str, make_index_name: Callable[[str], str]) -> None:
    index = make_index_name(plugin_url)
    dense = {
        "type": "knn_vector",
        "dimension": 2,
        "method": {"name": "hnsw", "engine": "lucene", "space_type": "innerproduct"},
    }
    fields = {"dense": dense, "tokens": {"type": "rank_features"}}
    with Cluster(Connection(url=plugin_url)) as cluster:
        cluster.client.indices.create(
            index=index, body={"settings": {"index": {"knn": True}}, "mappings": {"properties": fields}}
        )
        for id_, vector in VECTORS.items():
            cluster.client.index(index=index, id=id_, body={"dense": vector, "tokens": TOKENS[id_]})
        cluster.client.indices.refresh(index=index)
        asked = {
            ("near", "middle", "far"): {"knn": {"dense": {"vector": [1, 0], "k": 3}}},
            ("far", "middle", "near"): {"rank_feature": {"field": "tokens.dog", "linear": {}}},
        }
        for order, query in asked.items():
            hits = cluster.client.search(index=index, body={"query": query})["hits"]["hits"]
            assert tuple(hit["_id"] for hit in hits) == order
