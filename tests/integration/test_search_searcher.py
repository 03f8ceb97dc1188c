"""Errors and remarks of a searcher, on a real node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.errors import expect_error

from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.metadata.index_metadata import INDEX_FORMAT
from stair_es.errors import ClusterError, ClusterUnreachable, IndexMismatch, QueryError
from stair_es.search.diagnose import explain_rank
from stair_es.search.query import SearchQuery
from stair_es.search.searcher import Searcher
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

CAR = SparseVector.from_mapping({"car": 1.0})


def create_index(client: OpenSearch, name: str, model: str | None = "m@1", field: str = "rank_features") -> None:
    metadata: dict[str, Any] = (
        {"_meta": {"stair_es": {"format_version": INDEX_FORMAT, "model": model, "model_name": "m"}}} if model else {}
    )
    body = {
        "settings": {"number_of_shards": 1, "number_of_replicas": 0},
        "mappings": {**metadata, "properties": {"tokens": {"type": field}}},
    }
    client.indices.create(index=name, body=body)


def open_searcher(node_url: str, index: str, model_id: str = "m@1") -> Searcher:
    return Searcher(Connection(url=node_url), index, model_id)


def test_a_missing_index_is_reported_with_a_remedy(node_url: str, index_name: str) -> None:
    with open_searcher(node_url, index_name) as searcher, expect_error("index-not-found", QueryError) as caught:
        searcher.search(CAR)
    assert index_name in caught.value.message
    assert f"--index {index_name}" in caught.value.remedy


@pytest.mark.parametrize("index", ["", ",", "nothing-matches-this-*"])
def test_an_empty_name_or_pattern_never_means_every_index(node_url: str, index: str) -> None:
    with open_searcher(node_url, index) as searcher, expect_error("index-not-found"):
        searcher.search(CAR)


def test_other_models_are_rejected_with_a_hint(node_url: str, client: OpenSearch, index_name: str) -> None:
    create_index(client, index_name)
    with open_searcher(node_url, index_name, "other@1") as searcher, expect_error("other-model", QueryError) as caught:
        searcher.search(CAR)
    assert all(model in caught.value.message for model in ("'m@1'", "'other@1'"))
    assert "--model m," in caught.value.remedy


@pytest.mark.parametrize(("model", "field"), [(None, "rank_features"), ("m@1", "keyword")])
def test_a_foreign_index_is_rejected(node_url: str, client: OpenSearch, index_name: str, model: str | None, field: str) -> None:
    create_index(client, index_name, model, field)
    with open_searcher(node_url, index_name) as searcher, pytest.raises(IndexMismatch, match=index_name):
        searcher.search(CAR)


def test_an_empty_index_gives_no_hits(node_url: str, client: OpenSearch, index_name: str) -> None:
    create_index(client, index_name)
    with open_searcher(node_url, index_name) as searcher:
        assert searcher.search(CAR).hits == ()


def test_an_alias_is_searched(node_url: str, client: OpenSearch, index_name: str) -> None:
    create_index(client, f"{index_name}-1")
    try:
        client.indices.put_alias(index=f"{index_name}-1", name=index_name)
        client.index(index=index_name, id="1", body={"tokens": {"car": 2.0}, "uri": "s3://b/1"}, params={"refresh": "true"})
        with open_searcher(node_url, index_name) as searcher:
            [hit] = searcher.search(CAR).hits
        assert (hit.id, hit.uri, hit.score) == ("1", "s3://b/1", 2.0)
    finally:
        client.indices.delete(index=f"{index_name}-1")


def test_an_id_of_two_indices_is_explained_as_one_document(node_url: str, client: OpenSearch, index_name: str) -> None:
    weights = {f"{index_name}-1": 1.0, f"{index_name}-2": 2.0}
    for name, weight in weights.items():
        create_index(client, name)
        client.index(index=name, id="1", body={"tokens": {"car": weight}, "part": name}, params={"refresh": "true"})
    with open_searcher(node_url, f"{index_name}-*") as searcher:
        found = searcher.find_document("1")
        assert found is not None
        explanation = explain_rank(searcher, SearchQuery(vector=CAR, filters=[{"term": {"part.keyword": found.index}}]), "1")
    assert (explanation.score, explanation.failed_conditions) == (weights[found.index], ())
    assert [reason.document_weight for reason in explanation.contributions] == [explanation.score]


def test_empty_vectors_and_bad_k_are_rejected_unsent() -> None:
    with open_searcher("http://127.0.0.1:9", "images") as searcher:
        with expect_error("query-empty"):
            searcher.search(SparseVector((), ()))
        for k in (0, 10_001):
            with expect_error("invalid-k"):
                searcher.search(CAR, k)


def test_an_unreachable_cluster_is_reported() -> None:
    with open_searcher("http://127.0.0.1:9", "images") as searcher, pytest.raises(ClusterUnreachable):
        searcher.search(CAR)


def test_a_query_beyond_the_clause_limit_is_cut_and_reported(node_url: str, client: OpenSearch, index_name: str) -> None:
    create_index(client, index_name)
    client.index(index=index_name, id="1", body={"tokens": {"w0": 2.0, "w1499": 2.0}}, params={"refresh": "true"})
    limit = get_cluster_info(Cluster(Connection(url=node_url), client)).max_clauses
    vector = SparseVector.from_pairs((f"w{i}", 5000.0 - i) for i in range(limit + 476))
    with open_searcher(node_url, index_name) as searcher:
        result = searcher.search(vector)
    assert len(result.truncated) == 476
    assert [reason.token for reason in result.hits[0].contributions] == ["w0"]


def test_an_unsearchable_shard_fails_the_search(node_url: str, client: OpenSearch, index_name: str) -> None:
    body = {
        "settings": {"number_of_replicas": 0, "index.routing.allocation.require._name": "nowhere"},
        "mappings": {
            "_meta": {"stair_es": {"format_version": INDEX_FORMAT, "model": "m@1"}},
            "properties": {"tokens": {"type": "rank_features"}},
        },
    }
    client.indices.create(index=index_name, body=body, params={"wait_for_active_shards": "0"})
    with open_searcher(node_url, index_name) as searcher, pytest.raises(ClusterError, match="503"):
        searcher.search(CAR)
