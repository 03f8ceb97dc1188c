"""The doctor on a real node: each problem is found, and solved by the command in its remedy."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from support.servers.recording_proxy import RecordingProxy, StubResponse

from stair_es import resources
from stair_es.cluster.client.auth import SecuritySettings
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.client.exceptions import translate_errors
from stair_es.cluster.index.lifecycle import open_index
from stair_es.cluster.index.load_settings import relax_index_settings
from stair_es.cluster.metadata.index_metadata import IndexSpec, WriteTarget
from stair_es.doctor.facts import fetch_privileges
from stair_es.doctor.result import CheckResult
from stair_es.doctor.run import CheckContext, check_cluster
from stair_es.errors import ClusterError

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

FindProblems = Callable[..., list[CheckResult]]


@pytest.fixture(scope="module")
def node_url(exclusive_node_url: str) -> str:
    """A node of its own: some problems are settings of the cluster."""
    return exclusive_node_url


@pytest.fixture
def find_problems(node_url: str, index_name: str) -> FindProblems:
    """The findings about cluster and index that aren't ok."""

    def look(connection: Connection | None = None, index: str = index_name, model: str = "stair-mini") -> list[CheckResult]:
        context = CheckContext(connect=lambda: connection or Connection(url=node_url), index=index, model=model)
        return [each for each in check_cluster(context) if each.state != "ok"]

    return look


@pytest.fixture
def write_target(client: OpenSearch, node_url: str, index_name: str) -> WriteTarget:
    """An index of ours."""
    return _open(client, node_url, index_name)


def _open(client: OpenSearch, url: str, alias: str, model_id: str = "stair-mini-2", **settings: Any) -> WriteTarget:  # noqa: ANN401
    body = resources.load_json_resource("mappings", "image")
    body["settings"]["index"] |= settings
    index_spec = IndexSpec(model_name=model_id.rpartition("-")[0], model_id=model_id, settings={})
    return open_index(Cluster(Connection(url=url), client), alias, body, index_spec)


def _only(found: list[CheckResult], check: str) -> CheckResult:
    [finding] = [each for each in found if each.check == check]
    return finding


