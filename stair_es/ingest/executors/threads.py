"""The executor for this process: a thread pool per stage.

I/O waits, and Pillow and the encoder compute outside the interpreter lock, so threads keep every core busy without copying
between processes.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

from stair_es.cluster.client.cancellation import CANCEL_EVENT
from stair_es.ingest.executors.base import StageExecutor, StageTask
from stair_es.ingest.stages import WorkerConfig, check_batch, encode_batch, prepare_batch, write_batches
from stair_es.ingest.state import Batch
from stair_es.model import registry
from stair_es.model.base import Encoder
from stair_es.store import BulkRequestStats
from stair_es.system.limits import count_usable_cores

CPU_BATCH, GPU_BATCH = 16, 128
_READERS_PER_CORE = 2
"""Reading waits for disks and networks."""


@contextmanager
def open_thread_executor(config: WorkerConfig, batch_images: int = 0, writers: int = 8) -> Iterator[StageExecutor]:
    """Open an executor of thread pools.

    On exit running tasks are waited for, their back-off waits end, and pending tasks are cancelled.

    Args:
        config: Configuration of the workers.
        batch_images: Number of images per batch; 0 to select it for the device.
        writers: Maximum number of bulk requests that the throttle may run in parallel.

    Raises:
        ModelError: If the model can't be loaded.
    """
    executor = _ThreadExecutor(config, batch_images, writers)
    try:
        yield executor
    finally:
        executor.close()


class _ThreadExecutor:
    def __init__(self, config: WorkerConfig, batch_images: int, writers: int) -> None:
        cores = count_usable_cores()
        on_gpu = registry.can_model_use_gpu(config.model)
        self.encoders = 1 if on_gpu else cores
        self.workers = cores * _READERS_PER_CORE
        self.batch_images = batch_images or (GPU_BATCH if on_gpu else CPU_BATCH)
        self._config = config
        self._encoder = registry.load_encoder(replace(config.model, threads=1))
        self._stop = threading.Event()
        self._io_pool = self._create_pool("write", writers + 2)
        self._prepare_pool = self._create_pool("prepare", self.workers)
        self._encode_pool = self._create_pool("encode", self.encoders)

    def _create_pool(self, name: str, threads: int) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=CANCEL_EVENT.set, initargs=(self._stop,))

    def close(self) -> None:
        self._stop.set()
        for pool in (self._prepare_pool, self._encode_pool, self._io_pool):
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in (self._prepare_pool, self._encode_pool, self._io_pool):
            pool.shutdown(wait=True)

    def submit_check(self, batch: Batch) -> StageTask:
        return self._io_pool.submit(check_batch, batch, self._config)

    def submit_prepare(self, batch: Batch) -> StageTask:
        return self._prepare_pool.submit(prepare_batch, batch, self._config)

    def submit_encode(self, prepared: StageTask, encoder: int) -> StageTask:
        return self._encode_pool.submit(_encode_prepared, cast("Future[Batch]", prepared), self._encoder)

    def submit_write(self, encoded: Sequence[StageTask], chunk_bytes: int) -> StageTask:
        return self._io_pool.submit(_write_encoded, cast("Sequence[Future[Batch]]", encoded), self._config, chunk_bytes)

    def wait_any(self, tasks: Collection[StageTask], timeout_s: float | None) -> list[StageTask]:
        done, _ = wait(cast("Collection[Future[Batch]]", tasks), timeout_s, FIRST_COMPLETED)
        return list(done)

    def get_checked(self, task: StageTask) -> Batch:
        return cast("Future[Batch]", task).result()

    def get_written(self, task: StageTask) -> tuple[list[Batch], list[BulkRequestStats]]:
        return cast("Future[tuple[list[Batch], list[BulkRequestStats]]]", task).result()


def _encode_prepared(prepared: Future[Batch], encoder: Encoder) -> Batch:
    return encode_batch(prepared.result(), encoder)


def _write_encoded(
    encoded: Sequence[Future[Batch]], config: WorkerConfig, chunk_bytes: int
) -> tuple[list[Batch], list[BulkRequestStats]]:
    return write_batches([future.result() for future in encoded], config, chunk_bytes)
