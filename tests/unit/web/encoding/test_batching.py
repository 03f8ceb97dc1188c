"""The batcher, with real threads: what runs together, what is refused, and what leaves the queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from stair_es.web.encoding.batching import MicroBatcher
from stair_es.web.limits import TooManyRequests

TIMEOUT_S = 30


class Worker:
    """Work that waits in its thread until it is released."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.entered, self.released = threading.Semaphore(0), threading.Semaphore(0)

    def run(self, items: Sequence[str]) -> list[str]:
        self.batches.append(list(items))
        self.entered.release()
        assert self.released.acquire(timeout=TIMEOUT_S)
        if "bad" in items:
            raise ValueError("bad")
        return [item.upper() for item in items]

    async def wait_until_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=TIMEOUT_S)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), TIMEOUT_S))


async def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def test_what_arrives_together_or_during_a_batch_runs_together_in_order() -> None:
    async def test() -> None:
        worker = Worker()
        batcher = MicroBatcher(worker.run, max_batch=4, max_waiting=100)
        first = [asyncio.create_task(batcher.submit([name])) for name in "ab"]
        await worker.wait_until_entered()
        later = [asyncio.create_task(batcher.submit(names)) for names in (["c", "d", "e"], ["f", "g"], ["h"])]
        await wait_for(lambda: batcher.waiting == 6)
        for _ in range(3):
            worker.released.release()
        assert await asyncio.gather(*first) == [["A"], ["B"]]
        assert await asyncio.gather(*later) == [["C", "D", "E"], ["F", "G"], ["H"]]
        assert worker.batches == [["a", "b"], ["c", "d", "e", "f"], ["g", "h"]]
        assert batcher.waiting == 0

    run(test)


def test_several_workers_run_batches_at_once() -> None:
    async def test() -> None:
        worker = Worker()
        batcher = MicroBatcher(worker.run, max_batch=1, max_waiting=100, workers=2)
        task = asyncio.create_task(batcher.submit(["a", "b", "c"]))
        await worker.wait_until_entered()
        await worker.wait_until_entered()  # the first one still holds its thread
        assert sorted(worker.batches) == [["a"], ["b"]]
        assert batcher.waiting == 1
        for _ in range(3):
            worker.released.release()
        assert await task == ["A", "B", "C"]

    run(test)


def test_a_full_queue_refuses_requests_but_an_empty_one_takes_any() -> None:
    async def test() -> None:
        worker = Worker()
        batcher = MicroBatcher(worker.run, max_batch=2, max_waiting=3)
        running = asyncio.create_task(batcher.submit(["a"]))
        await worker.wait_until_entered()
        large = asyncio.create_task(batcher.submit(["b", "c", "d", "e"]))
        await wait_for(lambda: batcher.waiting == 4)
        with pytest.raises(TooManyRequests):
            await batcher.submit(["f"])
        for _ in range(3):
            worker.released.release()
        assert await running + await large == ["A", "B", "C", "D", "E"]

    run(test)


def test_a_request_that_is_cancelled_leaves_the_queue() -> None:
    async def test() -> None:
        worker = Worker()
        batcher = MicroBatcher(worker.run, max_batch=8, max_waiting=8)
        running = asyncio.create_task(batcher.submit(["a"]))
        await worker.wait_until_entered()
        gone, stays = asyncio.create_task(batcher.submit(["b", "c"])), asyncio.create_task(batcher.submit(["d"]))
        await wait_for(lambda: batcher.waiting == 3)
        gone.cancel()
        running.cancel()  # its batch runs on
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert batcher.waiting == 1
        worker.released.release()
        worker.released.release()
        assert await stays == ["D"]
        assert worker.batches == [["a"], ["d"]]

    run(test)


def test_an_error_reaches_each_request_of_the_batch_and_the_next_batch_runs() -> None:
    async def test() -> None:
        worker = Worker()
        batcher = MicroBatcher(worker.run, max_batch=3, max_waiting=8)
        failing = [asyncio.create_task(batcher.submit(names)) for names in (["a", "bad"], ["b"])]
        fine = asyncio.create_task(batcher.submit(["c"]))
        for _ in range(2):
            worker.released.release()
        for task in failing:
            with pytest.raises(ValueError, match="bad"):
                await task
        assert await fine == ["C"]

    run(test)


def test_batches_are_recorded_with_their_size_and_waiting_times() -> None:
    recorded: list[tuple[int, int]] = []

    async def test() -> None:
        batcher = MicroBatcher[str, str](
            lambda items: list(items),
            max_batch=2,
            max_waiting=8,
            record_batch=lambda size, waited_s: recorded.append((size, len(waited_s))),
        )
        assert await batcher.submit(["a", "b", "c"]) == ["a", "b", "c"]

    run(test)
    assert recorded == [(2, 2), (1, 1)]
