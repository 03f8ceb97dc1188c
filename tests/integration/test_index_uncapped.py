"""Vectors without a cap: any number of tokens in a document, as many as the cluster allows in a query."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from opensearchpy import RequestError

from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings, build_vector_fields
from stair_es.cluster.index.mappings import build_index_body
from stair_es.search.dsl.select import build_rank_features_query
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

VOCABULARY_SIZE, QUERY_TOKENS, MAX_CLAUSES = 30_522, 1_500, 1_024
TRUNCATION = 2**-8


def _draw_vector(size: int, seed: int) -> SparseVector:
    rng = np.random.default_rng(seed)
    chosen, weights = rng.permutation(VOCABULARY_SIZE)[:size], rng.uniform(0.01, 3, size)
    return SparseVector.from_pairs((f"token{place}", float(weight)) for place, weight in zip(chosen, weights, strict=True))


def test_documents_hold_all_tokens_and_queries_the_heaviest(client: OpenSearch, node_url: str, index_name: str) -> None:
    cluster_info = get_cluster_info(Cluster(Connection(url=node_url), client))
    client.indices.create(index=index_name, body=build_index_body(cluster_info, DocumentSettings()))
    image, query = _draw_vector(VOCABULARY_SIZE, 1), _draw_vector(QUERY_TOKENS, 2)
    document = {"uri": "a", **build_vector_fields(image, DocumentSettings())}
    client.index(index=index_name, id="a", body=document, params={"refresh": "true"})

    built = build_rank_features_query(query, max_clauses=MAX_CLAUSES)
    assert (len(built.vector), len(built.truncated)) == (MAX_CLAUSES, QUERY_TOKENS - MAX_CLAUSES)
    assert min(weight for _, weight in built.vector) >= max(weight for _, weight in built.truncated)
    (hit,) = client.search(index=index_name, body={"query": built.clause})["hits"]["hits"]
    exact = built.vector.dot(image)
    assert exact * (1 - TRUNCATION) <= hit["_score"] <= exact * (1 + 1e-5)
    assert exact < query.dot(image)

    longer = build_rank_features_query(query, max_clauses=QUERY_TOKENS).clause
    with pytest.raises(RequestError, match=r"maxClauseCount|too_many"):
        client.search(index=index_name, body={"query": longer})
