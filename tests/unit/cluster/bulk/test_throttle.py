"""The controller against a small queueing model of a cluster: arithmetic, no clock, no chance."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import pytest

from stair_es.cluster.bulk.throttle import AdaptiveThrottle, BulkPolicy
from stair_es.store import BulkRequestStats

MB = 1024 * 1024
POLICY = BulkPolicy(min_chunk_bytes=MB // 4, max_chunk_bytes=8 * MB, max_concurrency=12)


@dataclass(frozen=True, kw_only=True)
class ThreadPoolModel:
    """`threads` requests are worked on at once, `queue` wait, more are refused."""

    threads: int = 4
    queue: int = 100
    overhead_s: float = 0.02
    bytes_per_s: float = 10 * MB
    comfortable_bytes: float = 100 * MB
    """Larger requests cost more a byte (memory pressure)."""

    def compute_throughput(self, chunk: int, concurrency: int) -> float:
        return concurrency * chunk / self.compute_latency_s(chunk, concurrency)

    def compute_latency_s(self, chunk: int, concurrency: int) -> float:
        excess = max(0.0, chunk / self.comfortable_bytes - 1)
        service_s = self.overhead_s + chunk / self.bytes_per_s * (1 + excess)
        return service_s * max(1.0, concurrency / self.threads)

    def find_best_throughput(self) -> float:
        sizes = [int(MB / 4 * 1.1**i) for i in range(40) if MB / 4 * 1.1**i <= 8 * MB]
        return max(self.compute_throughput(size, c) for size in sizes for c in range(1, 13) if c <= self.threads + self.queue)


def run_requests(
    throttle: AdaptiveThrottle, cluster: ThreadPoolModel, requests: int, max_bytes: int = 1 << 60
) -> list[tuple[int, int]]:
    """Run a closed loop: as many requests in flight as the throttle says; each ends in turn, at the latency of its time."""
    settings = []
    in_flight: deque[BulkRequestStats] = deque()
    for _ in range(requests):
        while len(in_flight) < throttle.concurrency:
            concurrent = len(in_flight) + 1
            chunk = throttle.chunk_bytes
            if chunk > max_bytes:
                in_flight.append(BulkRequestStats(chunk, 100, 0.001, False, too_large=True))
            elif concurrent > cluster.threads + cluster.queue:
                in_flight.append(BulkRequestStats(chunk, 100, 0.005, True))
            else:
                in_flight.append(BulkRequestStats(chunk, 100, cluster.compute_latency_s(chunk, throttle.concurrency), False))
        throttle.record_request(in_flight.popleft())
        settings.append((throttle.chunk_bytes, throttle.concurrency))
    return settings


def compute_share(cluster: ThreadPoolModel, settings: list[tuple[int, int]]) -> float:
    """Mean throughput over these settings, as a share of the best that the cluster gives."""
    return sum(cluster.compute_throughput(*setting) for setting in settings) / len(settings) / cluster.find_best_throughput()


CLUSTERS = [
    ThreadPoolModel(),
    ThreadPoolModel(threads=1),
    ThreadPoolModel(threads=12),
    ThreadPoolModel(overhead_s=0.3),
    ThreadPoolModel(overhead_s=0.001),
    ThreadPoolModel(comfortable_bytes=2 * MB),
    ThreadPoolModel(threads=3, queue=0),
]


@pytest.mark.parametrize("cluster", CLUSTERS, ids=str)
def test_it_converges_to_the_best_throughput_within_its_bounds(cluster: ThreadPoolModel) -> None:
    throttle = AdaptiveThrottle(POLICY)
    first = run_requests(throttle, cluster, 400)
    last = run_requests(throttle, cluster, 400)
    assert compute_share(cluster, last) > 0.8
    for chunk, concurrency in first + last:
        assert MB // 4 <= chunk <= 8 * MB
        assert 1 <= concurrency <= 12


def test_small_bounds_hold_from_the_first_request() -> None:
    policy = BulkPolicy(min_chunk_bytes=1000, max_chunk_bytes=5000, max_concurrency=1)
    throttle = AdaptiveThrottle(policy)
    assert (throttle.chunk_bytes, throttle.concurrency) == (5000, 1)
    assert {setting[1] for setting in run_requests(throttle, ThreadPoolModel(), 200)} == {1}


@pytest.mark.parametrize("step", ["waiting", "under evaluation"])
@pytest.mark.parametrize(("maximum", "low", "high"), [(3, 1, 3), (5, 4, 5), (12, 9, 12)], ids=["below", "at", "above"])
def test_the_maximum_changes_while_requests_run(step: str, maximum: int, low: int, high: int) -> None:
    throttle, cluster = AdaptiveThrottle(replace(POLICY, max_concurrency=5)), ThreadPoolModel(threads=12)
    while throttle.concurrency < 5:
        run_requests(throttle, cluster, 1)
    if step == "waiting":
        run_requests(throttle, cluster, 300)
    throttle.set_max_concurrency(maximum)
    assert throttle.concurrency == min(5, maximum)
    assert max(concurrency for _, concurrency in run_requests(throttle, cluster, 600)) <= maximum
    assert low <= throttle.concurrency <= high


def test_a_larger_request_is_sent_only_where_it_gains() -> None:
    costly, free = AdaptiveThrottle(POLICY), AdaptiveThrottle(POLICY)
    run_requests(costly, ThreadPoolModel(overhead_s=0.3), 400)
    run_requests(free, ThreadPoolModel(overhead_s=0.0), 400)
    assert costly.chunk_bytes > 4 * MB
    assert free.chunk_bytes < 2 * MB


def test_a_busy_cluster_lowers_the_load_until_it_recovers() -> None:
    healthy, slow = ThreadPoolModel(threads=8), ThreadPoolModel(threads=1, queue=0)
    throttle = AdaptiveThrottle(POLICY)
    run_requests(throttle, healthy, 600)
    assert throttle.concurrency >= 6
    busy = run_requests(throttle, slow, 300)
    assert max(concurrency for _, concurrency in busy[40:]) <= 2
    assert sum(concurrency == 1 for _, concurrency in busy[40:]) > 0.6 * len(busy[40:])
    run_requests(throttle, healthy, 800)
    assert compute_share(healthy, run_requests(throttle, healthy, 200)) > 0.8


def test_constant_rejection_lowers_it_to_the_minimum() -> None:
    throttle = AdaptiveThrottle(POLICY)
    run_requests(throttle, ThreadPoolModel(threads=0, queue=0), 100)
    assert (throttle.chunk_bytes, throttle.concurrency) == (MB // 4, 1)


def test_one_request_at_a_time_comes_before_smaller_ones() -> None:
    throttle, busy = AdaptiveThrottle(POLICY), BulkRequestStats(MB, 100, 0.1, True)
    settings = []
    for _ in range(3):  # the second was sent with the first setting
        throttle.record_request(busy)
        settings.append((throttle.chunk_bytes, throttle.concurrency))
    assert settings == [(MB, 1), (MB, 1), (MB // 2, 1)]


def test_one_busy_answer_among_many_costs_little() -> None:
    throttle = AdaptiveThrottle(POLICY)
    run_requests(throttle, ThreadPoolModel(), 400)
    before = throttle.concurrency
    throttle.record_request(BulkRequestStats(MB, 100, 0.1, True))
    assert before * 0.5 <= throttle.concurrency < before


def test_requests_sent_before_a_retreat_are_not_held_against_it() -> None:
    throttle = AdaptiveThrottle(POLICY)
    run_requests(throttle, ThreadPoolModel(threads=12), 600)
    before = throttle.concurrency
    for _ in range(before):
        throttle.record_request(BulkRequestStats(MB, 100, 0.1, True))
    assert throttle.concurrency == int(before * 0.75)


def test_too_large_sizes_are_not_retried() -> None:
    throttle, cluster = AdaptiveThrottle(POLICY), ThreadPoolModel(overhead_s=0.3)
    run_requests(throttle, cluster, 300, max_bytes=3 * MB)
    assert max(chunk for chunk, _ in run_requests(throttle, cluster, 1000, max_bytes=3 * MB)) <= 3 * MB
    assert throttle.chunk_bytes > MB


def test_requests_below_the_chunk_size_do_not_raise_it() -> None:
    throttle = AdaptiveThrottle(POLICY)
    chunk_bytes = throttle.chunk_bytes
    for _ in range(200):
        throttle.record_request(BulkRequestStats(100_000, 10, 0.05, False))
    assert throttle.chunk_bytes == chunk_bytes