def _run(finding: CheckResult) -> None:
    """The command of a remedy."""
    command = finding.remedy[finding.remedy.index("curl ") :].partition(" (OpenSearch)")[0]
    done = subprocess.run([*shlex.split(command), "--fail-with-body", "-sS"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_healthy_index_has_no_finding(find_problems: FindProblems, write_target: WriteTarget) -> None:
    assert [each for each in find_problems() if each.check != "health"] == []


def test_a_missing_index_and_a_missing_cluster_are_reported(find_problems: FindProblems) -> None:
    missing = _only(find_problems(), "index")
    assert missing.state == "warn"
    assert "stair-es ingest" in missing.remedy
    with pytest.raises(ClusterError, match="no search cluster answers"):
        find_problems(Connection(url="http://127.0.0.1:1"))


def test_settings_of_killed_loads_are_restored(
    find_problems: FindProblems, client: OpenSearch, node_url: str, write_target: WriteTarget
) -> None:
    load = relax_index_settings(Cluster(Connection(url=node_url), client), write_target, replicas=False)
    load.__enter__()  # and never left: as after kill -9
    finding = _only(find_problems(), "index")
    assert "refresh_interval -1" in finding.message
    assert finding.state == "warn"
    _run(finding)
    assert [each for each in find_problems() if each.check == "index"] == []


def test_disabled_refresh_is_found(find_problems: FindProblems, client: OpenSearch, write_target: WriteTarget) -> None:
    client.indices.put_settings(index=write_target.name, body={"index.refresh_interval": "-1"})
    finding = _only(find_problems(), "index")
    assert "new documents are not searchable" in finding.message
    _run(finding)
    assert [each for each in find_problems() if each.check == "index"] == []


@pytest.mark.parametrize("block", ["read_only_allow_delete", "write", "read"])
def test_a_block_is_found_and_lifted(
    find_problems: FindProblems, client: OpenSearch, write_target: WriteTarget, block: str
) -> None:
    client.indices.put_settings(index=write_target.name, body={f"index.blocks.{block}": True})
    finding = _only(find_problems(), "index")
    assert (finding.state, block in finding.message) == ("fail", True)
    _run(finding)
    assert [each for each in find_problems() if each.check == "index"] == []


def test_blocked_requests_name_the_doctor(client: OpenSearch, node_url: str, write_target: WriteTarget) -> None:
    client.indices.put_settings(index=write_target.name, body={"index.blocks.read": True})
    with pytest.raises(ClusterError, match="blocked by") as stopped, translate_errors(Connection(url=node_url)):
        client.search(index=write_target.name)
    assert "stair-es doctor" in stopped.value.remedy


def test_a_closed_index_is_found_and_opened(find_problems: FindProblems, client: OpenSearch, write_target: WriteTarget) -> None:
    client.indices.close(index=write_target.name)
    finding = _only(find_problems(), "index")
    assert (finding.state, "closed" in finding.message) == ("fail", True)
    _run(finding)
    assert [each for each in find_problems() if each.check == "index"] == []


@pytest.mark.parametrize("layer", ["persistent", "transient"])
@pytest.mark.usefixtures("write_target")
def test_a_block_of_the_whole_cluster_is_found_and_lifted(find_problems: FindProblems, client: OpenSearch, layer: str) -> None:
    name = "cluster.blocks.read_only"
    client.cluster.put_settings(body={layer: {name: True}})
    try:
        finding = _only(find_problems(), "blocks")
        _run(finding)
        assert [each for each in find_problems() if each.check == "blocks"] == []
    finally:
        client.cluster.put_settings(body={layer: {name: None}})


def test_an_index_of_someone_else_and_one_of_another_model_fail(
    find_problems: FindProblems, client: OpenSearch, node_url: str, index_name: str
) -> None:
    client.indices.create(index=f"{index_name}x")
    foreign = _only(find_problems(index=f"{index_name}x"), "index")
    assert (foreign.state, "not written by stair-es" in foreign.message) == ("fail", True)
    _open(client, node_url, index_name, "other-1")
    other = _only(find_problems(), "index model")
    assert other.state == "fail"
    assert "--model other" in other.remedy


def test_unfinished_builds_are_listed_with_a_command(
    find_problems: FindProblems, client: OpenSearch, node_url: str, write_target: WriteTarget, index_name: str
) -> None:
    build = _open(client, node_url, index_name, model_id="other-1")
    assert build.replaces == write_target.name
    finding = _only(find_problems(), "builds")
    assert build.name in finding.message
    _run(finding)
    assert not client.indices.exists(index=build.name)
    assert client.indices.exists(index=write_target.name)


def test_excess_retired_indices_are_named(
    find_problems: FindProblems, client: OpenSearch, write_target: WriteTarget, index_name: str
) -> None:
    for number in (1, 2, 3):
        body = {"mappings": client.indices.get_mapping(index=write_target.name)[write_target.name]["mappings"]}
        client.indices.create(index=f"{index_name}-old-{number}", body=body)
    finding = _only(find_problems(), "retired")
    assert finding.state == "warn"
    _run(finding)
    left = sorted(client.indices.get(index=f"{index_name}-old-*"))
    assert left == [f"{index_name}-old-3"], "the newest is kept"
    assert [each for each in find_problems() if each.check == "retired"] == []


def test_unassignable_replica_is_yellow_and_removed(
    find_problems: FindProblems, client: OpenSearch, node_url: str, index_name: str
) -> None:
    _open(client, node_url, index_name, number_of_replicas=1, auto_expand_replicas="false")
    finding = _only(find_problems(), "health")
    assert (finding.state, "one node holds no replicas" in finding.message) == ("warn", True)
    _run(finding)
    assert client.cluster.health(index=index_name)["status"] == "green"


def test_unassigned_shards_are_red_with_a_reason(find_problems: FindProblems, client: OpenSearch, index_name: str) -> None:
    nowhere = {"index.routing.allocation.require._name": "nobody", "index.number_of_replicas": 0}
    client.indices.create(index=index_name, body={"settings": nowhere}, params={"wait_for_active_shards": "0"})
    finding = _only(find_problems(), "health")
    assert finding.state == "fail"
    assert "nobody" in finding.message


@pytest.fixture
def few_clauses(client: OpenSearch) -> Iterator[None]:
    def limit(most: int | None) -> None:
        client.cluster.put_settings(body={"persistent": {"indices.query.bool.max_clause_count": most}})

    limit(100)
    yield
    limit(None)


@pytest.mark.usefixtures("few_clauses")
def test_a_low_limit_of_clauses_is_found_and_raised(find_problems: FindProblems, write_target: WriteTarget) -> None:
    finding = _only(find_problems(), "limits")
    assert "the clause limit is 100" in finding.message
    _run(finding)
    assert [each for each in find_problems() if each.check == "limits"] == []


def test_rejected_logins_are_reported_and_checks_skipped(
    find_problems: FindProblems, node_url: str, write_target: WriteTarget, index_name: str
) -> None:
    with (
        RecordingProxy(node_url, gate=lambda _: StubResponse(status=401)) as proxy,
        pytest.raises(ClusterError, match="refused the login"),
    ):
        find_problems(Connection(url=proxy.url))
    forbidden = ("/_cluster", "/_nodes", "/_security")
    with RecordingProxy(
        node_url, gate=lambda asked: StubResponse(status=403) if asked.target.startswith(forbidden) else None
    ) as proxy:
        connection = Connection(url=proxy.url, security=SecuritySettings(user="anna", password="hunter2"))
        [finding] = find_problems(connection)
        assert (finding.check, finding.state) == ("checks", "warn")
        assert "cluster:monitor/health, cluster:monitor/state, cluster:monitor/nodes/stats" in finding.message
        with Cluster(connection) as cluster:
            assert fetch_privileges(cluster, index_name) is None


def test_the_doctor_changes_nothing(find_problems: FindProblems, node_url: str, write_target: WriteTarget) -> None:
    with RecordingProxy(node_url) as proxy:
        find_problems(Connection(url=proxy.url))
        assert {request.method for request in proxy.requests} == {"GET"}
