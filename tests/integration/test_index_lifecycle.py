"""The life cycle of an index on each engine: opening, building, swapping, deletion; and parallel runs."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.bulk_faults import build_gateway_error
from support.errors import expect_error
from support.messages import forward_messages
from support.servers.fault_proxy import FaultProxy

from stair_es import SparseVector, resources
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.index.aliases import delete_retired_indices, swap_alias
from stair_es.cluster.index.lifecycle import find_index, open_index
from stair_es.cluster.metadata.index_metadata import INDEX_FORMAT, IndexSpec, WriteTarget
from stair_es.cluster.metadata.names import make_write_alias
from stair_es.errors import IndexMismatch, QueryError, UsageError
from stair_es.search.searcher import Searcher

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

OLD = IndexSpec(model_name="model", model_id="model-1", settings={"top_token_count": 16})
NEW = IndexSpec(model_name="model", model_id="model-2", settings={"top_token_count": 16})


def load_body() -> dict[str, Any]:
    return resources.load_json_resource("mappings", "image")


class AliasCluster(Cluster):
    """What the functions under test take, in one place."""

    def __init__(self, url: str, alias: str, client: OpenSearch | None = None) -> None:
        super().__init__(Connection(url=url), client)
        self.alias = alias
        self.messages: list[str] = []

    def open_index(self, index_spec: IndexSpec, body: dict[str, Any] | None = None) -> WriteTarget:
        with forward_messages(self.messages.append):
            return open_index(self, self.alias, body or load_body(), index_spec)

    def find_index(self, index_spec: IndexSpec) -> WriteTarget | None:
        return find_index(self, self.alias, load_body(), index_spec)

    def read_meta(self, opened: WriteTarget) -> dict[str, Any]:
        meta: dict[str, Any] = self.client.indices.get_mapping(index=opened.name)[opened.name]["mappings"]["_meta"]
        return meta

    def write_document(self, opened: WriteTarget, id_: str, **fields: object) -> None:
        params = {"require_alias": "true", "refresh": "true"}
        self.client.index(index=make_write_alias(opened.name), id=id_, body={"uri": id_, **fields}, params=params)

    def swap_index(self, opened: WriteTarget) -> None:
        swap_alias(self, self.alias, opened)

    def delete_retired(self, keep: int) -> list[str]:
        return delete_retired_indices(self, self.alias, keep)

    def list_indices(self) -> set[str]:
        return set(self.client.indices.get(index=f"{self.alias}*"))

    def get_targets(self, alias: str) -> list[str]:
        return list(self.client.indices.get_alias(name=alias)) if self.client.indices.exists_alias(name=alias) else []


@pytest.fixture
def cluster(client: OpenSearch, node_url: str, index_name: str) -> AliasCluster:
    return AliasCluster(node_url, index_name, client)


@pytest.fixture
def engine_cluster(engine: OpenSearch, rank_features_url: str, engine_index: str) -> AliasCluster:
    """On each engine: what depends on how it returns mappings, or rejects names."""
    return AliasCluster(rank_features_url, engine_index, engine)


def test_new_index_has_its_alias_and_metadata(engine_cluster: AliasCluster) -> None:
    assert engine_cluster.find_index(OLD) is None
    opened = engine_cluster.open_index(OLD)
    assert (opened.created, opened.replaces, opened.policy) == (True, None, None)
    for alias in (engine_cluster.alias, make_write_alias(opened.name)):
        assert engine_cluster.get_targets(alias) == [opened.name]
    assert engine_cluster.read_meta(opened)["stair_es"] == {
        "model_name": "model",
        "model": "model-1",
        "settings": {"top_token_count": 16},
        "format_version": INDEX_FORMAT,
        "digest": OLD.digest,
        "alias": engine_cluster.alias,
    }
    assert engine_cluster.open_index(OLD) == engine_cluster.find_index(OLD) == replace(opened, created=False)
    assert engine_cluster.messages == []


def test_other_parts_of_the_body_are_kept(cluster: AliasCluster) -> None:
    body = load_body()
    body["mappings"]["_meta"] = {"mine": 1}
    meta = cluster.read_meta(cluster.open_index(OLD, body))
    assert set(meta) == {"mine", "stair_es"}
    assert meta["mine"] == 1


def test_new_index_is_used_even_if_its_mapping_reads_differently(engine_cluster: AliasCluster) -> None:
    body = load_body()
    body["mappings"]["properties"]["shop.price"] = {"type": "float"}  # the cluster returns an object `shop`
    opened = engine_cluster.open_index(OLD, body)
    assert (opened.created, opened.replaces) == (True, None)
    assert engine_cluster.list_indices() == {opened.name}


@pytest.mark.parametrize(
    "other",
    [NEW, replace(OLD, settings={"top_token_count": 8})],
    ids=["model", "settings"],
)
def test_another_spec_is_built_beside_the_live_index_and_swapped(engine_cluster: AliasCluster, other: IndexSpec) -> None:
    live = engine_cluster.open_index(OLD)
    engine_cluster.write_document(live, "old")
    assert engine_cluster.find_index(other) is None
    build = engine_cluster.open_index(other)
    assert build.created
    assert build.replaces == live.name
    assert engine_cluster.get_targets(f"{engine_cluster.alias}.building-{other.digest}") == [build.name]
    assert engine_cluster.get_targets(engine_cluster.alias) == [live.name]
    engine_cluster.write_document(build, "new")
    resumed = engine_cluster.open_index(other)  # as after an interruption
    assert resumed == engine_cluster.find_index(other) == replace(build, created=False)
    assert len(engine_cluster.list_indices()) == 2
    engine_cluster.swap_index(build)
    assert engine_cluster.get_targets(engine_cluster.alias) == [build.name]
    assert engine_cluster.get_targets(f"{engine_cluster.alias}.building-*") == []
    assert [engine_cluster.get_targets(make_write_alias(index.name)) for index in (live, build)] == [[live.name], [build.name]]
    alias = engine_cluster.client.indices.get_alias(name=engine_cluster.alias)[build.name]["aliases"][engine_cluster.alias]
    assert alias["is_write_index"] is True
    assert engine_cluster.open_index(other) == replace(build, created=False, replaces=None)
    assert len(engine_cluster.messages) == 2
    assert build.name in engine_cluster.messages[0]


def test_another_mapping_of_the_same_identity_is_built_too(engine_cluster: AliasCluster) -> None:
    live = engine_cluster.open_index(OLD)
    body = load_body()
    body["mappings"]["properties"]["caption"] = {"type": "keyword"}
    build = engine_cluster.open_index(OLD, body)
    assert build.replaces == live.name
    assert all(fact in engine_cluster.messages[0] for fact in ("caption", "text", "keyword"))
    body["mappings"]["properties"]["caption"] = {"type": "date"}
    with expect_error("build-with-other-mapping", IndexMismatch) as caught:
        engine_cluster.open_index(OLD, body)
    assert all(fact in caught.value.message for fact in (build.name, "caption", "keyword", "date"))


def test_a_swap_done_twice_or_by_another_run_is_done(cluster: AliasCluster) -> None:
    cluster.open_index(OLD)
    build = cluster.open_index(NEW)
    cluster.swap_index(build)
    cluster.swap_index(build)
    assert cluster.get_targets(cluster.alias) == [build.name]
    cluster.swap_index(cluster.open_index(NEW))
    assert cluster.get_targets(cluster.alias) == [build.name]


def test_moved_alias_is_unchanged(cluster: AliasCluster) -> None:
    cluster.open_index(OLD)
    first, second = cluster.open_index(NEW), cluster.open_index(replace(NEW, model_id="model-3"))
    cluster.swap_index(second)
    with expect_error("alias-moved", IndexMismatch):
        cluster.swap_index(first)
    assert cluster.get_targets(cluster.alias) == [second.name]
    assert cluster.get_targets(f"{cluster.alias}.building-{NEW.digest}") == [first.name]


def test_a_deleted_live_index_does_not_prevent_the_swap(cluster: AliasCluster) -> None:
    live = cluster.open_index(OLD)
    build = cluster.open_index(NEW)
    cluster.client.indices.delete(index=live.name)
    cluster.swap_index(build)
    assert cluster.get_targets(cluster.alias) == [build.name]


def test_searchers_always_see_one_index(cluster: AliasCluster) -> None:
    live = cluster.open_index(OLD)
    cluster.write_document(live, "old")
    seen: set[tuple[str, ...]] = set()
    done = threading.Event()

    def search_repeatedly() -> int:
        searches = 0
        with Cluster(cluster.connection) as own:
            while not done.is_set() or searches < 5:
                hits = own.client.search(index=cluster.alias, body={"size": 10})["hits"]["hits"]
                seen.add(tuple(hit["_id"] for hit in hits))
                searches += 1
        return searches

    with ThreadPoolExecutor(2) as pool:
        counts = [pool.submit(search_repeatedly) for _ in range(2)]
        try:
            for number in range(6):
                build = cluster.open_index(replace(NEW, model_id=f"m-{number}"))
                cluster.write_document(build, f"new-{number}")
                cluster.swap_index(build)
        finally:
            done.set()
        assert all(count.result() > 0 for count in counts)
    assert seen <= {("old",), *((f"new-{number}",) for number in range(6))}
    assert len(seen) > 1


def test_open_searchers_follow_the_alias_and_reject_other_models(cluster: AliasCluster) -> None:
    def build_index(index_spec: IndexSpec, uri: str) -> WriteTarget:
        opened = cluster.open_index(index_spec)
        cluster.write_document(opened, uri, tokens={"car": 2.0})
        cluster.swap_index(opened)
        return opened

    query = SparseVector.from_mapping({"car": 1.0})
    first = build_index(OLD, "old")
    with Searcher(cluster.connection, cluster.alias, OLD.model_id) as searcher:
        assert [hit.uri for hit in searcher.search(query).hits] == ["old"]
        build_index(replace(OLD, settings={"top_token_count": 3}), "new")
        cluster.client.indices.delete(index=first.name)
        assert [hit.uri for hit in searcher.search(query).hits] == ["new"]
        build_index(NEW, "other")
        with expect_error("other-model", QueryError) as caught:
            searcher.search(query)
    assert NEW.model_id in caught.value.message


def test_a_reindexed_copy_takes_the_place_of_its_index(engine_cluster: AliasCluster) -> None:
    source = engine_cluster.open_index(OLD)
    engine_cluster.write_document(source, "old", tokens={"car": 2.0})
    indices, copy = engine_cluster.client.indices, f"{engine_cluster.alias}-copy"
    mappings = indices.get_mapping(index=source.name)[source.name]["mappings"]
    indices.create(index=copy, body={"settings": {"number_of_shards": 3}, "mappings": mappings})
    both = {"source": {"index": source.name}, "dest": {"index": copy}}
    engine_cluster.client.reindex(body=both, params={"refresh": "true"})
    indices.update_aliases(
        body={"actions": [{"remove_index": {"index": source.name}}, {"add": {"index": copy, "alias": engine_cluster.alias}}]}
    )
    with Searcher(engine_cluster.connection, engine_cluster.alias, OLD.model_id) as searcher:
        [hit] = searcher.search(SparseVector.from_mapping({"car": 1.0})).hits
    assert (hit.uri, hit.index, hit.score) == ("old", copy, 2.0)
    opened = engine_cluster.open_index(OLD)
    assert (opened.name, opened.created) == (copy, False)
    engine_cluster.write_document(opened, "new")


@pytest.mark.parametrize("live", [False, True], ids=["new", "build"])
def test_runs_that_open_at_once_share_one_index(engine_cluster: AliasCluster, live: bool) -> None:
    if live:
        engine_cluster.open_index(OLD)
    barrier = threading.Barrier(6)

    def open_together(_: int) -> WriteTarget:
        with closing(AliasCluster(engine_cluster.connection.url, engine_cluster.alias)) as own:
            barrier.wait()
            return own.open_index(NEW)

    with ThreadPoolExecutor(6) as pool:
        opened = list(pool.map(open_together, range(6)))
    assert len({index.name for index in opened}) == 1
    assert sum(index.created for index in opened) == 1
    assert len(engine_cluster.list_indices()) == 1 + live


@pytest.mark.parametrize(
    ("kind", "code"),
    [("index", "index-not-an-alias"), ("foreign", "foreign-index"), ("several", "alias-of-several-indices")],
)
def test_foreign_indices_are_never_written(engine_cluster: AliasCluster, kind: str, code: str) -> None:
    client, alias = engine_cluster.client, engine_cluster.alias
    if kind == "index":
        client.indices.create(index=alias)
    elif kind == "foreign":
        client.indices.create(index=f"{alias}-x", body={"aliases": {alias: {}}})
    else:
        engine_cluster.open_index(OLD)
        client.indices.create(index=f"{alias}-x", body={"aliases": {alias: {"is_write_index": False}}})
    before = engine_cluster.list_indices()
    for call in (engine_cluster.open_index, engine_cluster.find_index):
        with expect_error(code, IndexMismatch) as caught:
            call(OLD)
        assert alias in caught.value.message
    assert engine_cluster.list_indices() == before


def test_prune_removes_only_old_retired_indices_of_the_alias(engine_cluster: AliasCluster) -> None:
    client, alias = engine_cluster.client, engine_cluster.alias
    built = [engine_cluster.open_index(OLD)]
    for number in range(4):
        built.append(engine_cluster.open_index(replace(OLD, model_id=f"m-{number}")))
        engine_cluster.swap_index(built[-1])
    unfinished = engine_cluster.open_index(NEW)
    foreign = f"{alias}-m-0-20200101-000000-000000"  # looks alike, by its name alone
    client.indices.create(index=foreign)
    other = AliasCluster(engine_cluster.connection.url, f"{alias}-other", client)
    neighbors = [other.open_index(OLD), other.open_index(NEW)]
    other.swap_index(neighbors[1])
    client.indices.put_alias(index=built[0].name, name=f"{alias}-pinned")  # somebody still uses it
    everything = engine_cluster.list_indices()
    assert engine_cluster.delete_retired(keep=3) == []
    assert engine_cluster.delete_retired(keep=1) == [built[2].name, built[1].name]
    assert engine_cluster.delete_retired(keep=1) == []
    assert engine_cluster.list_indices() == everything - {built[2].name, built[1].name}
    assert engine_cluster.delete_retired(keep=0) == [built[3].name]
    assert engine_cluster.list_indices() == {
        built[0].name,
        built[4].name,
        unfinished.name,
        foreign,
        *(index.name for index in neighbors),
    }
    with expect_error("invalid-retention", UsageError):
        engine_cluster.delete_retired(keep=-1)


def test_index_requests_are_retried(cluster: AliasCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("stair_es.retry.time.sleep", waits.append)
    numbers = itertools.count()
    with FaultProxy(cluster.connection.url, lambda _: build_gateway_error() if next(numbers) in (0, 2) else None) as proxy:
        busy = AliasCluster(proxy.url, cluster.alias)
        with busy:
            opened = busy.open_index(OLD)
            assert busy.find_index(OLD) == replace(opened, created=False)
    assert cluster.get_targets(cluster.alias) == [opened.name]
    assert waits


@pytest.mark.parametrize(
    ("changed", "code"),
    [({"impacts": {"type": "text"}}, "different-field-types"), ({"tokens": {"type": "keyword"}}, "foreign-index")],
    ids=["impacts", "keyword"],
)
def test_indices_of_different_field_types_are_not_searched(cluster: AliasCluster, changed: dict[str, Any], code: str) -> None:
    meta = {"stair_es": {"format_version": INDEX_FORMAT, "model": "model-1", "model_name": "model"}}
    tokens = {"tokens": {"type": "rank_features"}}
    for name, properties in (("a", tokens), ("b", {**tokens, **changed})):
        body = {"mappings": {"_meta": meta, "properties": properties}}
        cluster.client.indices.create(index=f"{cluster.alias}-{name}", body=body)
    with (
        Searcher(cluster.connection, f"{cluster.alias}-*", "model-1") as searcher,
        expect_error(code, IndexMismatch) as caught,
    ):
        searcher.search(SparseVector.from_mapping({"a": 1.0}))
    assert f"{cluster.alias}-b" in caught.value.message
