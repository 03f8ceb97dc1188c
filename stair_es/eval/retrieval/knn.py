"""Dense vectors in the same cluster: mapping and query for clusters with kNN. Pure, except for the argument `plugins`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stair_es.cluster.client.capabilities import ClusterInfo, Distribution

DENSE_FIELD = "dense"
_MIN_ELASTICSEARCH = (8, 12)
"""First version in which `knn` is an ordinary query, as `_msearch` needs it."""
_PLUGIN = "opensearch-knn"
_ELASTICSEARCH_MAX_DIMENSIONS, _OPENSEARCH_MAX_DIMENSIONS = 4096, 16_000
_MAX_CANDIDATES = 10_000


def explain_missing_knn(cluster_info: ClusterInfo, plugins: Callable[[], frozenset[str]], dimensions: int) -> str:
    """Return the reason why the cluster has no kNN for such vectors; empty if it has."""
    if cluster_info.distribution == "elasticsearch":
        if cluster_info.version < _MIN_ELASTICSEARCH:
            return f"{cluster_info.label} has no kNN query: it requires Elasticsearch 8.12 or newer"
        limit = _ELASTICSEARCH_MAX_DIMENSIONS
    elif _PLUGIN not in plugins():
        return f"{cluster_info.label} doesn't have the plugin {_PLUGIN}"
    else:
        limit = _OPENSEARCH_MAX_DIMENSIONS
    return f"vectors of {dimensions} dimensions: {cluster_info.label} supports up to {limit}" if dimensions > limit else ""


def build_knn_body(distribution: Distribution, dimensions: int) -> dict[str, Any]:
    """Build the body of an index of unit vectors: float32 in a Lucene HNSW graph with default parameters, not quantized."""
    if distribution == "elasticsearch":
        field: dict[str, Any] = {
            "type": "dense_vector",
            "dims": dimensions,
            "index": True,
            "similarity": "dot_product",
            "index_options": {"type": "hnsw"},
        }
        index: dict[str, Any] = {}
    else:
        field = {
            "type": "knn_vector",
            "dimension": dimensions,
            "method": {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"},
        }
        index = {"knn": True}
    return {
        "settings": {"index": {"number_of_shards": 1, "auto_expand_replicas": "0-1", **index}},
        "mappings": {"properties": {DENSE_FIELD: field}},
    }


def build_knn_clause(distribution: Distribution, vector: Sequence[float], k: int) -> dict[str, Any]:
    """Build the query for the `k` nearest neighbors."""
    if distribution == "elasticsearch":
        candidates = min(_MAX_CANDIDATES, max(100, k))
        return {"knn": {"field": DENSE_FIELD, "query_vector": list(vector), "k": k, "num_candidates": candidates}}
    return {"knn": {DENSE_FIELD: {"vector": list(vector), "k": k}}}
