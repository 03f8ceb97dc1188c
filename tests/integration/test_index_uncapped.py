"""Vectors without a cap: any number of tokens in a document, as many as the cluster allows in a query."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from opensearchpy import RequestError

from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings, ImageMetadata, build_document
from stair_es.cluster.index.mappings import build_index_body
from stair_es.search.dsl.select import build_rank_features_query
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

ALL, ASKED, CLAUSES = 30_522, 1_500, 1_024
TRUNCATION = 2**-8


def _drawn(size: int, seed: int) -> SparseVector:
    rng = np.random.default_rng(seed)
    chosen, weights = rng.permutation(ALL)[:size], rng.uniform(0.01, 3, size)
    return SparseVector.from_pairs((f"token{place}", float(weight)) for place, weight in zip(chosen, weights, strict=True))


def test_a_document_holds_the_whole_vocabulary_and_a_query_its_heaviest_tokens(
    client: OpenSearch, node_url: str, index_name: str
) -> None:
    settings = DocumentSettings()
    client.indices.create(
        index=index_name, body=build_index_body(get_cluster_info(Cluster(Connection(url=node_url), client)), settings)
    )
    facts = ImageMetadata(
        uri="a",
        name="a",
        bytes=1,
        source="",
        version=None,
        sha256="",
        width=1,
        height=1,
        format="PNG",
        taken_at=None,
        thumbnail=None,
    )
    image, query = _drawn(ALL, 1), _drawn(ASKED, 2)
    at = "2026-01-01T00:00:00Z"
    body = build_document(image, facts, fields={}, model_id="m", fingerprint="f", ingested_at=at, settings=settings)
    client.index(index=index_name, id="a", body=body, params={"refresh": "true"})

    made = build_rank_features_query(query, max_clauses=CLAUSES)
    assert (len(made.vector), len(made.truncated)) == (CLAUSES, ASKED - CLAUSES)
    assert min(weight for _, weight in made.vector) >= max(weight for _, weight in made.truncated)
    (hit,) = client.search(index=index_name, body={"query": made.clause})["hits"]["hits"]
    exact = made.vector.dot(image)
    assert exact * (1 - TRUNCATION) <= hit["_score"] <= exact * (1 + 1e-5)
    assert exact < query.dot(image)

    longer = build_rank_features_query(query, max_clauses=ASKED).clause
    with pytest.raises(RequestError, match=r"maxClauseCount|too_many"):
        client.search(index=index_name, body={"query": longer})
