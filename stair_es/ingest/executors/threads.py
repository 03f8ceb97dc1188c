"""The executor for this process: a thread pool per stage.

I/O waits, and Pillow and the encoder compute outside the interpreter lock, so threads keep every core busy without copying
between processes.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, TypeAlias, cast

from stair_es.ingest.executors.base import Stage, StageExecutor, StageTask, WorkerDied
from stair_es.ingest.stages import WorkerConfig, check_batch, encode_batch, prepare_batch, write_batches
from stair_es.ingest.state import Batch
from stair_es.model.cuda import count_cuda_devices
from stair_es.model.registry import Model
from stair_es.retry import CANCEL_EVENT
from stair_es.system.decoder_logs import disable_decoder_logs
from stair_es.system.limits import count_usable_cores

CPU_BATCH, GPU_BATCH = 16, 256
DumpFunction: TypeAlias = Callable[[object], bytes]
CALLS_PER_DEVICE = 2
"""While one call computes, the images of the other one are copied to the GPU."""
_READERS_PER_CORE = 2
"""Reading waits for disks and networks."""


@contextmanager
def open_thread_executor(config: WorkerConfig, model: Model, batch_images: int = 0, writers: int = 8) -> Iterator[StageExecutor]:
    """Open an executor of thread pools; `batch_images` of 0 selects the number for the device.

    At most `writers` bulk requests run in parallel. On exit running tasks are waited for, their back-off waits end, and pending
    tasks are cancelled.
    """
    executor = ThreadExecutor(config, model, batch_images, writers, cores=count_usable_cores())
    try:
        yield executor
    finally:
        executor.close()


class ThreadExecutor:
    """The thread pools; see `open_thread_executor`."""

    def __init__(
        self,
        config: WorkerConfig,
        model: Model,
        batch_images: int,
        writers: int,
        *,
        cores: int,
        dump: DumpFunction | None = None,
    ) -> None:
        """Load the model and start the pools for this number of cores.

        With `dump`, each thread that prepares images has a child process for it: an image that kills its decoder, as a broken
        one can, kills no model then. `dump` pickles what the processes exchange.
        """
        devices = count_cuda_devices() if model.can_use_gpu and not (config.is_text or model.spec.device) else 0
        self.encoders = CALLS_PER_DEVICE * devices or (1 if config.is_text else cores)
        self.workers = cores * _READERS_PER_CORE
        self.batch_images = batch_images or (GPU_BATCH if devices else CPU_BATCH)
        # A few texts are one batch, so it must use all cores.
        threads = None if config.is_text else 1
        self.models = [model.load(threads=threads, device=f"cuda:{device}") for device in range(devices)]
        """The encoder of each GPU, or the one of the CPU."""
        self.models = self.models or [model.load(threads=threads)]
        self._stop = threading.Event()
        self._children = _DecoderProcesses(config, dump) if dump else None
        io_pool = self._create_pool("write", writers + 2)
        prepare_pool, encode_pool = self._create_pool("prepare", self.workers), self._create_pool("encode", self.encoders)
        self._pools = (prepare_pool, encode_pool, io_pool)
        self._stages: dict[Stage, tuple[ThreadPoolExecutor, Callable[..., Any]]] = {
            "check": (io_pool, partial(check_batch, config)),
            "prepare": (prepare_pool, self._children.prepare if self._children else partial(prepare_batch, config)),
            "encode": (encode_pool, encode_batch),
            "write": (io_pool, partial(write_batches, config)),
        }

    def _create_pool(self, name: str, threads: int) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=CANCEL_EVENT.set, initargs=(self._stop,))

    def close(self) -> None:
        """Cancel pending tasks, and wait for those that are running."""
        self._stop.set()
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)
        if self._children:
            self._children.close()
        for pool in self._pools:
            pool.shutdown(wait=True)

    def submit(self, stage: Stage, *inputs: object, encoder: int = 0) -> StageTask:
        """Submit a stage as a task; see `StageExecutor`."""
        pool, function = self._stages[stage]
        if stage == "encode":
            function = partial(function, self.models[encoder % len(self.models)])
        return pool.submit(_run_stage, function, inputs)

    def wait_any(self, tasks: Collection[StageTask], timeout_s: float | None) -> list[StageTask]:
        """Wait until a task is done."""
        done, _ = wait(cast("Collection[Future[Any]]", tasks), timeout_s, FIRST_COMPLETED)
        return list(done)

    def get_result(self, task: StageTask) -> Any:  # noqa: ANN401  that of the stage
        """Return the result of a task."""
        return cast("Future[Any]", task).result()


class _DecoderProcesses:
    """A child process for each thread that prepares images. One that dies is replaced."""

    def __init__(self, config: WorkerConfig, dump: DumpFunction) -> None:
        self._config, self._dump = dump(config), dump
        self._local = threading.local()
        self._pools = set[ProcessPoolExecutor]()
        # Forked from a small server that has the modules: a process with a model on a GPU, and with threads, can't be forked.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([prepare_batch.__module__, dump.__module__])

    def prepare(self, batch: Batch) -> Batch:
        """Run `prepare` in the child process of this thread.

        Raises:
            WorkerDied: If the process died.
        """
        pool: ProcessPoolExecutor | None = getattr(self._local, "pool", None)
        if pool is None:
            pool = self._local.pool = ProcessPoolExecutor(1, self._context, _start_child)
            self._pools.add(pool)
        try:
            prepared = pool.submit(_prepare_in_child, self._config, self._dump(batch), self._dump).result()
        except BrokenProcessPool as error:
            self._pools.discard(pool)
            self._local.pool = None
            raise WorkerDied(str(error)) from error
        loaded: Batch = pickle.loads(prepared)
        return loaded

    def close(self) -> None:
        for pool in list(self._pools):
            pool.shutdown(wait=False, cancel_futures=True)


def _start_child() -> None:
    disable_decoder_logs()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent is killed: the queue between them wouldn't tell it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@cache
def _load_config(config: bytes) -> WorkerConfig:
    loaded: WorkerConfig = pickle.loads(config)
    return loaded


def _prepare_in_child(config: bytes, batch: bytes, dump: DumpFunction) -> bytes:
    return dump(prepare_batch(_load_config(config), pickle.loads(batch)))


def _run_stage(function: Callable[..., Any], inputs: Sequence[object]) -> Any:  # noqa: ANN401  that of the stage
    return function(*[value.result() if isinstance(value, Future) else value for value in inputs])
