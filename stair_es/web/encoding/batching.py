"""Micro-batching: what arrives while a batch is being encoded becomes the next one."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from stair_es.web.limits import TooManyRequests

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(eq=False)
class _WaitingItem(Generic[ItemT, ResultT]):
    item: ItemT
    future: asyncio.Future[ResultT]
    since_s: float = field(default_factory=time.perf_counter)


class MicroBatcher(Generic[ItemT, ResultT]):
    """Batches the items of concurrent requests, and runs the batches in worker threads. For one event loop.

    A batch starts as soon as a worker is idle: nothing waits for more to arrive.
    """

    def __init__(
        self,
        run_batch: Callable[[Sequence[ItemT]], Sequence[ResultT]],
        *,
        max_batch: int,
        max_waiting: int,
        workers: int = 1,
        record_batch: Callable[[int, Sequence[float]], None] = lambda size, waited_s: None,
    ) -> None:
        """Create a batcher without items.

        Args:
            run_batch: Returns one result per item. Called in a worker thread.
            max_batch: Maximum number of items in a batch.
            max_waiting: Maximum number of items that wait for a worker.
            workers: Number of worker threads.
            record_batch: Called with the size of a batch, and how long each item has waited.
        """
        self._run_items, self._record_batch = run_batch, record_batch
        self._max_batch, self._max_waiting = max_batch, max_waiting
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="encode")
        self._idle_workers = workers
        self._queue: deque[_WaitingItem[ItemT, ResultT]] = deque()
        self._batches: set[asyncio.Task[None]] = set()
        self._is_scheduled = False

    @property
    def waiting(self) -> int:
        """Number of items that wait for a worker."""
        return len(self._queue)

    async def submit(self, items: Sequence[ItemT]) -> list[ResultT]:
        """Return the results of items. If the caller is cancelled, those that still wait leave the queue.

        Raises:
            TooManyRequests: If other items wait, and these would be too many.
            Exception: What `run_batch` raises.
        """
        if self._queue and len(self._queue) + len(items) > self._max_waiting:
            raise TooManyRequests
        loop = asyncio.get_running_loop()
        added = [_WaitingItem[ItemT, ResultT](item, loop.create_future()) for item in items]
        self._queue.extend(added)
        if not self._is_scheduled:  # in the next iteration: other requests may be ready in this one
            self._is_scheduled = True
            loop.call_soon(self._start_batches)
        try:
            return list(await asyncio.gather(*(waiting.future for waiting in added)))
        except BaseException:
            gone = set(added)
            self._queue = deque(waiting for waiting in self._queue if waiting not in gone)
            for waiting in added:
                waiting.future.cancel()
            raise

    def _start_batches(self) -> None:
        self._is_scheduled = False
        while self._idle_workers and self._queue:
            batch = [self._queue.popleft() for _ in range(min(self._max_batch, len(self._queue)))]
            self._idle_workers -= 1
            task = asyncio.get_running_loop().create_task(self._run_batch(batch))
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)

    async def _run_batch(self, batch: Sequence[_WaitingItem[ItemT, ResultT]]) -> None:
        started_s = time.perf_counter()
        self._record_batch(len(batch), [started_s - waiting.since_s for waiting in batch])
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._executor, self._run_items, [waiting.item for waiting in batch])
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
