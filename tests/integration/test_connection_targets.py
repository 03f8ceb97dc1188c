"""Detection of distribution and version on each engine, also where the usual request is denied."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.errors import expect_error
from support.servers.recording_proxy import RecordedRequest, RecordingProxy, StubResponse

from stair_es.cluster.client.auth import SecuritySettings
from stair_es.cluster.client.capabilities import ClusterInfo, get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.errors import NotASearchCluster, UnsupportedTarget


def fetch_info(url: str, security: SecuritySettings | None = None) -> ClusterInfo:
    connection = Connection(url=url, security=security or SecuritySettings())
    with Cluster(connection) as cluster:
        return get_cluster_info(cluster)


def list_capabilities(info: ClusterInfo) -> tuple[bool, bool]:
    return info.supports_sparse_vector, info.supports_impacts


@pytest.mark.parametrize(
    ("node", "label", "capabilities"),
    [
        ("node_url", "OpenSearch 3.8.0", (False, True)),
        ("elasticsearch7_url", "Elasticsearch 7.17.29", (False, False)),
        ("elasticsearch8_url", "Elasticsearch 8.19.0", (True, False)),  # without its root
        ("elasticsearch9_url", "Elasticsearch 9.5.3", (True, False)),
    ],
)
def test_each_engine(request: pytest.FixtureRequest, node: str, label: str, capabilities: tuple[bool, bool]) -> None:
    info = fetch_info(request.getfixturevalue(node))
    assert (info.label, list_capabilities(info)) == (label, capabilities)
    if node in ("elasticsearch8_url", "elasticsearch9_url"):
        assert info.max_clauses > 1024, "computed from the heap"
    else:
        assert info.max_clauses == 1024


@pytest.mark.parametrize("status", [403, 404, 405])
def test_cluster_without_root_access(node_url: str, status: int) -> None:
    with RecordingProxy(node_url, gate=lambda request: StubResponse(status=status) if request.target == "/" else None) as proxy:
        assert fetch_info(proxy.url).label == "OpenSearch 3.8.0"


def build_root(**version: str) -> dict[str, Any]:
    return {"version": {"lucene_version": "9.0", **version}}


@pytest.mark.parametrize(
    ("root", "node_version", "label"),
    [
        (build_root(number="1.3.20", distribution="opensearch"), None, "OpenSearch 1.3.20"),
        (build_root(number="2.19.1", distribution="opensearch"), None, "OpenSearch 2.19.1"),
        (build_root(number="7.10.2"), "1.3.20", "OpenSearch 1.3.20"),  # it pretends, for old clients
        (build_root(number="8.17.0-SNAPSHOT", build_flavor="default"), None, "Elasticsearch 8.17.0"),
        (None, "2.11.0", "OpenSearch 2.11.0"),
        (None, "8.15.3", "Elasticsearch 8.15.3"),
    ],
)
def test_distribution_and_version_are_read_from_other_clusters(
    root: dict[str, Any] | None, node_version: str | None, label: str
) -> None:
    def respond(request: RecordedRequest) -> StubResponse:
        if request.target == "/" and root is not None:
            return StubResponse(status=200, body=json.dumps(root).encode())
        if request.target.startswith("/_nodes/_local") and node_version is not None:
            return StubResponse(status=200, body=json.dumps({"nodes": {"abc": {"version": node_version}}}).encode())
        return StubResponse(status=404)

    with RecordingProxy(None, gate=respond) as proxy:
        info = fetch_info(proxy.url)
    assert (info.label, info.max_clauses) == (label, 1024)


@pytest.mark.parametrize(
    ("version", "capabilities"),
    [
        (("opensearch", (2, 9)), (False, False)),
        (("opensearch", (2, 10)), (False, True)),
        (("elasticsearch", (8, 14, 9)), (False, False)),
        (("elasticsearch", (8, 15)), (True, False)),
    ],
)
def test_capabilities_by_version(version: tuple[Any, tuple[int, ...]], capabilities: tuple[bool, bool]) -> None:
    assert list_capabilities(ClusterInfo(distribution=version[0], version=version[1], max_clauses=1024)) == capabilities


def test_too_old() -> None:
    root = json.dumps(build_root(number="1.0.1", distribution="opensearch")).encode()
    with (
        RecordingProxy(
            None, gate=lambda request: StubResponse(status=200, body=root if request.target == "/" else b"{}")
        ) as proxy,
        expect_error("cluster-too-old", UnsupportedTarget) as caught,
    ):
        fetch_info(proxy.url)
    assert "OpenSearch 1.0.1" in caught.value.message


def test_serverless_has_neither_root_nor_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    with RecordingProxy(None, gate=lambda _: StubResponse(status=404)) as proxy:
        info = fetch_info(proxy.url, SecuritySettings(aws_service="aoss", aws_region="eu-central-1"))
        assert (info.label, info.distribution) == ("OpenSearch Serverless", "opensearch")
        with pytest.raises(NotASearchCluster):
            fetch_info(proxy.url, SecuritySettings(aws_service="es", aws_region="eu-central-1"))
