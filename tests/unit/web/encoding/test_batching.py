"""The batcher, with real threads: what runs together and in which order, what is refused, and what leaves the queue."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from functools import wraps
from typing import Any, ParamSpec

import pytest

from stair_es.web.config import BatchLimits
from stair_es.web.encoding import batching
from stair_es.web.encoding.batching import EncodingSpeed, MicroBatcher
from stair_es.web.errors import RequestRejected
from stair_es.web.limits import TooManyRequests

P = ParamSpec("P")
TIMEOUT_S = 30


class Worker:
    """Work that waits in its thread until it is released."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.entered, self.released = threading.Semaphore(0), threading.Semaphore(0)

    def run_batch(self, items: Sequence[str]) -> list[str]:
        self.batches.append(list(items))
        self.entered.release()
        assert self.released.acquire(timeout=TIMEOUT_S)
        if "bad" in items:
            raise ValueError("bad")
        return [item.upper() for item in items]

    async def wait_until_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.acquire, timeout=TIMEOUT_S)


class Clock:
    """The time as a test sets it."""

    now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s


def run_async(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test in an event loop of its own."""

    @wraps(test)
    def run_test(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), TIMEOUT_S))

    return run_test


async def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


@run_async
async def test_what_arrives_during_a_batch_runs_together_by_turns() -> None:
    worker = Worker()
    batcher = MicroBatcher(worker.run_batch, BatchLimits(max_batch=4, max_waiting=100))
    first = [asyncio.create_task(batcher.submit([name])) for name in "ab"]
    await worker.wait_until_entered()
    later = [asyncio.create_task(batcher.submit(names)) for names in (["c", "d", "e"], ["f", "g"], ["h"])]
    await wait_for(lambda: batcher.waiting == 6)
    for _ in range(3):
        worker.released.release()
    assert await asyncio.gather(*first) == [["A"], ["B"]]
    assert await asyncio.gather(*later) == [["C", "D", "E"], ["F", "G"], ["H"]]
    assert worker.batches == [["a", "b"], ["c", "d", "f", "e"], ["h", "g"]]  # every other one of a new request
    assert batcher.waiting == 0


@run_async
async def test_many_small_requests_do_not_stop_a_large_one() -> None:
    worker = Worker()
    batcher = MicroBatcher(worker.run_batch, BatchLimits(max_batch=1))
    large = [asyncio.create_task(batcher.submit([name] * 3)) for name in "abc"]
    for _ in "aabac":
        await worker.wait_until_entered()
        worker.released.release()
    await worker.wait_until_entered()
    small = [asyncio.create_task(batcher.submit([name])) for name in "xyz"]
    await wait_for(lambda: batcher.waiting == 6)
    for _ in range(7):
        worker.released.release()
    await asyncio.gather(*large, *small)
    assert "".join(batch[0] for batch in worker.batches) == "aabacbxcybzc"


@run_async
async def test_several_workers_run_batches_at_once() -> None:
    worker = Worker()
    batcher = MicroBatcher(worker.run_batch, BatchLimits(max_batch=1, max_waiting=100), workers=2)
    task = asyncio.create_task(batcher.submit(["a", "b", "c"]))
    await worker.wait_until_entered()
    await worker.wait_until_entered()  # the first one still holds its thread
    assert sorted(worker.batches) == [["a"], ["b"]]
    assert batcher.waiting == 1
    for _ in range(3):
        worker.released.release()
    assert await task == ["A", "B", "C"]


@run_async
async def test_a_full_queue_rejects_its_largest_request() -> None:
    worker = Worker()
    batcher = MicroBatcher(worker.run_batch, BatchLimits(max_batch=2, max_waiting=4))
    running = asyncio.create_task(batcher.submit(["a"]))
    await worker.wait_until_entered()
    large = asyncio.create_task(batcher.submit(["b"] * 5))
    await wait_for(lambda: batcher.waiting == 5)
    for refused in (["c"] * 5, ["c"] * 9):
        with pytest.raises(TooManyRequests):
            await batcher.submit(refused)
    small = [asyncio.create_task(batcher.submit([name])) for name in "defg"]
    await wait_for(lambda: batcher.waiting == 4)
    with pytest.raises(TooManyRequests):
        await large
    with pytest.raises(TooManyRequests):
        await batcher.submit(["h"])
    for _ in range(3):
        worker.released.release()
    assert [await task for task in (running, *small)] == [["A"], ["D"], ["E"], ["F"], ["G"]]


@run_async
async def test_a_batch_is_filled_by_the_time_that_its_work_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The letter of an item tells how many seconds a unit of its work takes."""
    clock = Clock()
    monkeypatch.setattr(batching, "time", clock)
    batches: list[str] = []

    def encode_slowly(items: Sequence[str]) -> Sequence[str]:
        batches.append(" ".join(items))
        clock.now_s += sum(map(int, "".join(items)))
        return items

    batcher = MicroBatcher(encode_slowly, BatchLimits(max_batch=8, max_batch_s=6), measure_work=len, speed=EncodingSpeed(1))
    await batcher.submit(["1"] * 9)
    await batcher.submit(["11111", "1", "1", "1111111", "1"])
    assert batches == ["1 1 1 1 1 1", "1 1 1", "11111 1", "1", "1111111", "1"]
    batches.clear()
    await batcher.submit(["3"])
    await batcher.submit(["1"] * 9)  # as slow as that one is expected, but the next ones are larger again
    assert batches == ["3", "1 1", "1 1", "1 1", "1 1", "1"]
    batches.clear()
    await batcher.submit(["1"] * 9)
    assert len(batches) < 5


@run_async
async def test_requests_that_would_time_out_are_rejected_at_once() -> None:
    worker = Worker()
    batcher = MicroBatcher(worker.run_batch, BatchLimits(timeout_s=1), measure_work=len, speed=EncodingSpeed(0.1))
    with pytest.raises(RequestRejected) as caught:
        await batcher.submit(["a" * 6, "b" * 5])
    assert caught.value.response.status == 413
    worker.released.release()
    assert await batcher.submit(["a" * 5, "b" * 5]) == ["A" * 5, "B" * 5]
    unknown = MicroBatcher(worker.run_batch, BatchLimits(timeout_s=1), measure_work=len)
    worker.released.release()
    assert await unknown.submit(["a" * 100]) == ["A" * 100]


@run_async
async def test_slow_items_of_one_request_do_not_refuse_another(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(batching, "time", clock)

    def encode_slowly(items: Sequence[str]) -> Sequence[str]:
        clock.now_s += sum(map(int, items))
        return items

    batcher = MicroBatcher(encode_slowly, BatchLimits(max_batch=1, timeout_s=20))
    await batcher.submit(["9"])  # the model is loaded
    await batcher.submit(["1"] * 9)
    await batcher.submit(["9"] * 9)
    assert await batcher.submit(["1"] * 20) == ["1"] * 20
    with pytest.raises(RequestRejected):
        await batcher.submit(["1"] * 21)


@run_async
async def test_a_request_that_is_cancelled_leaves_the_queue() -> None:
    worker = Worker()
    batcher = MicroBatcher(worker.run_batch, BatchLimits(max_batch=8, max_waiting=8))
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


@run_async
async def test_an_error_reaches_each_request_of_its_batch_only() -> None:
    worker = Worker()
    batcher = MicroBatcher(worker.run_batch, BatchLimits(max_batch=3, max_waiting=8))
    failing = [asyncio.create_task(batcher.submit([name])) for name in ("a", "bad", "b")]
    fine = asyncio.create_task(batcher.submit(["c"]))
    for _ in range(2):
        worker.released.release()
    for task in failing:
        with pytest.raises(ValueError, match="bad"):
            await task
    assert await fine == ["C"]


@run_async
async def test_batches_are_recorded_with_their_size_and_waiting_times() -> None:
    recorded: list[tuple[int, int]] = []
    batcher = MicroBatcher[str, str](
        lambda items: list(items),
        BatchLimits(max_batch=2, max_waiting=8),
        record_batch=lambda size, waited_s: recorded.append((size, len(waited_s))),
    )
    assert await batcher.submit(["a", "b", "c"]) == ["a", "b", "c"]
    assert recorded == [(2, 2), (1, 1)]
