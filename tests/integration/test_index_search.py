"""A searcher that stays open while the alias moves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from stair_es import SparseVector, resources
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.index.aliases import swap_alias
from stair_es.cluster.index.lifecycle import open_index
from stair_es.cluster.metadata.index_metadata import IndexSpec, WriteTarget
from stair_es.cluster.metadata.names import make_write_alias
from stair_es.errors import QueryError
from stair_es.search.searcher import Searcher

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

FIRST = IndexSpec(model_name="m", model_id="m@1", settings={})
CAR = SparseVector.from_mapping({"car": 1.0})


def built(cluster: Cluster, alias: str, index_spec: IndexSpec, uri: str) -> WriteTarget:
    opened = open_index(cluster, alias, resources.load_json_resource("mappings", "image"), index_spec)
    body = {"uri": uri, "tokens": {"car": 2.0}}
    cluster.client.index(
        index=make_write_alias(opened.name), id="1", body=body, params={"refresh": "true", "require_alias": "true"}
    )
    swap_alias(cluster, alias, opened)
    return opened


def test_a_search_finds_the_documents_of_the_new_index(engine: OpenSearch, rank_features_url: str, engine_index: str) -> None:
    connection = Connection(url=rank_features_url)
    cluster = Cluster(connection, engine)
    first = built(cluster, engine_index, FIRST, "old")
    with Searcher(connection, engine_index, "m@1") as searcher:
        assert [hit.uri for hit in searcher.search(CAR).hits] == ["old"]
        built(cluster, engine_index, replace(FIRST, settings={"top_token_count": 3}), "new")
        engine.indices.delete(index=first.name)
        assert [hit.uri for hit in searcher.search(CAR).hits] == ["new"]


def test_vectors_of_other_models_are_rejected(engine: OpenSearch, rank_features_url: str, engine_index: str) -> None:
    connection = Connection(url=rank_features_url)
    cluster = Cluster(connection, engine)
    built(cluster, engine_index, FIRST, "old")
    with Searcher(connection, engine_index, "m@1") as searcher:
        searcher.search(CAR)
        built(cluster, engine_index, replace(FIRST, model_id="m@2"), "new")
        with pytest.raises(QueryError, match="m@2"):
            searcher.search(CAR)
