"""Bodies of new indices by cluster capabilities."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from support.errors import expect_error

from stair_es import resources
from stair_es.cluster.client.capabilities import ClusterInfo
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.cluster.index.load_settings import choose_load_settings, parse_interval_s
from stair_es.cluster.index.mappings import build_index_body, merge_bodies
from stair_es.errors import ResourceError, UnsupportedTarget

SPARSE = DocumentSettings(vector="sparse_vector")
IMPACTS = DocumentSettings(impacts=True)


def make_cluster_info(distribution: Literal["opensearch", "elasticsearch"], *version: int) -> ClusterInfo:
    return ClusterInfo(distribution=distribution, version=version, max_clauses=1024)


ALL = [
    make_cluster_info("opensearch", 1, 1, 0),
    make_cluster_info("opensearch", 2, 19, 0),
    make_cluster_info("opensearch", 3, 8, 0),
    make_cluster_info("elasticsearch", 7, 12, 0),
    make_cluster_info("elasticsearch", 7, 17, 29),
    make_cluster_info("elasticsearch", 9, 5, 3),
]


@pytest.mark.parametrize("cluster_info", ALL, ids=lambda cluster_info: cluster_info.label)
def test_rank_features_have_one_body_everywhere(cluster_info: ClusterInfo) -> None:
    assert build_index_body(cluster_info, DocumentSettings()) == resources.load_json_resource("mappings", "image")


@pytest.mark.parametrize(
    ("version", "prune", "hidden"),
    [
        ((8, 15, 0), False, False),
        ((8, 18, 9), False, False),
        ((8, 19, 0), True, False),
        ((9, 0, 5), False, False),
        ((9, 1, 0), True, False),
        ((9, 2, 0), True, True),
        ((9, 5, 3), True, True),
        ((10, 0, 0), True, True),
    ],
)
def test_sparse_vector_follows_the_version(version: tuple[int, ...], prune: bool, hidden: bool) -> None:
    body = build_index_body(make_cluster_info("elasticsearch", *version), SPARSE)
    tokens = {"type": "sparse_vector", **({"index_options": {"prune": False}} if prune else {})}
    plain = resources.load_json_resource("mappings", "image")
    assert body["mappings"]["properties"] == {**plain["mappings"]["properties"], "tokens": tokens}
    index = dict(body["settings"]["index"])
    assert index.pop("mapping", None) == ({"exclude_source_vectors": False} if hidden else None)
    assert index == plain["settings"]["index"]


@pytest.mark.parametrize(
    "cluster_info", [*ALL[:-1], make_cluster_info("elasticsearch", 8, 14, 3)], ids=lambda cluster_info: cluster_info.label
)
def test_unsupported_sparse_vector_is_rejected(cluster_info: ClusterInfo) -> None:
    with expect_error("no-sparse-vector-field", UnsupportedTarget) as caught:
        build_index_body(cluster_info, SPARSE)
    assert cluster_info.label in caught.value.message
    assert "--vector" in caught.value.remedy


@pytest.mark.parametrize(
    "cluster_info",
    [make_cluster_info("opensearch", 2, 9, 0), ALL[0], ALL[4], ALL[5]],
    ids=lambda cluster_info: cluster_info.label,
)
def test_impacts_are_rejected_where_the_filter_is_not(cluster_info: ClusterInfo) -> None:
    with expect_error("no-impacts-field", UnsupportedTarget) as caught:
        build_index_body(cluster_info, IMPACTS)
    assert cluster_info.label in caught.value.message
    assert "--impact-field" in caught.value.remedy


def test_impacts_are_added_to_the_rest() -> None:
    body, plain = build_index_body(ALL[2], IMPACTS), resources.load_json_resource("mappings", "image")
    assert set(body["mappings"]["properties"]) == {*plain["mappings"]["properties"], "impacts"}
    assert body["settings"]["index"]["number_of_shards"] == plain["settings"]["index"]["number_of_shards"]
    assert body["settings"]["index"]["similarity"]["impacts"]["type"] == "scripted"


def write_custom_body(path: Path, change: dict[str, Any]) -> Path:
    file = path / "own.json"
    file.write_text(json.dumps(merge_bodies(resources.load_json_resource("mappings", "image"), change)))
    return file


def test_custom_bodies_are_used_unchanged(tmp_path: Path) -> None:
    change = {
        "settings": {"index": {"number_of_shards": 3}},
        "mappings": {"_meta": {"a": 1}, "properties": {"x": {"type": "date"}}},
    }
    file = write_custom_body(tmp_path, change)
    assert build_index_body(ALL[2], DocumentSettings(), override=file) == json.loads(file.read_text())


@pytest.mark.parametrize(
    ("settings", "field"),
    [(DocumentSettings(), "uri"), (DocumentSettings(), "tokens"), (SPARSE, "sparse_vector"), (IMPACTS, "impacts")],
)
def test_a_body_without_the_fields_that_ingest_needs_is_rejected(tmp_path: Path, settings: DocumentSettings, field: str) -> None:
    change = {"mappings": {"properties": {field: {"type": "text"}}}} if field in ("uri", "tokens") else {}
    cluster_info = ALL[5] if settings is SPARSE else ALL[2]
    with expect_error("mapping-lacks-fields", ResourceError) as caught:
        build_index_body(cluster_info, settings, override=write_custom_body(tmp_path, change))
    assert field in caught.value.message


@pytest.mark.parametrize(
    ("interval", "expected"),
    [(None, 0), ("", 0), ("-1", -1), ("1s", 1), ("500ms", 0.5), ("2m", 120), ("1h", 3600), ("1d", 86400), ("0", 0), ("soon", 0)],
)
def test_intervals(interval: str | None, expected: float) -> None:
    assert parse_interval_s(interval) == expected


@pytest.mark.parametrize(
    ("interval", "changed"),
    [(None, True), ("1s", True), ("29s", True), ("30s", False), ("1m", False), ("-1", False)],
)
def test_live_index_refreshes_no_more_often(interval: str | None, changed: bool) -> None:
    for replicas in (False, True):
        found = choose_load_settings({"refresh_interval": interval}, live=True, replicas=replicas)
        assert found == ({"refresh_interval": "30s"} if changed else {})
