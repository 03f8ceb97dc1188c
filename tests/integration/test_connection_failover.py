"""Requests to a node: failover between nodes that die or hang, Retry-After, and filters that keep the reason of a failure."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support.errors import expect_error
from support.servers.recording_proxy import RecordedRequest, RecordingProxy, StubResponse

from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.client.retry import get_retry_after_s
from stair_es.retry import RetryPolicy

_POLICY = RetryPolicy(attempts=4, backoff_s=0.001)


def build_busy_gate(retry_after: str, times: int = 1) -> Callable[[RecordedRequest], StubResponse | None]:
    left = [times]

    def gate(_: RecordedRequest) -> StubResponse | None:
        left[0] -= 1
        return StubResponse(status=429, headers={"Retry-After": retry_after}) if left[0] >= 0 else None

    return gate


@pytest.mark.parametrize("died", ["first", "second"])
def test_dead_node_fails_over(node_url: str, died: str) -> None:
    with RecordingProxy(node_url) as first, RecordingProxy(node_url) as second:
        cluster = Cluster(Connection(url=f"{first.url},{second.url}"))
        for _ in range(4):
            cluster.client.cluster.health()
        assert first.requests, "both are asked in turn"
        assert second.requests
        dead, alive = (first, second) if died == "first" else (second, first)
        dead.kill()
        before = len(alive.requests)
        for _ in range(6):
            cluster.client.cluster.health()  # none of them fails
        assert len(alive.requests) == before + 6
        assert get_cluster_info(cluster).label == "OpenSearch 3.8.0"
        cluster.close()


def test_hanging_node_fails_over(node_url: str) -> None:
    over = threading.Event()

    def wait_until_over(_: RecordedRequest) -> StubResponse | None:
        over.wait(120)
        return None

    with RecordingProxy(node_url, gate=wait_until_over) as hanging, RecordingProxy(node_url) as healthy:
        with Cluster(Connection(url=f"{hanging.url},{healthy.url}", timeout_s=2)) as cluster:
            for _ in range(5):
                cluster.client.cluster.health()
        over.set()
        assert (len(hanging.requests), len(healthy.requests)) == (1, 5)


def test_error_names_the_last_dead_node() -> None:
    with RecordingProxy(None) as first, RecordingProxy(None) as second:
        pass
    connection = Connection(url=f"{first.url},{second.url}")
    with Cluster(connection, sleep=lambda _: None) as cluster, expect_error("cluster-unreachable") as caught:
        cluster.call(cluster.client.info, retry=_POLICY)
    assert [url for url in (first.url, second.url) if url.removeprefix("http://") in caught.value.message] != []


def test_retry_after_of_servers_is_respected(node_url: str) -> None:
    waits = list[float]()
    with (
        RecordingProxy(node_url, gate=build_busy_gate("7", times=2)) as proxy,
        Cluster(Connection(url=proxy.url), sleep=waits.append) as cluster,
    ):
        assert cluster.call(cluster.client.info, retry=_POLICY)["version"]["number"] == "3.8.0"
    assert len(waits) == 2
    assert all(7 <= wait <= 7 + _POLICY.backoff_s for wait in waits)


def test_a_date_is_understood_and_a_year_is_not_waited_for() -> None:
    waits = list[float]()
    for delay, max_wait_s in ((timedelta(seconds=20), 20.0), (timedelta(days=365), 60.0)):
        date = format_datetime(datetime.now(UTC) + delay, usegmt=True)
        with RecordingProxy(None, gate=build_busy_gate(date, times=9)) as proxy:
            waits.clear()
            with Cluster(Connection(url=proxy.url), sleep=waits.append) as cluster, expect_error("cluster-unavailable") as caught:
                cluster.call(cluster.client.info, retry=_POLICY)
        assert "429" in caught.value.message
        assert len(waits) == 3
        assert all(max_wait_s - 10 < wait <= max_wait_s + _POLICY.backoff_s for wait in waits)


class _Failed(Exception):
    def __init__(self, retry_after: str | None) -> None:
        self.retry_after = retry_after


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        (" 12 ", 12.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0.0),
        ("-3", None),
        ("soon", None),
        ("١٢", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_respected(value: str | None, seconds: float | None) -> None:
    assert get_retry_after_s(_Failed(value)) == seconds


def test_without_the_header_the_wait_doubles_up_to_its_limit() -> None:
    policy = RetryPolicy(backoff_s=1, max_backoff_s=4)
    for attempt, full in ((1, 1), (2, 2), (3, 4), (9, 4)):
        for wait in (policy.compute_delay_s(attempt), policy.compute_delay_s(attempt, get_retry_after_s(_Failed(None)))):
            assert full / 2 <= wait <= full


def test_rejected_clients_retry_at_different_times() -> None:
    policy = RetryPolicy(backoff_s=1)
    assert len({policy.compute_delay_s(1, 5.0) for _ in range(20)}) > 10


# --- filters of responses ---


def send_search(**arguments: Any) -> str:  # noqa: ANN401  as the client takes them
    """Return the filter that a search with these arguments sends."""

    def respond(_: RecordedRequest) -> StubResponse:
        return StubResponse(status=200, body=json.dumps({"hits": {}}).encode())

    with RecordingProxy(None, gate=respond) as node:
        with Cluster(Connection(url=node.url)) as cluster:
            cluster.client.search(index="photos", body={}, **arguments)
        [filters] = parse_qs(urlsplit(node.requests[-1].target).query)["filter_path"]
    return filters


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ({"params": {"filter_path": "took,hits"}}, "took,hits,error"),
        ({"filter_path": "took,hits"}, "took,hits,error"),
        ({"filter_path": ["took", "hits"]}, "took,hits,error"),
        ({"filter_path": "-took"}, "-took"),
        ({"params": {"filter_path": "-took,-_shards"}}, "-took,-_shards"),
        ({"filter_path": "hits,-hits.total"}, "hits,-hits.total,error"),
    ],
)
def test_response_filter_keeps_failure_reasons(arguments: dict[str, Any], sent: str) -> None:
    assert send_search(**arguments) == sent
