"""Settings relaxed during a load and restored in any case, on each engine."""

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
        self.original = self.settings()

    def start(self, *, live: bool = False, replicas: bool = False) -> AbstractContextManager[None]:
        target: WriteTarget = replace(self.target, created=not live)
        return relax_index_settings(self.cluster, target, replicas=replicas)

    def settings(self) -> dict[str, Any]:
        name = self.target.name
        found = self.cluster.client.indices.get_settings(index=name, params={"flat_settings": "true"})[name]["settings"]
        return {key: found.get(f"index.{key}") for key in NAMES}

    def remembered(self) -> dict[str, Any] | None:
        meta = self.cluster.client.indices.get_mapping(index=self.target.name)[self.target.name]["mappings"]["_meta"]
        assert meta["mine"] == 1
        assert meta["stair_es"]["digest"] == IDENTITY.digest
        found: dict[str, Any] | None = meta["stair_es"].get("original_settings")
        return found

    def restored(self) -> bool:
        return self.settings() == self.original and self.remembered() is None


@pytest.fixture(
    params=[{"auto_expand_replicas": "0-1"}, {"number_of_replicas": 2, "refresh_interval": "1m"}],
    ids=["auto", "set"],
)
def loads(engine: OpenSearch, rank_features_url: str, engine_index: str, request: pytest.FixtureRequest) -> Iterator[IndexLoads]:
    created = IndexLoads(engine, rank_features_url, engine_index, request.param)
    with forward_messages(created.messages.append):
        yield created


def test_new_index_restores_refresh_settings(loads: IndexLoads) -> None:
    with loads.start():
        assert loads.settings() == {**loads.original, "refresh_interval": "-1"}
        assert loads.remembered() == loads.original
    assert loads.restored()
    assert "refresh_interval -1" in loads.messages[0]


def test_replicas_continuely_where_they_may(loads: IndexLoads) -> None:
    with loads.start(replicas=True):
        assert loads.settings() == {"refresh_interval": "-1", "number_of_replicas": "0", "auto_expand_replicas": "false"}
    assert loads.restored()
    with loads.start(live=True, replicas=True):
        found = loads.settings()
        assert {**found, "refresh_interval": None} == {**loads.original, "refresh_interval": None}
    assert loads.restored()


def test_live_index_refreshes_at_most_every_30_seconds(loads: IndexLoads) -> None:
    with loads.start(live=True):
        own = loads.original["refresh_interval"]
        assert loads.settings() == {**loads.original, "refresh_interval": own if own == "1m" else "30s"}
    assert loads.restored()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_any_exit_restores(loads: IndexLoads, error: type[BaseException]) -> None:
    with pytest.raises(error, match="mine"), loads.start(replicas=True):
        raise error("mine")
    assert loads.restored()


@pytest.mark.parametrize("live", [False, True], ids=["not live", "live"])
def test_next_run_restores_settings_of_a_killed_run(loads: IndexLoads, live: bool) -> None:
    first = loads.start(replicas=True)  # entered and never left, as a killed run leaves it
    first.__enter__()
    with loads.start(live=live):
        assert loads.settings()["number_of_replicas"] == loads.original["number_of_replicas"]
        assert loads.remembered() == loads.original
    assert loads.restored()
    assert any("was killed" in message for message in loads.messages)


def test_early_kill_does_no_harm(loads: IndexLoads) -> None:
    meta = loads.cluster.client.indices.get_mapping(index=loads.target.name)[loads.target.name]["mappings"]["_meta"]
    meta["stair_es"]["original_settings"] = loads.original
    loads.cluster.client.indices.put_mapping(index=loads.target.name, body={"_meta": meta})
    with loads.start():
        pass
    assert loads.restored()


@pytest.mark.parametrize("first_out", [0, 1])
def test_parallel_runs_never_save_relaxed_settings_as_originals(loads: IndexLoads, first_out: int) -> None:
    runs = [loads.start(replicas=True), loads.start(replicas=True)]
    for run in runs:
        run.__enter__()
        assert loads.remembered() == loads.original
    runs[first_out].__exit__(None, None, None)
    assert loads.restored()
    runs[1 - first_out].__exit__(None, None, None)
    assert loads.restored()
    with loads.start():
        pass
    assert loads.restored()


def test_a_failing_restore_doesn_t_hide_the_failure_of_the_run(loads: IndexLoads) -> None:
    def run() -> None:
        with loads.start():
            loads.cluster.client.indices.delete(index=loads.target.name)
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        run()
    assert "could not be restored" in loads.messages[-1]


def test_a_failed_restore_after_a_successful_run_is_reported(loads: IndexLoads) -> None:
    with pytest.raises(ClusterError, match=loads.target.name), loads.start():
        loads.cluster.client.indices.delete(index=loads.target.name)
