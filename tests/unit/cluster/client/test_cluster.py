"""Calls of a cluster: retries, errors, closing."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from support.errors import expect_error
from support.messages import forward_messages
from support.servers.fault_proxy import MaybeResponse, Request, Response, start_server

from stair_es.cluster.client.auth import SecuritySettings
from stair_es.cluster.client.capabilities import get_product
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.client.retry import NO_RETRY
from stair_es.cluster.documents.read import find_last_writes
from stair_es.errors import ClusterError, IngestError, UnsupportedTarget, UsageError
from stair_es.retry import RetryPolicy

EMPTY = {"_shards": {"total": 0}, "hits": {"hits": []}}


class Node:
    """A server that answers 503 at first, and notes what it is asked."""

    def __init__(self) -> None:
        self.busy = 0
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> MaybeResponse:
        self.requests.append(request)
        self.busy -= 1
        return Response.json({}, 503) if self.busy >= 0 else Response.json(EMPTY)


@pytest.fixture
def busy_node() -> Node:
    return Node()


@pytest.fixture
def waits_s() -> list[float]:
    return []


@pytest.fixture
def opened_cluster(busy_node: Callable[[Request], MaybeResponse], waits_s: list[float]) -> Iterator[Cluster]:
    with start_server(busy_node) as url, Cluster(Connection(url=url), sleep=waits_s.append) as opened:
        yield opened


def test_a_call_is_repeated_until_the_cluster_answers(opened_cluster: Cluster, busy_node: Node, waits_s: list[float]) -> None:
    busy_node.busy = 2
    assert opened_cluster.call(opened_cluster.client.search, index="photos", body={"size": 0}) == EMPTY
    assert (len(busy_node.requests), len(waits_s)) == (3, 2)
    assert {(request.method, request.path, request.body) for request in busy_node.requests} == {
        ("POST", "/photos/_search", b'{"size":0}')
    }


@pytest.mark.parametrize(("failures", "lines"), [(1, 0), (2, 1), (4, 1)])
def test_repeated_failures_are_logged_once(opened_cluster: Cluster, busy_node: Node, failures: int, lines: int) -> None:
    busy_node.busy, messages = failures, list[str]()
    with forward_messages(messages.append):
        opened_cluster.call(opened_cluster.client.info)
    assert (len(busy_node.requests), len(messages)) == (failures + 1, lines)


def test_the_last_failure_is_raised_with_the_address(opened_cluster: Cluster, busy_node: Node, waits_s: list[float]) -> None:
    busy_node.busy = 9
    with expect_error("cluster-unavailable", ClusterError) as caught:
        opened_cluster.call(opened_cluster.client.info, retry=RetryPolicy(attempts=3))
    assert opened_cluster.connection.safe_url.removeprefix("http://") in caught.value.message
    assert "503" in caught.value.message
    assert (len(busy_node.requests), len(waits_s)) == (3, 2)


def test_only_errors_of_the_client_are_retried(opened_cluster: Cluster, waits_s: list[float]) -> None:
    calls: list[str] = []

    def raise_error(text: str, *, name: str) -> None:
        calls.append(text + name)
        raise IngestError("no", "Nothing.")

    with expect_error("ingest-error", IngestError):
        opened_cluster.call(raise_error, "a", name="b")
    assert (calls, waits_s) == (["ab"], [])


def test_a_search_rejects_partial_results(opened_cluster: Cluster, busy_node: Node) -> None:
    opened_cluster.search("photos", {"size": 3})
    assert busy_node.requests[0].path == "/photos/_search?allow_partial_search_results=false"
    assert json.loads(busy_node.requests[0].body) == {"size": 3}


def test_searches_accept_parameters_and_attempts(opened_cluster: Cluster, busy_node: Node, waits_s: list[float]) -> None:
    busy_node.busy = 2
    with expect_error("cluster-unavailable", ClusterError):
        opened_cluster.search("photos", {}, retry=NO_RETRY, search_pipeline="boost")
    assert ([request.path for request in busy_node.requests], waits_s) == (
        ["/photos/_search?allow_partial_search_results=false&search_pipeline=boost"],
        [],
    )


def test_a_refresh_names_its_index(opened_cluster: Cluster, busy_node: Node) -> None:
    opened_cluster.refresh("photos")
    assert [(request.method, request.path) for request in busy_node.requests] == [("POST", "/photos/_refresh")]


def test_a_run_waits_for_the_product(opened_cluster: Cluster, busy_node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stair_es.retry.time", SimpleNamespace(sleep=lambda _: None))
    busy_node.busy = 7
    assert (get_product(opened_cluster), len(busy_node.requests)) == ("", 8)


def test_the_last_writes_of_unknown_shards_are_not_guessed(opened_cluster: Cluster) -> None:
    with expect_error("shards-unknown", UnsupportedTarget) as caught:
        find_last_writes(opened_cluster, "photos")
    assert "photos" in caught.value.message


def test_a_given_client_is_used() -> None:
    connection = Connection(url="http://localhost:1")
    given = connection.client()
    with Cluster(connection, given) as opened_cluster:
        assert opened_cluster.client is given


def test_a_pickled_cluster_opens_no_client_until_it_is_used() -> None:
    security = SecuritySettings(ca_file="/no/such/file")
    copy = pickle.loads(pickle.dumps(Cluster(Connection(url="https://localhost:9200", security=security))))
    with expect_error("ca-file-unreadable", UsageError) as caught:
        copy.search("images", {})
    assert "/no/such/file" in caught.value.message


def test_pickled_connections_are_reopened() -> None:
    with Cluster(Connection(url="https://anna:secret@localhost:9200")) as opened_cluster:
        copy = pickle.loads(pickle.dumps(opened_cluster.connection))
    with Cluster(copy) as other:
        assert other.connection == opened_cluster.connection
        assert other.client is not opened_cluster.client
