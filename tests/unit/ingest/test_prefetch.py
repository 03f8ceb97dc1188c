from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from stair_es.ingest.prefetch import PrefetchQueue


def _drained(ahead: PrefetchQueue[int]) -> list[int]:
    taken: list[int] = []
    while not ahead.is_exhausted:
        taken += ahead.take(7, wait_s=1.0)
    ahead.raise_error()
    return taken


def test_everything_comes_out_in_order() -> None:
    with PrefetchQueue(range(1000), max_items=10) as ahead:
        assert _drained(ahead) == list(range(1000))


@pytest.mark.parametrize(("room", "most_weight", "ahead_at_most"), [(5, 1 << 28, 5), (100, 30, 3), (100, 1, 1)])
def test_it_runs_so_far_ahead_and_no_further(room: int, most_weight: int, ahead_at_most: int) -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(50):
            made.append(i)
            yield i

    with PrefetchQueue(items(), room, size_of=lambda _: 10, max_size=most_weight) as ahead:
        there, over = ahead.wait_for_items(1000, 60.0)
        assert (there, over) == (ahead_at_most, False)
        assert len(made) <= ahead_at_most + 1
        assert _drained(ahead) == list(range(50))


def test_an_error_comes_after_what_was_before_it() -> None:
    def breaking() -> Iterator[int]:
        yield from range(3)
        raise ValueError("broke")

    with PrefetchQueue(breaking(), max_items=10) as ahead:
        assert ahead.wait_for_items(10, 60.0) == (3, True)
        assert ahead.take(10) == [0, 1, 2]
        assert ahead.is_exhausted
        with pytest.raises(ValueError, match="broke"):
            ahead.raise_error()


def test_waiting_ends_with_the_first_item_once_the_time_is_over_and_closing_stops_the_thread() -> None:
    go = threading.Event()

    def slow() -> Iterator[int]:
        yield 1
        go.wait(60)
        yield from range(1000)

    with PrefetchQueue(slow(), max_items=10) as ahead:
        assert ahead.wait_for_items(5, 0.05) == (1, False)
    go.set()
    ahead._thread.join(60)
    assert not ahead._thread.is_alive()
