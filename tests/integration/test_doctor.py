"""The doctor on a real node: each problem is found, and solved by the command in its remedy."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from support.errors import expect_error
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

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

FindProblems = Callable[..., list[CheckResult]]


@pytest.fixture(scope="module")
def node_url(exclusive_node_url: str) -> str:
    """A node of its own: some problems are settings of the cluster."""
    return exclusive_node_url


@pytest.fixture
def find_problems(node_url: str, index_name: str) -> FindProblems:
    """Returns the findings about cluster and index that aren't ok."""

    def list_problems(
        connection: Connection | None = None, index: str = index_name, model: str = "stair-mini"
    ) -> list[CheckResult]:
        context = CheckContext(connect=lambda: connection or Connection(url=node_url), index=index, model=model)
        return [each for each in check_cluster(context) if each.state != "ok"]

    return list_problems


@pytest.fixture
def write_target(client: OpenSearch, node_url: str, index_name: str) -> WriteTarget:
    """An index of ours."""
    return _open_index(client, node_url, index_name)


def _open_index(client: OpenSearch, url: str, alias: str, model_id: str = "stair-mini-3", **settings: Any) -> WriteTarget:  # noqa: ANN401
    body = resources.load_json_resource("mappings", "image")
    body["settings"]["index"] |= settings
    index_spec = IndexSpec(model_name=model_id.rpartition("-")[0], model_id=model_id, settings={})
    return open_index(Cluster(Connection(url=url), client), alias, body, index_spec)


def get_finding(problems: list[CheckResult], check: str) -> CheckResult:
    [finding] = [each for each in problems if each.check == check]
    return finding


