"""Detection of distribution and version on each engine, also where the usual request is denied."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.servers.recording_proxy import RecordedRequest, RecordingProxy, StubResponse

from stair_es.cluster.client.auth import SecuritySettings
from stair_es.cluster.client.capabilities import ClusterInfo, get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.errors import NotASearchCluster, UnsupportedTarget


def _probe(url: str, security: SecuritySettings | None = None) -> ClusterInfo:
    connection = Connection(url=url, security=security or SecuritySettings())
    with Cluster(connection) as cluster:
        return get_cluster_info(cluster)


def _capabilities(target: ClusterInfo) -> tuple[bool, bool]:
    return target.supports_sparse_vector, target.supports_impacts


def test_opensearch(node_url: str) -> None:
    target = _probe(node_url)
    assert (target.label, target.max_clauses, _capabilities(target)) == ("OpenSearch 3.8.0", 1024, (False, True))


def test_elasticsearch_7(elasticsearch7_url: str) -> None:
    target = _probe(elasticsearch7_url)
    assert (target.label, target.max_clauses, _capabilities(target)) == ("Elasticsearch 7.17.29", 1024, (False, False))


def test_elasticsearch_9_without_its_root(elasticsearch9_url: str) -> None:
    target = _probe(elasticsearch9_url)
    assert (target.label, _capabilities(target)) == ("Elasticsearch 9.5.3", (True, False))
    assert target.max_clauses > 1024, "computed from the heap"


@pytest.mark.parametrize("status", [403, 404, 405])
def test_cluster_without_root_access(node_url: str, status: int) -> None:
    with RecordingProxy(node_url, gate=lambda asked: StubResponse(status=status) if asked.target == "/" else None) as proxy:
        assert _probe(proxy.url).label == "OpenSearch 3.8.0"


def _root(**version: str) -> dict[str, Any]:
    return {"version": {"lucene_version": "9.0", **version}}


@pytest.mark.parametrize(
    ("root", "node_version", "label"),
    [
        (_root(number="1.3.20", distribution="opensearch"), None, "OpenSearch 1.3.20"),
        (_root(number="2.19.1", distribution="opensearch"), None, "OpenSearch 2.19.1"),
        (_root(number="7.10.2"), "1.3.20", "OpenSearch 1.3.20"),  # it pretends, for old clients
        (_root(number="8.17.0-SNAPSHOT", build_flavor="default"), None, "Elasticsearch 8.17.0"),
        (None, "2.11.0", "OpenSearch 2.11.0"),
        (None, "8.15.3", "Elasticsearch 8.15.3"),
    ],
)
def test_distribution_and_version_are_read_from_other_clusters(
    root: dict[str, Any] | None, node_version: str | None, label: str
) -> None:
    def answer(asked: RecordedRequest) -> StubResponse:
        if asked.target == "/" and root is not None:
            return StubResponse(status=200, body=json.dumps(root).encode())
        if asked.target.startswith("/_nodes/_local") and node_version is not None:
            return StubResponse(status=200, body=json.dumps({"nodes": {"abc": {"version": node_version}}}).encode())
        return StubResponse(status=404)

    with RecordingProxy(None, gate=answer) as proxy:
        target = _probe(proxy.url)
    assert (target.label, target.max_clauses) == (label, 1024)


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
    assert _capabilities(ClusterInfo(distribution=version[0], version=version[1], max_clauses=1024)) == capabilities


def test_too_old() -> None:
    answers = {"/": _root(number="1.0.1", distribution="opensearch")}
    with (
        RecordingProxy(
            None, gate=lambda asked: StubResponse(status=200, body=json.dumps(answers.get(asked.target, {})).encode())
        ) as proxy,
        pytest.raises(UnsupportedTarget, match=r"OpenSearch 1\.0\.1.*1\.1 or newer"),
    ):
        _probe(proxy.url)


def test_serverless_has_neither_root_nor_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    with RecordingProxy(None, gate=lambda _: StubResponse(status=404)) as proxy:
        target = _probe(proxy.url, SecuritySettings(aws_service="aoss", aws_region="eu-central-1"))
        assert (target.label, target.distribution) == ("OpenSearch Serverless", "opensearch")
        with pytest.raises(NotASearchCluster):
            _probe(proxy.url, SecuritySettings(aws_service="es", aws_region="eu-central-1"))
