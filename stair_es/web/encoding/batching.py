"""Micro-batching: what arrives while a batch is being encoded waits for the next ones, in which requests take turns."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from stair_es.web.config import BatchLimits
from stair_es.web.errors import RequestRejected
from stair_es.web.limits import TooManyRequests

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

_SLOWNESS_DECAY = 0.9
"""A slow batch makes the following ones small. Each of them that is faster lets the next one be larger."""
_EVICTION_FACTOR = 4
"""A full queue gives way to a request that is at least so many times smaller than the largest one that waits."""
_WARMUP_BATCHES = 4
"""Number of batches that don't tell how long a request takes: they may load the model."""


class EncodingSpeed:
    """How long a unit of work takes, in seconds, as batches show it. Can be shared by batchers of one event loop."""

    def __init__(self, unit_s: float | None = None) -> None:
        """Create an estimate; `unit_s` is a measured time, None if the first batches tell."""
        self.slowest_unit_s = unit_s or 0.0
        """For the size of batches: that of the slowest one lately."""
        self._fastest_unit_s = unit_s or math.inf
        self._warmup_batches = 0 if unit_s else _WARMUP_BATCHES

    def learn(self, work: float, seconds: float) -> None:
        """Learn from a batch."""
        unit_s = seconds / work
        self.slowest_unit_s = max(unit_s, self.slowest_unit_s * _SLOWNESS_DECAY)
        if self._warmup_batches > 0:
            self._warmup_batches -= 1
        else:
            self._fastest_unit_s = min(unit_s, self._fastest_unit_s)

    def estimate_least_s(self, work: float) -> float:
        """Estimate how long some work takes at least, by the fastest batch: slow inputs of others must not refuse a request."""
        return work * self._fastest_unit_s if self._fastest_unit_s < math.inf else 0.0


@dataclass(eq=False)
class _WaitingItem(Generic[ItemT, ResultT]):
    item: ItemT
    future: asyncio.Future[ResultT]
    since_s: float = field(default_factory=time.perf_counter)


