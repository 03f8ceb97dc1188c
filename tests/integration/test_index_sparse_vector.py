"""An index with Elasticsearch's `sparse_vector`, from its mapping to a search with reasons, on a real node of version 9."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from opensearchpy import OpenSearch
from support.messages import forward_messages

from stair_es import SparseVector
from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings, ImageMetadata, build_document, make_document_id
from stair_es.cluster.documents.read import get_stored_by_id, get_stored_by_uri, scan_documents
from stair_es.cluster.index.aliases import delete_retired_indices, swap_alias
from stair_es.cluster.index.lifecycle import open_index
from stair_es.cluster.index.load_settings import relax_index_settings
from stair_es.cluster.index.mappings import build_index_body
from stair_es.cluster.metadata.index_metadata import INDEX_FORMAT, IndexSpec
from stair_es.cluster.metadata.names import make_write_alias
from stair_es.errors import IndexMismatch, UnsupportedTarget
from stair_es.search.searcher import Searcher

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ALIAS = "test-sparse"
SETTINGS = DocumentSettings(vector="sparse_vector")
IDENTITY = IndexSpec(model_name="drawn", model_id="drawn@1", settings={"vector": "sparse_vector"})
TRUNCATION = 2**-8
STRANGE = ("a.b", ".", "##ing", "100%", "%", "", "café", "犬", "a b")


@pytest.fixture
def cluster(elasticsearch9_url: str) -> Iterator[Cluster]:
    with Cluster(Connection(url=elasticsearch9_url)) as made:
        yield made
        for name in made.client.indices.get(index=f"{ALIAS}*"):
            made.client.indices.delete(index=name)


def drawn(count: int, seed: int) -> list[SparseVector]:
    rng = np.random.default_rng(seed)
    words = np.array([*(f"word{i}" for i in range(500)), *STRANGE])
    return [
        SparseVector.from_pairs(
            (str(word), float(np.float32(np.exp(rng.normal(-2, 1.2))))) for word in rng.choice(words, 60, replace=False)
        )
        for _ in range(count)
    ]


def put(client: OpenSearch, alias: str, vectors: Mapping[str, SparseVector]) -> None:
    lines: list[dict[str, Any]] = []
    for uri, vector in vectors.items():
        facts = ImageMetadata(
            uri=uri,
            name="a",
            source="s",
            version="v",
            bytes=1,
            sha256="00",
            width=1,
            height=1,
            format="PNG",
            taken_at=None,
            thumbnail="data:,",
        )
        at = "2026-01-01T00:00:00Z"
        body = build_document(vector, facts, fields={}, model_id="drawn@1", fingerprint="f", ingested_at=at, settings=SETTINGS)
        lines += [{"index": {"_id": make_document_id(uri)}}, body]
    answer = client.bulk(body=lines, index=alias, params={"require_alias": "true"})
    assert not answer["errors"], answer


def test_the_whole_life_of_an_index(
    cluster: Cluster,
) -> None:
    messages: list[str] = []
    body = build_index_body(get_cluster_info(cluster), SETTINGS)
    images = {f"u/{number:03}": vector for number, vector in enumerate(drawn(100, 1))}
    with forward_messages(messages.append):
        live = open_index(cluster, ALIAS, body, IDENTITY)
    with forward_messages(messages.append):
        build = open_index(cluster, ALIAS, body, replace(IDENTITY, settings={"new": True}))
    assert build.replaces == live.name
    with forward_messages(messages.append), relax_index_settings(cluster, build, replicas=True):
        put(cluster.client, make_write_alias(build.name), images)
    cluster.refresh(build.name)
    swap_alias(cluster, ALIAS, build)
    assert list(cluster.client.indices.get_alias(name=ALIAS)) == [build.name]
    assert {entry.uri for entry in scan_documents(cluster, ALIAS)} == set(images)
    assert set(get_stored_by_uri(cluster, ALIAS, list(images))) == set(images)
    assert len(get_stored_by_id(cluster, ALIAS, [make_document_id(uri) for uri in images])) == 100
    assert delete_retired_indices(cluster, ALIAS, 0) == [live.name]
    assert len(cluster.client.indices.get(index=f"{ALIAS}*")) == 1


def test_scores_and_reasons_match_the_exact_product(
    cluster: Cluster,
) -> None:
    images = {f"u/{number:03}": vector for number, vector in enumerate(drawn(150, 2))}
    opened = open_index(cluster, ALIAS, build_index_body(get_cluster_info(cluster), SETTINGS), IDENTITY)
    put(cluster.client, make_write_alias(opened.name), images)
    cluster.refresh(opened.name)
    queries = [*drawn(10, 3), *(SparseVector.from_mapping({word: 1.5}) for word in STRANGE)]
    with Searcher(cluster.connection, ALIAS, "drawn@1") as searcher:
        for query in queries:
            hits = searcher.search(query, k=1000).hits
            assert {hit.uri for hit in hits} == {uri for uri, image in images.items() if set(image.tokens) & set(query.tokens)}
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
            for hit in hits:
                exact = query.dot(images[hit.uri])
                assert exact * (1 - TRUNCATION) <= hit.score <= exact * (1 + 1e-6)
                assert sum(reason.contribution for reason in hit.contributions) == pytest.approx(exact, rel=1e-6)
                assert "thumbnail" not in hit.source


def test_pruning_is_off_a_word_in_every_image_counts(
    cluster: Cluster,
) -> None:
    """With its default, Elasticsearch drops query words that are frequent and light."""
    everywhere = {f"u/{number:03}": SparseVector.from_mapping({"all": 0.01, f"w{number}": 1.0}) for number in range(100)}
    opened = open_index(cluster, ALIAS, build_index_body(get_cluster_info(cluster), SETTINGS), IDENTITY)
    put(cluster.client, make_write_alias(opened.name), everywhere)
    cluster.refresh(opened.name)
    mapping = cluster.client.indices.get_mapping(index=opened.name)[opened.name]["mappings"]["properties"]["tokens"]
    assert mapping["index_options"]["prune"] is False
    with Searcher(cluster.connection, ALIAS, "drawn@1") as searcher:
        hits = searcher.search(SparseVector.from_mapping({"w7": 1.0, "all": 0.01}), k=1000).hits
    assert len(hits) == 100


def test_indices_of_both_field_types_can_t_be_searched_in_one(
    cluster: Cluster,
) -> None:
    meta = {"stair_es": {"format_version": INDEX_FORMAT, "model": "drawn@1", "model_name": "drawn"}}
    for name, type_ in ((f"{ALIAS}-1", "sparse_vector"), (f"{ALIAS}-2", "keyword")):
        cluster.client.indices.create(index=name, body={"mappings": {"_meta": meta, "properties": {"tokens": {"type": type_}}}})
    with Searcher(cluster.connection, f"{ALIAS}-*", "drawn@1") as searcher, pytest.raises(IndexMismatch, match=f"{ALIAS}-2"):
        searcher.search(SparseVector.from_mapping({"a": 1.0}))


def test_impacts_are_rejected(
    cluster: Cluster,
) -> None:
    with pytest.raises(UnsupportedTarget, match="impacts"):
        build_index_body(get_cluster_info(cluster), DocumentSettings(impacts=True))
