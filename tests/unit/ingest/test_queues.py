from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from stair_es.ingest.queues import PrefetchQueue


def _drained(queue: PrefetchQueue[int]) -> list[int]:
    taken: list[int] = []
    while not queue.is_exhausted:
        taken += queue.take(7, wait_s=1.0)
    queue.raise_error()
    return taken


def test_items_keep_their_order() -> None:
    with PrefetchQueue(range(1000), max_items=10) as queue:
        assert _drained(queue) == list(range(1000))


@pytest.mark.parametrize(("max_items", "max_size", "max_queued"), [(5, 1 << 28, 5), (100, 30, 3), (100, 1, 1)])
def test_it_runs_so_far_ahead_and_no_further(max_items: int, max_size: int, max_queued: int) -> None:
    taken_items: list[int] = []

    def items() -> Iterator[int]:
        for i in range(50):
            taken_items.append(i)
            yield i

    with PrefetchQueue(items(), max_items, size_of=lambda _: 10, max_size=max_size) as queue:
        listed, ended = queue.wait_for_items(1000, 60.0)
        assert (listed, ended) == (max_queued, False)
        assert len(taken_items) <= max_queued + 1
        assert _drained(queue) == list(range(50))


def test_only_some_items_count() -> None:
    with PrefetchQueue(range(100), max_items=1000, counts=lambda item: item % 2 == 0) as queue:
        assert queue.wait_for_items(51, 60.0) == (50, True)


def test_errors_follow_earlier_results() -> None:
    def breaking() -> Iterator[int]:
        yield from range(3)
        raise ValueError("broke")

    with PrefetchQueue(breaking(), max_items=10) as queue:
        assert queue.wait_for_items(10, 60.0) == (3, True)
        assert queue.take(10) == [0, 1, 2]
        assert queue.is_exhausted
        with pytest.raises(ValueError, match="broke"):
            queue.raise_error()


def test_waiting_ends_in_time_and_closing_stops_the_thread() -> None:
    go = threading.Event()

    def slow() -> Iterator[int]:
        yield 1
        go.wait(60)
        yield from range(1000)

    with PrefetchQueue(slow(), max_items=10) as queue:
        assert queue.wait_for_items(5, 0.05) == (1, False)
    go.set()
    queue._thread.join(60)
    assert not queue._thread.is_alive()