class MicroBatcher(Generic[ItemT, ResultT]):
    """Batches the items of concurrent requests, and runs the batches in worker threads. For one event loop.

    A batch starts as soon as a worker is idle: nothing waits for more to arrive. Requests take turns, one item each, and every
    other turn is that of a new request, so that a small one never waits for large ones. A batch has as many items as fit into
    `max_batch_s`, by their work and the speed of the batches before.
    """

    def __init__(
        self,
        run_batch: Callable[[Sequence[ItemT]], Sequence[ResultT]],
        limits: BatchLimits,
        *,
        measure_work: Callable[[ItemT], float] = lambda item: 1.0,
        workers: int = 1,
        speed: EncodingSpeed | None = None,
        record_batch: Callable[[int, Sequence[float]], None] = lambda size, waited_s: None,
    ) -> None:
        """Create a batcher without items.

        `run_batch` returns one result per item; it is called in one of `workers` threads. `measure_work` returns the work of an
        item, in any unit, and `speed` is shared with other batchers. `record_batch` gets the size of a batch, and how long each
        item has waited.
        """
        self._run_items, self._measure_work, self._record_batch = run_batch, measure_work, record_batch
        self._limits = limits
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="encode")
        self._workers = self._idle_workers = workers
        self._new_requests: deque[deque[_WaitingItem[ItemT, ResultT]]] = deque()
        """The waiting items of each request that hasn't had its first turn."""
        self._begun_requests: deque[deque[_WaitingItem[ItemT, ResultT]]] = deque()
        """Those of the others, in the order of their turns."""
        self._is_turn_of_new = True
        self._batches: set[asyncio.Task[None]] = set()
        self._is_scheduled = False
        self._speed = speed or EncodingSpeed()

    @property
    def waiting(self) -> int:
        """Number of items that wait for a worker."""
        return sum(map(len, self._list_requests()))

    async def submit(self, items: Sequence[ItemT]) -> list[ResultT]:
        """Return the results of items. If the caller is cancelled, those that still wait leave the queue.

        Raises:
            RequestRejected: If the items can't be done in the time limit, even if nothing else is.
            TooManyRequests: If too many items wait, and no other request has far more of them.
            Exception: What `run_batch` raises.
        """
        self._check_duration(items)
        self._make_room(len(items))
        loop = asyncio.get_running_loop()
        added = [_WaitingItem[ItemT, ResultT](item, loop.create_future()) for item in items]
        request = deque(added)
        self._new_requests.append(request)
        if not self._is_scheduled:  # in the next iteration: other requests may be ready in this one
            self._is_scheduled = True
            loop.call_soon(self._start_batches)
        try:
            return list(await asyncio.gather(*(waiting.future for waiting in added)))
        finally:
            request.clear()  # if it was cancelled, or failed
            for waiting in added:
                waiting.future.cancel()

    def _check_duration(self, items: Sequence[ItemT]) -> None:
        needed_s = self._speed.estimate_least_s(sum(map(self._measure_work, items))) / self._workers
        if needed_s > self._limits.timeout_s:
            raise RequestRejected(
                413,
                f"the request would take about {needed_s:.1f} s; at most {self._limits.timeout_s:g} s are allowed",
                "Send fewer or shorter inputs at once.",
                code="request-too-long",
            )

    def _make_room(self, count: int) -> None:
        """Make room for `count` items: as long as there is none, the request with by far the most waiting items is refused."""
        while self.waiting and self.waiting + count > self._limits.max_waiting:
            largest = max(self._list_requests(), key=len)
            if len(largest) <= _EVICTION_FACTOR * count:
                raise TooManyRequests
            while largest:
                waiting = largest.popleft()
                if not waiting.future.done():
                    waiting.future.set_exception(TooManyRequests())

    def _list_requests(self) -> list[deque[_WaitingItem[ItemT, ResultT]]]:
        return [*self._new_requests, *self._begun_requests]

    def _start_batches(self) -> None:
        self._is_scheduled = False
        while self._idle_workers and (batch := self._take_batch()):
            self._idle_workers -= 1
            task = asyncio.get_running_loop().create_task(self._run_batch(batch))
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)

    def _take_batch(self) -> list[_WaitingItem[ItemT, ResultT]]:
        """Take the items of the next batch from the queue, one of each request in turn."""
        batch: list[_WaitingItem[ItemT, ResultT]] = []
        left_s = self._limits.max_batch_s
        while len(batch) < self._limits.max_batch and (queue := self._find_next_queue()):
            request = queue[0]
            left_s -= self._measure_work(request[0].item) * self._speed.slowest_unit_s
            if batch and left_s < 0:
                break
            batch.append(request.popleft())
            queue.popleft()
            self._begun_requests.append(request)
            self._is_turn_of_new = queue is self._begun_requests
        return batch

    def _find_next_queue(self) -> deque[deque[_WaitingItem[ItemT, ResultT]]]:
        """Find the queue whose first request has the next turn: new ones and those that have begun alternate."""
        for queue in (self._new_requests, self._begun_requests):
            while queue and not queue[0]:
                queue.popleft()
        first, second = self._new_requests, self._begun_requests
        return (first or second) if self._is_turn_of_new else (second or first)

    async def _run_batch(self, batch: Sequence[_WaitingItem[ItemT, ResultT]]) -> None:
        started_s = time.perf_counter()
        self._record_batch(len(batch), [started_s - waiting.since_s for waiting in batch])
        items = [waiting.item for waiting in batch]
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._executor, self._run_items, items)
            self._speed.learn(sum(map(self._measure_work, items)), time.perf_counter() - started_s)
            for waiting, result in zip(batch, results, strict=True):
                if not waiting.future.done():
                    waiting.future.set_result(result)
        except Exception as error:  # noqa: BLE001  whatever it is, the requests get it
            for waiting in batch:
                if not waiting.future.done():
                    waiting.future.set_exception(error)
        finally:
            self._idle_workers += 1
            self._start_batches()
