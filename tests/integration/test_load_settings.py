"""Settings relaxed during a load and restored in any case."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.messages import forward_messages

from stair_es import resources
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.index.lifecycle import open_index
from stair_es.cluster.index.load_settings import relax_index_settings
from stair_es.cluster.metadata.index_metadata import IndexSpec, WriteTarget
from stair_es.errors import ClusterError

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

IDENTITY = IndexSpec(model_name="m", model_id="m-1", settings={})
NAMES = ("refresh_interval", "number_of_replicas", "auto_expand_replicas")


class IndexLoads:
    """Loads of one index, and what its settings are."""

    def __init__(self, client: OpenSearch, url: str, alias: str, settings: dict[str, Any]) -> None:
        self.cluster, self.messages = Cluster(Connection(url=url), client), list[str]()
        body = resources.load_json_resource("mappings", "image")
        body["settings"]["index"] = {"number_of_shards": 1, **settings}
        body["mappings"]["_meta"] = {"mine": 1}
        self.target = open_index(self.cluster, alias, body, IDENTITY)
        self.original = self.read_settings()

    def start_load(self, *, live: bool = False, replicas: bool = False) -> AbstractContextManager[None]:
        target: WriteTarget = replace(self.target, created=not live)
        return relax_index_settings(self.cluster, target, replicas=replicas)

    def read_settings(self) -> dict[str, Any]:
        name = self.target.name
        settings = self.cluster.client.indices.get_settings(index=name, params={"flat_settings": "true"})[name]["settings"]
        return {key: settings.get(f"index.{key}") for key in NAMES}

    def read_saved(self) -> dict[str, Any] | None:
        """Return the original settings that the metadata of the index keeps."""
        meta = self.read_meta()
        assert (meta["mine"], meta["stair_es"]["digest"]) == (1, IDENTITY.digest)
        saved: dict[str, Any] | None = meta["stair_es"].get("original_settings")
        return saved

    def read_meta(self) -> dict[str, Any]:
        name = self.target.name
        meta: dict[str, Any] = self.cluster.client.indices.get_mapping(index=name)[name]["mappings"]["_meta"]
        return meta

    def is_restored(self) -> bool:
        return self.read_settings() == self.original and self.read_saved() is None


@pytest.fixture(
    params=[{"auto_expand_replicas": "0-1"}, {"number_of_replicas": 2, "refresh_interval": "1m"}],
    ids=["auto", "set"],
)
def initial_settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    settings: dict[str, Any] = request.param
    return settings


@pytest.fixture
def loads(client: OpenSearch, node_url: str, index_name: str, initial_settings: dict[str, Any]) -> Iterator[IndexLoads]:
    index_loads = IndexLoads(client, node_url, index_name, initial_settings)
    with forward_messages(index_loads.messages.append):
        yield index_loads


def test_new_index_restores_refresh_settings(loads: IndexLoads) -> None:
    with loads.start_load():
        assert loads.read_settings() == {**loads.original, "refresh_interval": "-1"}
        assert loads.read_saved() == loads.original
    assert loads.is_restored()
    assert "refresh_interval -1" in loads.messages[0]


def test_replicas_are_relaxed_in_new_indices_only(
    engine: OpenSearch, rank_features_url: str, engine_index: str, initial_settings: dict[str, Any]
) -> None:
    loads = IndexLoads(engine, rank_features_url, engine_index, initial_settings)
    with loads.start_load(replicas=True):
        assert loads.read_settings() == {"refresh_interval": "-1", "number_of_replicas": "0", "auto_expand_replicas": "false"}
    assert loads.is_restored()
    with loads.start_load(live=True, replicas=True):
        settings = loads.read_settings()
        assert {**settings, "refresh_interval": None} == {**loads.original, "refresh_interval": None}
    assert loads.is_restored()


def test_live_index_refreshes_at_most_every_30_seconds(loads: IndexLoads) -> None:
    with loads.start_load(live=True):
        own = loads.original["refresh_interval"]
        assert loads.read_settings() == {**loads.original, "refresh_interval": own if own == "1m" else "30s"}
    assert loads.is_restored()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_any_exit_restores(loads: IndexLoads, error: type[BaseException]) -> None:
    with pytest.raises(error, match="mine"), loads.start_load(replicas=True):
        raise error("mine")
    assert loads.is_restored()


@pytest.mark.parametrize("live", [False, True], ids=["not live", "live"])
def test_next_run_restores_settings_of_a_killed_run(loads: IndexLoads, live: bool) -> None:
    first = loads.start_load(replicas=True)  # entered and never left, as a killed run leaves it
    first.__enter__()
    with loads.start_load(live=live):
        assert loads.read_settings()["number_of_replicas"] == loads.original["number_of_replicas"]
        assert loads.read_saved() == loads.original
    assert loads.is_restored()
    assert any("was killed" in message for message in loads.messages)


def test_early_kill_does_no_harm(loads: IndexLoads) -> None:
    meta = loads.read_meta()
    meta["stair_es"]["original_settings"] = loads.original
    loads.cluster.client.indices.put_mapping(index=loads.target.name, body={"_meta": meta})
    with loads.start_load():
        pass
    assert loads.is_restored()


@pytest.mark.parametrize("first_out", [0, 1])
def test_parallel_runs_never_save_relaxed_settings_as_originals(loads: IndexLoads, first_out: int) -> None:
    runs = [loads.start_load(replicas=True), loads.start_load(replicas=True)]
    for run in runs:
        run.__enter__()
        assert loads.read_saved() == loads.original
    runs[first_out].__exit__(None, None, None)
    assert loads.is_restored()
    runs[1 - first_out].__exit__(None, None, None)
    assert loads.is_restored()
    with loads.start_load():
        pass
    assert loads.is_restored()


def test_a_failing_restore_doesn_t_hide_the_failure_of_the_run(loads: IndexLoads) -> None:
    def fail_load() -> None:
        with loads.start_load():
            loads.cluster.client.indices.delete(index=loads.target.name)
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fail_load()
    assert all(fact in loads.messages[-1] for fact in (loads.target.name, "restored"))


def test_a_failed_restore_after_a_successful_run_is_reported(loads: IndexLoads) -> None:
    with pytest.raises(ClusterError, match=loads.target.name), loads.start_load():
        loads.cluster.client.indices.delete(index=loads.target.name)
