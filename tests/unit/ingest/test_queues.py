from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from stair_es.ingest.queues import PrefetchQueue


def take_all(queue: PrefetchQueue[int]) -> list[int]:
    items: list[int] = []
    while not queue.is_exhausted:
        items += queue.take(7, wait_s=1.0)
    queue.raise_error()
    return items


def test_items_keep_their_order() -> None:
    with PrefetchQueue(range(1000), max_items=10) as queue:
        assert take_all(queue) == list(range(1000))


@pytest.mark.parametrize(("max_items", "max_size", "max_queued"), [(5, 1 << 28, 5), (100, 30, 3), (100, 1, 1)])
def test_prefetch_stops_at_its_limits(max_items: int, max_size: int, max_queued: int) -> None:
    yielded: list[int] = []

    def yield_items() -> Iterator[int]:
        for i in range(50):
            yielded.append(i)
            yield i

    with PrefetchQueue(yield_items(), max_items, size_of=lambda _: 10, max_size=max_size) as queue:
        assert queue.wait_for_items(1000) == max_queued
        assert len(yielded) <= max_queued + 1
        assert take_all(queue) == list(range(50))


def test_items_before_a_pause_can_be_taken() -> None:
    may_end = threading.Event()

    def yield_and_pause() -> Iterator[int]:
        yield from range(3)
        may_end.wait(60)
        yield 3

    with PrefetchQueue(yield_and_pause(), max_items=100) as queue:
        assert queue.wait_for_items(3) == 3
        assert queue.take(100) == [0, 1, 2]
        assert queue.take(100, wait_s=0.01) == []
        assert not queue.is_exhausted
        may_end.set()
        assert take_all(queue) == [3]


def test_errors_follow_earlier_results() -> None:
    def yield_then_fail() -> Iterator[int]:
        yield from range(3)
        raise ValueError("broke")

    with PrefetchQueue(yield_then_fail(), max_items=10) as queue:
        assert queue.wait_for_items(10) == 3
        assert queue.take(10) == [0, 1, 2]
        assert queue.is_exhausted
        with pytest.raises(ValueError, match="broke"):
            queue.raise_error()


def test_closing_stops_the_thread() -> None:
    is_closed = threading.Event()

    def yield_slowly() -> Iterator[int]:
        yield 1
        is_closed.wait(60)
        yield from range(1000)

    with PrefetchQueue(yield_slowly(), max_items=10) as queue:
        assert queue.wait_for_items() == 1
    is_closed.set()
    queue._thread.join(60)
    assert not queue._thread.is_alive()
