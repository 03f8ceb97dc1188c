"""Dense vectors in the same cluster: its mapping and its query, where it has kNN. Pure, but for `plugins`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stair_es.cluster.target import Distribution, Target

FIELD = "dense"
_ELASTICSEARCH_FROM = (8, 12)
"""Since then `knn` is a query like others, which `_msearch` and `_rank_eval` take."""
_PLUGIN = "opensearch-knn"
_ELASTICSEARCH_MOST, _OPENSEARCH_MOST = 4096, 16_000
_MOST_CANDIDATES = 10_000


def obstacle(target: Target, plugins: Callable[[], frozenset[str]], dimensions: int) -> str:
    """Why there is no kNN on this cluster; empty where there is."""
    if target.distribution == "elasticsearch":
        if target.version < _ELASTICSEARCH_FROM:
            return f"{target.label} has no kNN query: it takes Elasticsearch 8.12 or newer"
        most = _ELASTICSEARCH_MOST
    elif _PLUGIN not in plugins():
        return f"{target.label} is without the plugin {_PLUGIN}"
    else:
        most = _OPENSEARCH_MOST
    return f"vectors of {dimensions} dimensions: {target.label} takes {most}" if dimensions > most else ""


def knn_body(distribution: Distribution, dimensions: int) -> dict[str, Any]:
    """The body of an index of unit vectors, as float32 in an HNSW graph of Lucene's: nothing quantised, the default graph."""
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
        "mappings": {"properties": {FIELD: field}},
    }


def knn_clause(distribution: Distribution, vector: Sequence[float], k: int) -> dict[str, Any]:
    """The query of the `k` nearest."""
    if distribution == "elasticsearch":
        candidates = min(_MOST_CANDIDATES, max(100, k))
        return {"knn": {"field": FIELD, "query_vector": list(vector), "k": k, "num_candidates": candidates}}
    return {"knn": {FIELD: {"vector": list(vector), "k": k}}}
