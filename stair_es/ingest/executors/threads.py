"""The executor for this process: a thread pool per stage.

I/O waits, and Pillow and the encoder compute outside the interpreter lock, so threads keep every core busy without copying
between processes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from stair_es.ingest.executors.base import Stage, StageExecutor, StageTask
from stair_es.ingest.stages import WorkerConfig, check_batch, encode_batch, prepare_batch, write_batches
from stair_es.model.registry import Model
from stair_es.retry import CANCEL_EVENT
from stair_es.system.limits import count_usable_cores

CPU_BATCH, GPU_BATCH = 16, 128
_READERS_PER_CORE = 2
"""Reading waits for disks and networks."""


@contextmanager
def open_thread_executor(config: WorkerConfig, model: Model, batch_images: int = 0, writers: int = 8) -> Iterator[StageExecutor]:
    """Open an executor of thread pools; `batch_images` of 0 selects the number for the device.

    At most `writers` bulk requests run in parallel. On exit running tasks are waited for, their back-off waits end, and pending
    tasks are cancelled.
    """
    executor = _ThreadExecutor(config, model, batch_images, writers)
    try:
        yield executor
    finally:
        executor.close()


class _ThreadExecutor:
    def __init__(self, config: WorkerConfig, model: Model, batch_images: int, writers: int) -> None:
        cores = count_usable_cores()
        on_gpu = model.can_use_gpu
        self.encoders = 1 if on_gpu or config.is_text else cores
        self.workers = cores * _READERS_PER_CORE
        self.batch_images = batch_images or (GPU_BATCH if on_gpu else CPU_BATCH)
        # A few texts are one batch, so it must use all cores.
        encoder = model.load() if config.is_text else model.load(threads=1)
        self._stop = threading.Event()
        io_pool = self._create_pool("write", writers + 2)
        prepare_pool, encode_pool = self._create_pool("prepare", self.workers), self._create_pool("encode", self.encoders)
        self._pools = (prepare_pool, encode_pool, io_pool)
        self._stages: dict[Stage, tuple[ThreadPoolExecutor, Callable[..., Any]]] = {
            "check": (io_pool, partial(check_batch, config)),
            "prepare": (prepare_pool, partial(prepare_batch, config)),
            "encode": (encode_pool, partial(encode_batch, encoder)),
            "write": (io_pool, partial(write_batches, config)),
        }

    def _create_pool(self, name: str, threads: int) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=CANCEL_EVENT.set, initargs=(self._stop,))

    def close(self) -> None:
        self._stop.set()
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in self._pools:
            pool.shutdown(wait=True)

    def submit(self, stage: Stage, *inputs: object, encoder: int = 0) -> StageTask:
        pool, function = self._stages[stage]
        return pool.submit(_run_stage, function, inputs)

    def wait_any(self, tasks: Collection[StageTask], timeout_s: float | None) -> list[StageTask]:
        done, _ = wait(cast("Collection[Future[Any]]", tasks), timeout_s, FIRST_COMPLETED)
        return list(done)

    def get_result(self, task: StageTask) -> Any:  # noqa: ANN401  that of the stage
        return cast("Future[Any]", task).result()


def _run_stage(function: Callable[..., Any], inputs: Sequence[object]) -> Any:  # noqa: ANN401  that of the stage
    return function(*[value.result() if isinstance(value, Future) else value for value in inputs])
