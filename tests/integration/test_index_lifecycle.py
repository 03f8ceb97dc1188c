"""The life cycle of an index on each engine: opening, building, swapping, deletion; and parallel runs."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from support.bulk_faults import build_gateway_error
from support.messages import forward_messages
from support.servers.fault_proxy import FaultProxy

from stair_es import resources
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.index.aliases import delete_retired_indices, swap_alias
from stair_es.cluster.index.lifecycle import find_index, open_index
from stair_es.cluster.metadata.index_metadata import INDEX_FORMAT, IndexSpec, WriteTarget
from stair_es.cluster.metadata.names import make_write_alias
from stair_es.errors import IndexMismatch, UsageError

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

OLD = IndexSpec(model_name="model", model_id="model-1", settings={"top_token_count": 16})
NEW = IndexSpec(model_name="model", model_id="model-2", settings={"top_token_count": 16})


class AliasCluster(Cluster):
    """What the functions under test take, in one place."""

    def __init__(self, url: str, alias: str, client: OpenSearch | None = None) -> None:
        super().__init__(Connection(url=url), client)
        self.alias = alias
        self.messages: list[str] = []

    def open(self, index_spec: IndexSpec, body: dict[str, Any] | None = None) -> WriteTarget:
        body = body or resources.load_json_resource("mappings", "image")
        with forward_messages(self.messages.append):
            return open_index(self, self.alias, body, index_spec)

    def find(self, index_spec: IndexSpec) -> WriteTarget | None:
        return find_index(self, self.alias, resources.load_json_resource("mappings", "image"), index_spec)

    def write(self, opened: WriteTarget, id_: str) -> None:
        params = {"require_alias": "true", "refresh": "true"}
        self.client.index(index=make_write_alias(opened.name), id=id_, body={"uri": id_}, params=params)

    def swap(self, opened: WriteTarget) -> None:
        swap_alias(self, self.alias, opened)

    def prune(self, keep: int) -> list[str]:
        return delete_retired_indices(self, self.alias, keep)

    def indices(self) -> set[str]:
        return set(self.client.indices.get(index=f"{self.alias}*"))

    def behind(self, alias: str) -> list[str]:
        return list(self.client.indices.get_alias(name=alias)) if self.client.indices.exists_alias(name=alias) else []


@pytest.fixture
def cluster(engine: OpenSearch, rank_features_url: str, engine_index: str) -> AliasCluster:
    return AliasCluster(rank_features_url, engine_index, engine)


def test_new_index_has_its_alias_and_metadata(cluster: AliasCluster) -> None:
    assert cluster.find(OLD) is None
    opened = cluster.open(OLD)
    assert (opened.created, opened.replaces, opened.policy) == (True, None, None)
    assert cluster.behind(cluster.alias) == cluster.behind(make_write_alias(opened.name)) == [opened.name]
    about = cluster.client.indices.get_mapping(index=opened.name)[opened.name]["mappings"]["_meta"]["stair_es"]
    assert about == {
        "model_name": "model",
        "model": "model-1",
        "settings": {"top_token_count": 16},
        "format_version": INDEX_FORMAT,
        "digest": OLD.digest,
        "alias": cluster.alias,
    }
    assert cluster.open(OLD) == cluster.find(OLD) == replace(opened, created=False)
    assert cluster.messages == []


def test_other_parts_of_the_body_are_kept(cluster: AliasCluster) -> None:
    body = resources.load_json_resource("mappings", "image")
    body["mappings"]["_meta"] = {"mine": 1}
    opened = cluster.open(OLD, body)
    meta = cluster.client.indices.get_mapping(index=opened.name)[opened.name]["mappings"]["_meta"]
    assert set(meta) == {"mine", "stair_es"}
    assert meta["mine"] == 1


def test_new_index_is_used_even_if_its_mapping_reads_differently(cluster: AliasCluster) -> None:
    body = resources.load_json_resource("mappings", "image")
    body["mappings"]["properties"]["shop.price"] = {"type": "float"}  # the cluster returns an object `shop`
    opened = cluster.open(OLD, body)
    assert (opened.created, opened.replaces) == (True, None)
    assert cluster.indices() == {opened.name}


@pytest.mark.parametrize(
    "other",
    [NEW, replace(OLD, settings={"top_token_count": 8})],
    ids=["model", "settings"],
)
def test_another_spec_is_built_next_to_the_live_index_and_swapped_in_one_step(cluster: AliasCluster, other: IndexSpec) -> None:
    live = cluster.open(OLD)
    cluster.write(live, "old")
    assert cluster.find(other) is None
    build = cluster.open(other)
    assert build.created
    assert build.replaces == live.name
    assert cluster.behind(f"{cluster.alias}.building-{other.digest}") == [build.name]
    assert cluster.behind(cluster.alias) == [live.name]
    cluster.write(build, "new")
    assert cluster.open(other) == cluster.find(other) == replace(build, created=False)  # as after an interruption
    assert len(cluster.indices()) == 2
    cluster.swap(build)
    assert cluster.behind(cluster.alias) == [build.name]
    assert cluster.behind(f"{cluster.alias}.building-*") == []
    assert [cluster.behind(make_write_alias(index.name)) for index in (live, build)] == [[live.name], [build.name]]
    alias = cluster.client.indices.get_alias(name=cluster.alias)[build.name]["aliases"][cluster.alias]
    assert alias["is_write_index"] is True
    assert cluster.open(other) == replace(build, created=False, replaces=None)
    assert len(cluster.messages) == 2
    assert build.name in cluster.messages[0]


def test_another_mapping_of_the_same_identity_is_built_too(cluster: AliasCluster) -> None:
    live = cluster.open(OLD)
    body = resources.load_json_resource("mappings", "image")
    body["mappings"]["properties"]["caption"] = {"type": "keyword"}
    build = cluster.open(OLD, body)
    assert build.replaces == live.name
    assert "caption is text instead of keyword" in cluster.messages[0]
    body["mappings"]["properties"]["caption"] = {"type": "date"}
    with pytest.raises(IndexMismatch, match=f"{build.name}.*caption is keyword instead of date"):
        cluster.open(OLD, body)


def test_a_swap_done_twice_or_by_another_run_is_done(cluster: AliasCluster) -> None:
    cluster.open(OLD)
    build = cluster.open(NEW)
    cluster.swap(build)
    cluster.swap(build)
    assert cluster.behind(cluster.alias) == [build.name]
    cluster.swap(cluster.open(NEW))
    assert cluster.behind(cluster.alias) == [build.name]


def test_moved_alias_is_unchanged(cluster: AliasCluster) -> None:
    cluster.open(OLD)
    first, second = cluster.open(NEW), cluster.open(replace(NEW, model_id="model-3"))
    cluster.swap(second)
    with pytest.raises(IndexMismatch, match="was not swapped in"):
        cluster.swap(first)
    assert cluster.behind(cluster.alias) == [second.name]
    assert cluster.behind(f"{cluster.alias}.building-{NEW.digest}") == [first.name]


def test_a_deleted_live_index_does_not_prevent_the_swap(cluster: AliasCluster) -> None:
    live = cluster.open(OLD)
    build = cluster.open(NEW)
    cluster.client.indices.delete(index=live.name)
    cluster.swap(build)
    assert cluster.behind(cluster.alias) == [build.name]


def test_searchers_always_see_one_index(cluster: AliasCluster) -> None:
    live = cluster.open(OLD)
    cluster.write(live, "old")
    seen: set[tuple[str, ...]] = set()
    done = threading.Event()

    def poll() -> int:
        asked = 0
        with Cluster(cluster.connection) as own:
            while not done.is_set() or asked < 5:
                hits = own.client.search(index=cluster.alias, body={"size": 10})["hits"]["hits"]
                seen.add(tuple(hit["_id"] for hit in hits))
                asked += 1
        return asked

    with ThreadPoolExecutor(2) as pool:
        polls = [pool.submit(poll) for _ in range(2)]
        try:
            for number in range(6):
                build = cluster.open(replace(NEW, model_id=f"m-{number}"))
                cluster.write(build, f"new-{number}")
                cluster.swap(build)
        finally:
            done.set()
        assert all(future.result() > 0 for future in polls)
    assert seen <= {("old",), *((f"new-{number}",) for number in range(6))}
    assert len(seen) > 1


@pytest.mark.parametrize("live", [False, True], ids=["new", "build"])
def test_runs_that_open_at_once_share_one_index(cluster: AliasCluster, live: bool) -> None:
    if live:
        cluster.open(OLD)
    gate = threading.Barrier(6)

    def run() -> WriteTarget:
        own = AliasCluster(cluster.connection.url, cluster.alias)
        gate.wait()
        with own:
            return own.open(NEW)

    with ThreadPoolExecutor(6) as pool:
        opened = [future.result() for future in [pool.submit(run) for _ in range(6)]]
    assert len({index.name for index in opened}) == 1
    assert sum(index.created for index in opened) == 1
    assert len(cluster.indices()) == 1 + live


@pytest.mark.parametrize("kind", ["index", "foreign", "several"])
def test_foreign_indices_are_never_written(cluster: AliasCluster, kind: str) -> None:
    client, alias = cluster.client, cluster.alias
    if kind == "index":
        client.indices.create(index=alias)
    elif kind == "foreign":
        client.indices.create(index=f"{alias}-x", body={"aliases": {alias: {}}})
    else:
        cluster.open(OLD)
        client.indices.create(index=f"{alias}-x", body={"aliases": {alias: {"is_write_index": False}}})
    before = cluster.indices()
    for call in (cluster.open, cluster.find):
        with pytest.raises(IndexMismatch, match=alias):
            call(OLD)
    assert cluster.indices() == before


def test_prune_removes_only_old_retired_indices_of_the_alias(cluster: AliasCluster) -> None:
    client, alias = cluster.client, cluster.alias
    built = [cluster.open(OLD)]
    for number in range(4):
        built.append(cluster.open(replace(OLD, model_id=f"m-{number}")))
        cluster.swap(built[-1])
    unfinished = cluster.open(NEW)
    foreign = f"{alias}-m-0-20200101-000000-000000"  # looks alike, by its name alone
    client.indices.create(index=foreign)
    other = AliasCluster(cluster.connection.url, f"{alias}-other", client)
    neighbors = [other.open(OLD), other.open(NEW)]
    other.swap(neighbors[1])
    client.indices.put_alias(index=built[0].name, name=f"{alias}-pinned")  # somebody still uses it
    everything = cluster.indices()
    assert cluster.prune(keep=3) == []
    assert cluster.prune(keep=1) == [built[2].name, built[1].name]
    assert cluster.prune(keep=1) == []
    assert cluster.indices() == everything - {built[2].name, built[1].name}
    assert cluster.prune(keep=0) == [built[3].name]
    assert cluster.indices() == {
        built[0].name,
        built[4].name,
        unfinished.name,
        foreign,
        *(index.name for index in neighbors),
    }
    with pytest.raises(UsageError, match="-1"):
        cluster.prune(keep=-1)


def test_refresh_makes_documents_searchable(cluster: AliasCluster) -> None:
    body = resources.load_json_resource("mappings", "image")
    body["settings"]["index"]["refresh_interval"] = "-1"  # from the start: a refresh could be under way while it is changed
    opened = cluster.open(OLD, body)
    cluster.client.index(index=make_write_alias(opened.name), id="1", body={"uri": "u"})
    assert cluster.client.count(index=cluster.alias)["count"] == 0
    cluster.refresh(opened.name)
    assert cluster.client.count(index=cluster.alias)["count"] == 1


def test_index_requests_are_retried(cluster: AliasCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("stair_es.retry.time.sleep", waits.append)
    numbers = count()
    with FaultProxy(cluster.connection.url, lambda _: build_gateway_error() if next(numbers) in (0, 2) else None) as proxy:
        busy = AliasCluster(proxy.url, cluster.alias)
        with busy:
            opened = busy.open(OLD)
            assert busy.find(OLD) == replace(opened, created=False)
    assert cluster.behind(cluster.alias) == [opened.name]
    assert waits
