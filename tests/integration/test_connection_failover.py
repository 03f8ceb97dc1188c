"""Failover between nodes that die or hang, and Retry-After."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from support.servers.recording_proxy import RecordedRequest, RecordingProxy, StubResponse

from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.client.retry import get_retry_after_s
from stair_es.errors import ClusterError, ClusterUnreachable
from stair_es.retry import RetryPolicy

_POLICY = RetryPolicy(attempts=4, backoff_s=0.001)


def _busy(retry_after: str, times: int = 1) -> Callable[[RecordedRequest], StubResponse | None]:
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

    def hang(_: RecordedRequest) -> StubResponse | None:
        over.wait(120)
        return None

    with RecordingProxy(node_url, gate=hang) as hanging, RecordingProxy(node_url) as healthy:
        with Cluster(Connection(url=f"{hanging.url},{healthy.url}", timeout_s=2)) as cluster:
            for _ in range(5):
                cluster.client.cluster.health()
        over.set()
        assert (len(hanging.requests), len(healthy.requests)) == (1, 5)


def test_error_names_the_last_dead_node() -> None:
    with RecordingProxy(None) as first, RecordingProxy(None) as second:
        pass
    connection = Connection(url=f"{first.url},{second.url}")
    with Cluster(connection, sleep=lambda _: None) as cluster, pytest.raises(ClusterUnreachable, match=r"localhost:\d+"):
        cluster.call(cluster.client.info, retry=_POLICY)


def test_retry_after_of_servers_is_respected(node_url: str) -> None:
    waits = list[float]()
    with (
        RecordingProxy(node_url, gate=_busy("7", times=2)) as proxy,
        Cluster(Connection(url=proxy.url), sleep=waits.append) as cluster,
    ):
        assert cluster.call(cluster.client.info, retry=_POLICY)["version"]["number"] == "3.8.0"
    assert len(waits) == 2
    assert all(7 <= wait <= 7 + _POLICY.backoff_s for wait in waits)


def test_a_date_is_understood_and_a_year_is_not_waited_for() -> None:
    waits = list[float]()
    for asked, most in ((timedelta(seconds=20), 20.0), (timedelta(days=365), 60.0)):
        date = format_datetime(datetime.now(timezone.utc) + asked, usegmt=True)
        with RecordingProxy(None, gate=_busy(date, times=9)) as proxy:
            waits.clear()
            with Cluster(Connection(url=proxy.url), sleep=waits.append) as cluster, pytest.raises(ClusterError, match="429"):
                cluster.call(cluster.client.info, retry=_POLICY)
        assert len(waits) == 3
        assert all(most - 10 < wait <= most + _POLICY.backoff_s for wait in waits)


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
        for wait in (
            policy.compute_delay_s(attempt),
            policy.compute_delay_s(attempt, get_retry_after_s(_Failed(None))),
        ):
            assert full / 2 <= wait <= full


def test_rejected_clients_retry_at_different_times() -> None:
    policy = RetryPolicy(backoff_s=1)
    assert len({policy.compute_delay_s(1, 5.0) for _ in range(20)}) > 10
