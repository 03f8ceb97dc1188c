"""Calls of a cluster: retries, errors, closing."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator

import pytest
from support.servers.fault_proxy import MaybeResponse, Request, Response, start_server

from stair_es.cluster.client.auth import SecuritySettings
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.client.retry import NO_RETRY
from stair_es.errors import ClusterError, IngestError, UsageError
from stair_es.retry import RetryPolicy


class Node:
    """A server that answers 503 at first, and notes what it is asked."""

    def __init__(self) -> None:
        self.busy = 0
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> MaybeResponse:
        self.requests.append(request)
        self.busy -= 1
        return Response.json({}, 503) if self.busy >= 0 else Response.json({"hits": {"hits": []}})


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def cluster(node: Callable[[Request], MaybeResponse], waits: list[float]) -> Iterator[Cluster]:
    with start_server(node) as url, Cluster(Connection(url=url), sleep=waits.append) as opened:
        yield opened


def test_a_call_is_repeated_until_the_cluster_answers(cluster: Cluster, node: Node, waits: list[float]) -> None:
    node.busy = 2
    assert cluster.call(cluster.client.search, index="photos", body={"size": 0}) == {"hits": {"hits": []}}
    assert (len(node.requests), len(waits)) == (3, 2)
    assert {(request.method, request.path, request.body) for request in node.requests} == {
        ("POST", "/photos/_search", b'{"size":0}')
    }


def test_the_last_failure_is_raised_with_the_address(cluster: Cluster, node: Node, waits: list[float]) -> None:
    node.busy = 9
    with pytest.raises(ClusterError, match="503") as caught:
        cluster.call(cluster.client.info, retry=RetryPolicy(attempts=3))
    assert cluster.connection.safe_url.removeprefix("http://") in caught.value.message
    assert (len(node.requests), len(waits)) == (3, 2)


def test_only_errors_of_the_client_are_retried(cluster: Cluster, waits: list[float]) -> None:
    calls: list[str] = []

    def fail(text: str, *, name: str) -> None:
        calls.append(text + name)
        raise IngestError("no", "Nothing.")

    with pytest.raises(IngestError, match="no"):
        cluster.call(fail, "a", name="b")
    assert (calls, waits) == (["ab"], [])


def test_a_search_rejects_partial_results(cluster: Cluster, node: Node) -> None:
    cluster.search("photos", {"size": 3})
    assert node.requests[0].path == "/photos/_search?allow_partial_search_results=false"
    assert json.loads(node.requests[0].body) == {"size": 3}


def test_searches_accept_parameters_and_attempts(cluster: Cluster, node: Node, waits: list[float]) -> None:
    node.busy = 2
    with pytest.raises(ClusterError, match="503"):
        cluster.search("photos", {}, retry=NO_RETRY, search_pipeline="boost")
    assert ([request.path for request in node.requests], waits) == (
        ["/photos/_search?allow_partial_search_results=false&search_pipeline=boost"],
        [],
    )


def test_a_refresh_names_its_index(cluster: Cluster, node: Node) -> None:
    cluster.refresh("photos")
    assert [(request.method, request.path) for request in node.requests] == [("POST", "/photos/_refresh")]


def test_a_given_client_is_used() -> None:
    connection = Connection(url="http://localhost:1")
    given = connection.client()
    with Cluster(connection, given) as cluster:
        assert cluster.client is given


def test_a_pickled_cluster_opens_no_client_until_it_is_used() -> None:
    security = SecuritySettings(ca_file="/no/such/file")
    copy = pickle.loads(pickle.dumps(Cluster(Connection(url="https://localhost:9200", security=security))))
    with pytest.raises(UsageError, match="/no/such/file"):
        copy.search("images", {})


def test_pickled_connections_are_reopened() -> None:
    with Cluster(Connection(url="https://anna:secret@localhost:9200")) as cluster:
        copy = pickle.loads(pickle.dumps(cluster.connection))
    with Cluster(copy) as other:
        assert other.connection == cluster.connection
        assert other.client is not cluster.client
