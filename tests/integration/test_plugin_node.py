"""The node with dense vectors beside ours: what the benchmarks compare with."""

from __future__ import annotations

from pathlib import Path

from opensearch_nodes import plugin_node

from stair_es.cluster.connect import Connection

VECTORS = {"near": [0.9, 0.1], "middle": [0.5, 0.5], "far": [0.1, 0.9]}
TOKENS = {"near": {"dog": 0.1}, "middle": {"dog": 0.2}, "far": {"dog": 0.9}}


def test_dense_and_sparse_are_ranked_in_one_node(tmp_path: Path) -> None:
    with plugin_node(tmp_path) as node:
        client = Connection(url=node.url).client()
        dense = {
            "type": "knn_vector",
            "dimension": 2,
            "method": {"name": "hnsw", "engine": "lucene", "space_type": "innerproduct"},
        }
        fields = {"dense": dense, "tokens": {"type": "rank_features"}}
        client.indices.create(index="both", body={"settings": {"index": {"knn": True}}, "mappings": {"properties": fields}})
        for id_, vector in VECTORS.items():
            client.index(index="both", id=id_, body={"dense": vector, "tokens": TOKENS[id_]})
        client.indices.refresh(index="both")
        asked = {
            ("near", "middle", "far"): {"knn": {"dense": {"vector": [1, 0], "k": 3}}},
            ("far", "middle", "near"): {"rank_feature": {"field": "tokens.dog", "linear": {}}},
        }
        for order, query in asked.items():
            hits = client.search(index="both", body={"query": query})["hits"]["hits"]
            assert tuple(hit["_id"] for hit in hits) == order
        client.close()
