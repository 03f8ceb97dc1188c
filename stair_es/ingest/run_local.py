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

from stair_es.cluster.bulk import Sent
from stair_es.cluster.stop import STOP
from stair_es.cores import usable_cores
from stair_es.ingest.batch import Batch
from stair_es.ingest.lanes import Lanes, Task
from stair_es.ingest.stages import Job, check_batch, encode_batch, prepare_batch, write_batches
from stair_es.model import catalogue
from stair_es.model.encoder import Encoder

CPU_BATCH, GPU_BATCH = 16, 128
_READERS_PER_CORE = 2
"""Reading waits for disks and networks."""


@contextmanager
def local_lanes(job: Job, batch_images: int = 0, writers: int = 8) -> Iterator[Lanes]:
    """Open an executor of thread pools.

    On exit running tasks are waited for, their back-off waits end, and pending tasks are cancelled.

    Args:
        job: Configuration of the workers.
        batch_images: Number of images per batch; 0 to select it for the device.
        writers: Maximum number of bulk requests that the throttle may run in parallel.

    Raises:
        ModelError: If the model can't be loaded.
    """
    lanes = _LocalLanes(job, batch_images, writers)
    try:
        yield lanes
    finally:
        lanes.close()


class _LocalLanes:
    def __init__(self, job: Job, batch_images: int, writers: int) -> None:
        cores = usable_cores()
        on_gpu = catalogue.uses_gpu(job.model)
        self.encoders = 1 if on_gpu else cores
        self.workers = cores * _READERS_PER_CORE
        self.batch_images = batch_images or (GPU_BATCH if on_gpu else CPU_BATCH)
        self._job = job
        self._encoder = catalogue.load(replace(job.model, threads=1))
        self._stop = threading.Event()
        self._waiting = self._pool("write", writers + 2)
        self._preparing = self._pool("prepare", self.workers)
        self._encoding = self._pool("encode", self.encoders)

    def _pool(self, name: str, threads: int) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=STOP.set, initargs=(self._stop,))

    def close(self) -> None:
        self._stop.set()
        for pool in (self._preparing, self._encoding, self._waiting):
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in (self._preparing, self._encoding, self._waiting):
            pool.shutdown(wait=True)

    def check(self, batch: Batch) -> Task:
        return self._waiting.submit(check_batch, batch, self._job)

    def prepare(self, batch: Batch) -> Task:
        return self._preparing.submit(prepare_batch, batch, self._job)

    def encode(self, prepared: Task, encoder: int) -> Task:
        return self._encoding.submit(_encode, cast("Future[Batch]", prepared), self._encoder)

    def write(self, encoded: Sequence[Task], chunk_bytes: int) -> Task:
        return self._waiting.submit(_write, cast("Sequence[Future[Batch]]", encoded), self._job, chunk_bytes)

    def wait(self, tasks: Collection[Task], timeout_s: float | None) -> list[Task]:
        done, _ = wait(cast("Collection[Future[Batch]]", tasks), timeout_s, FIRST_COMPLETED)
        return list(done)

    def checked(self, task: Task) -> Batch:
        return cast("Future[Batch]", task).result()

    def written(self, task: Task) -> tuple[list[Batch], list[Sent]]:
        return cast("Future[tuple[list[Batch], list[Sent]]]", task).result()


def _encode(prepared: Future[Batch], encoder: Encoder) -> Batch:
    return encode_batch(prepared.result(), encoder)


def _write(encoded: Sequence[Future[Batch]], job: Job, chunk_bytes: int) -> tuple[list[Batch], list[Sent]]:
    return write_batches([future.result() for future in encoded], job, chunk_bytes)