def run_remedy(finding: CheckResult) -> None:
    """Run the command of a remedy."""
    command = finding.remedy[finding.remedy.index("curl ") :].partition(" (OpenSearch)")[0]
    completed = subprocess.run([*shlex.split(command), "--fail-with-body", "-sS"], capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout + completed.stderr


def put_setting(client: OpenSearch, index: str, name: str, value: object) -> None:
    client.indices.put_settings(index=index, body={f"index.{name}": value})


def close_index(client: OpenSearch, index: str) -> None:
    client.indices.close(index=index)


def test_a_healthy_index_has_no_finding(find_problems: FindProblems, write_target: WriteTarget) -> None:
    assert [each for each in find_problems() if each.check != "health"] == []


def test_a_missing_index_and_a_missing_cluster_are_reported(find_problems: FindProblems) -> None:
    missing = get_finding(find_problems(), "index")
    assert missing.state == "warn"
    assert "stair-es ingest" in missing.remedy
    with expect_error("cluster-unreachable"):
        find_problems(Connection(url="http://127.0.0.1:1"))


def test_settings_of_killed_loads_are_restored(
    find_problems: FindProblems, client: OpenSearch, node_url: str, write_target: WriteTarget
) -> None:
    load = relax_index_settings(Cluster(Connection(url=node_url), client), write_target, replicas=False)
    load.__enter__()  # and never left: as after kill -9
    finding = get_finding(find_problems(), "index")
    assert "refresh_interval -1" in finding.message
    assert finding.state == "warn"
    run_remedy(finding)
    assert "index" not in {each.check for each in find_problems()}


@pytest.mark.parametrize(
    ("change", "state", "fact"),
    [
        (partial(put_setting, name="refresh_interval", value="-1"), "warn", "refresh_interval"),
        (partial(put_setting, name="blocks.read_only_allow_delete", value=True), "fail", "read_only_allow_delete"),
        (partial(put_setting, name="blocks.write", value=True), "fail", "write"),
        (partial(put_setting, name="blocks.read", value=True), "fail", "read"),
        (close_index, "fail", "closed"),
    ],
    ids=["refresh", "read-only", "write block", "read block", "closed"],
)
def test_a_problem_of_the_index_is_found_and_solved(
    find_problems: FindProblems,
    client: OpenSearch,
    write_target: WriteTarget,
    change: Callable[[OpenSearch, str], None],
    state: str,
    fact: str,
) -> None:
    change(client, write_target.name)
    finding = get_finding(find_problems(), "index")
    assert (finding.state, fact in finding.message) == (state, True)
    run_remedy(finding)
    assert "index" not in {each.check for each in find_problems()}


def test_blocked_requests_name_the_doctor(client: OpenSearch, node_url: str, write_target: WriteTarget) -> None:
    client.indices.put_settings(index=write_target.name, body={"index.blocks.read": True})
    with expect_error("index-blocked") as caught, translate_errors(Connection(url=node_url)):
        client.search(index=write_target.name)
    assert "stair-es doctor" in caught.value.remedy


@pytest.mark.parametrize("layer", ["persistent", "transient"])
@pytest.mark.usefixtures("write_target")
def test_a_block_of_the_whole_cluster_is_found_and_lifted(find_problems: FindProblems, client: OpenSearch, layer: str) -> None:
    name = "cluster.blocks.read_only"
    client.cluster.put_settings(body={layer: {name: True}})
    try:
        finding = get_finding(find_problems(), "blocks")
        run_remedy(finding)
        assert "blocks" not in {each.check for each in find_problems()}
    finally:
        client.cluster.put_settings(body={layer: {name: None}})


def test_an_index_of_someone_else_and_one_of_another_model_fail(
    find_problems: FindProblems, client: OpenSearch, node_url: str, index_name: str
) -> None:
    client.indices.create(index=f"{index_name}x")
    foreign = get_finding(find_problems(index=f"{index_name}x"), "index")
    assert (foreign.state, f"{index_name}x" in foreign.message, "stair-es" in foreign.message) == ("fail", True, True)
    _open_index(client, node_url, index_name, "other-1")
    other = get_finding(find_problems(), "index model")
    assert other.state == "fail"
    assert "--model other" in other.remedy


def test_unfinished_builds_are_listed_with_a_command(
    find_problems: FindProblems, client: OpenSearch, node_url: str, write_target: WriteTarget, index_name: str
) -> None:
    build = _open_index(client, node_url, index_name, model_id="other-1")
    assert build.replaces == write_target.name
    finding = get_finding(find_problems(), "builds")
    assert build.name in finding.message
    run_remedy(finding)
    assert not client.indices.exists(index=build.name)
    assert client.indices.exists(index=write_target.name)


def test_excess_retired_indices_are_named(
    find_problems: FindProblems, client: OpenSearch, write_target: WriteTarget, index_name: str
) -> None:
    for number in (1, 2, 3):
        body = {"mappings": client.indices.get_mapping(index=write_target.name)[write_target.name]["mappings"]}
        client.indices.create(index=f"{index_name}-old-{number}", body=body)
    finding = get_finding(find_problems(), "retired")
    assert finding.state == "warn"
    run_remedy(finding)
    left = sorted(client.indices.get(index=f"{index_name}-old-*"))
    assert left == [f"{index_name}-old-3"], "the newest is kept"
    assert "retired" not in {each.check for each in find_problems()}


def test_unassignable_replica_is_yellow_and_removed(
    find_problems: FindProblems, client: OpenSearch, node_url: str, index_name: str
) -> None:
    _open_index(client, node_url, index_name, number_of_replicas=1, auto_expand_replicas="false")
    finding = get_finding(find_problems(), "health")
    assert (finding.state, "number_of_replicas" in finding.remedy) == ("warn", True)
    run_remedy(finding)
    assert client.cluster.health(index=index_name)["status"] == "green"


def test_unassigned_shards_are_red_with_a_reason(find_problems: FindProblems, client: OpenSearch, index_name: str) -> None:
    nowhere = {"index.routing.allocation.require._name": "nobody", "index.number_of_replicas": 0}
    client.indices.create(index=index_name, body={"settings": nowhere}, params={"wait_for_active_shards": "0"})
    finding = get_finding(find_problems(), "health")
    assert finding.state == "fail"
    assert "nobody" in finding.message


@pytest.fixture
def few_clauses(client: OpenSearch) -> Iterator[None]:
    def limit_clauses(count: int | None) -> None:
        client.cluster.put_settings(body={"persistent": {"indices.query.bool.max_clause_count": count}})

    limit_clauses(100)
    yield
    limit_clauses(None)


@pytest.mark.usefixtures("few_clauses")
def test_a_low_limit_of_clauses_is_found_and_raised(find_problems: FindProblems, write_target: WriteTarget) -> None:
    finding = get_finding(find_problems(), "limits")
    assert re.findall(r"\d+", finding.message)[:2] == ["100", "1024"]
    run_remedy(finding)
    assert "limits" not in {each.check for each in find_problems()}


def test_rejected_logins_are_reported_and_checks_skipped(
    find_problems: FindProblems, node_url: str, write_target: WriteTarget, index_name: str
) -> None:
    with RecordingProxy(node_url, gate=lambda _: StubResponse(status=401)) as proxy, expect_error("login-refused"):
        find_problems(Connection(url=proxy.url))
    forbidden = ("/_cluster", "/_nodes", "/_security")
    with RecordingProxy(node_url) as proxy:
        proxy.gate = lambda request: StubResponse(status=403) if request.target.startswith(forbidden) else None
        connection = Connection(url=proxy.url, security=SecuritySettings(user="anna", password="hunter2"))
        [finding] = find_problems(connection)
        assert (finding.check, finding.state) == ("checks", "warn")
        assert re.findall("cluster:monitor/([a-z/]+)", finding.message) == ["health", "state", "nodes/stats"]
        with Cluster(connection) as cluster:
            assert fetch_privileges(cluster, index_name) is None


def test_the_doctor_changes_nothing(find_problems: FindProblems, node_url: str, write_target: WriteTarget) -> None:
    with RecordingProxy(node_url) as proxy:
        find_problems(Connection(url=proxy.url))
        assert {request.method for request in proxy.requests} == {"GET"}
