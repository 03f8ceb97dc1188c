"""The executor for Ray, on every core and GPU of the cluster.

Checking, preparing and writing are CPU tasks; the encoders are actors that load the model once. Batches stay in Ray's object
store: a prepared batch goes from its worker to the encoder, and this process sees only outcomes. Ray retries a task whose worker
was killed; a document that is written twice is stored once.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from stair_es.errors import IngestError, StairError, UsageError
from stair_es.ingest.executors.base import Stage, StageExecutor, StageTask, WorkerDied
from stair_es.ingest.executors.threads import CPU_BATCH, GPU_BATCH
from stair_es.ingest.stages import WorkerConfig, check_batch, encode_batch, prepare_batch, write_batches
from stair_es.ingest.state import Batch
from stair_es.model import registry
from stair_es.system import ray_session
from stair_es.system.decoder_logs import disable_decoder_logs

logger = logging.getLogger(__name__)
_START_TIMEOUT_S = 120.0
"""How long the encoders may take to start on a shared cluster."""
_RETRIES = 3
"""How often Ray retries a task whose worker died, before the images of its batch are tried one by one."""
_WAITING_CPUS = 0.05
"""CPUs of a task that mostly waits for the cluster."""


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """How to use Ray."""

    address: str | None = None
    """Address of a running cluster; None starts one on this machine for the duration of the run."""
    gpus_per_encoder: float = 1.0
    """A fraction lets several encoders share a GPU; 0 runs them on CPUs."""
    encoders: int = 0
    """Number of encoders; 0 for as many as fit."""


@contextmanager
def start_ray(options: RayOptions) -> Iterator[Any]:
    """Yield the module `ray` in a session that ends with the block, unless there was one before."""
    with ray_session.open_ray_session("ray", options.address, error_type=IngestError, alternative="Use --runner local") as ray:
        yield ray


@contextmanager
def open_ray_executor(config: WorkerConfig, options: RayOptions, batch_images: int = 0) -> Iterator[StageExecutor]:
    """Open an executor of Ray tasks and actors, in a session that ends with it unless the caller already had one.

    Raises:
        UsageError: If the cluster doesn't have the requested GPUs.
    """
    with start_ray(options) as ray:
        executor = _RayExecutor(ray, config, options, batch_images)
        try:
            yield executor
        finally:
            executor.close()


class _RayExecutor:
    def __init__(self, ray: Any, config: WorkerConfig, options: RayOptions, batch_images: int) -> None:  # noqa: ANN401  a module
        self._ray = ray
        is_shared = not ray_session.is_local_address(options.address)
        if is_shared:  # workers of a cluster have their own environment
            config = replace(config, model=replace(config.model, settings=None))
        cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
        gpus = [node["Resources"].get("GPU", 0.0) for node in ray.nodes() if node["Alive"]]
        gpu_slots = count_gpu_encoders(gpus, options.gpus_per_encoder)
        on_gpu = gpu_slots > 0
        self.encoders = options.encoders or gpu_slots or cpus
        if on_gpu and self.encoders > gpu_slots:
            raise UsageError(
                f"{self.encoders} encoders of {options.gpus_per_encoder:g} GPU each don't fit: there is room for {gpu_slots}",
                "Use fewer --encoders, or a smaller --gpus-per-encoder.",
                code="gpus-too-few",
            )
        self.workers = cpus
        self.batch_images = batch_images or (GPU_BATCH if on_gpu else CPU_BATCH)
        # On CPUs the encoders use every core by threads=1, but reserve only half of them: the other stages need CPUs, too.
        resources: dict[str, Any] = (
            {"num_gpus": options.gpus_per_encoder, "num_cpus": 0} if on_gpu else {"num_cpus": 0.5 * cpus / self.encoders}
        )
        # Two batches per GPU: one is stacked or converted to token weights on the CPU while the other one is computed.
        resources |= {"max_restarts": -1, "max_task_retries": _RETRIES, "max_concurrency": 2 if on_gpu else 1}
        actor = ray.remote(**resources)(_RayEncoder)
        self._config = ray.put(config)
        self._actors = [actor.remote(self._config) for _ in range(self.encoders)]
        if is_shared:  # an encoder may wait for resources, and its batches with it
            self._actors = self._wait_for_encoders()
            self.encoders = len(self._actors)
        io_resources, cpu_resources = {"num_cpus": _WAITING_CPUS}, {"num_cpus": 0.9 if on_gpu else 0.25}
        self._stages: dict[Stage, Any] = {
            "check": ray.remote(max_retries=_RETRIES, **io_resources)(check_batch),
            "prepare": ray.remote(max_retries=_RETRIES, **cpu_resources)(_prepare_quietly),
            "write": ray.remote(max_retries=_RETRIES, **io_resources)(write_batches),
        }

    def _wait_for_encoders(self) -> list[Any]:
        """Return the encoders that could start; the others are killed."""
        starting = {actor.ready.remote(): actor for actor in self._actors}
        ready, pending = self._ray.wait(list(starting), num_returns=len(starting), timeout=_START_TIMEOUT_S)
        if not ready:
            logger.warning("no encoder has started yet: waiting for room on the Ray cluster (see `ray status`)")
            while not ready:  # waking now and then lets a Ctrl-C through
                ready, pending = self._ray.wait(list(starting), num_returns=1, timeout=1.0)
        if pending:
            logger.warning(
                "the Ray cluster has no room for %d of %d encoders: continuing without them", len(pending), len(starting)
            )
        for task in pending:
            self._ray.kill(starting[task])
        return [starting[task] for task in ready]

    def close(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)

    def submit(self, stage: Stage, *inputs: object, encoder: int = 0) -> StageTask:
        task: StageTask
        if stage == "encode":
            task = self._actors[encoder].encode.remote(*inputs)
        else:
            task = self._stages[stage].remote(self._config, *inputs)
        return task

    def wait_any(self, tasks: Collection[StageTask], timeout_s: float | None) -> list[StageTask]:
        # waking now and then lets a Ctrl-C through
        done, _ = self._ray.wait(list(tasks), num_returns=1, timeout=1.0 if timeout_s is None else timeout_s, fetch_local=False)
        return list(done)

    def get_result(self, task: StageTask) -> Any:  # noqa: ANN401  that of the stage
        exceptions = self._ray.exceptions
        death_errors = (exceptions.WorkerCrashedError, exceptions.ActorDiedError, exceptions.OutOfMemoryError)
        try:
            return self._ray.get(task)
        except exceptions.RayError as error:
            cause: BaseException | None = error
            while isinstance(cause, exceptions.RayTaskError):
                cause = cause.cause
            if isinstance(cause, StairError):
                raise cause from None
            if getattr(cause, "actor_init_failed", False):  # no image caused it, so none has failed
                raise IngestError(
                    f"an encoder can't start on Ray: {_get_traceback_tail(str(cause))}",
                    "The model must load on each node that gets an encoder: the same stair-es, extras and model files as here.",
                    code="encoder-not-started",
                ) from error
            if isinstance(cause, death_errors):
                raise WorkerDied(str(cause).partition("\n")[0]) from error
            raise IngestError(
                f"Ray failed: {cause or error}", "Run it again: it resumes from there.", code="ray-failed"
            ) from error


def _get_traceback_tail(trace: str) -> str:
    """Return the text below the last frame of a traceback, in one line."""
    lines = trace.strip().splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith(" ")]
    return " ".join(lines[max(frames, default=-1) + 1 :])


def count_gpu_encoders(node_gpus: Sequence[float], gpus_per_encoder: float) -> int:
    """Return how many encoders fit on nodes with these numbers of GPUs; each needs a fraction or a whole number.

    Ray places a fraction on one GPU, so fractions are counted per GPU and node. With 0 GPUs per encoder, 0: they run on CPUs.

    Raises:
        UsageError: If an encoder needs more than one GPU, but not a whole number.
    """
    if gpus_per_encoder <= 0:
        return 0
    if gpus_per_encoder > 1 and gpus_per_encoder != int(gpus_per_encoder):
        raise UsageError(
            f"an encoder can't have {gpus_per_encoder:g} GPUs",
            "Give a fraction of one, or a whole number.",
            code="invalid-gpus-per-encoder",
        )
    if gpus_per_encoder > 1:
        return sum(int(count) // int(gpus_per_encoder) for count in node_gpus)
    return sum(int(count) * int(1 / gpus_per_encoder + 1e-9) for count in node_gpus)


class _RayEncoder:
    """An actor that loads the model once."""

    def __init__(self, config: WorkerConfig) -> None:
        self._encoder = registry.load_encoder(replace(config.model, threads=1))

    def ready(self) -> None:
        """Return once the model is loaded."""

    def encode(self, batch: Batch) -> Batch:
        return encode_batch(self._encoder, batch)


def _prepare_quietly(config: WorkerConfig, batch: Batch) -> Batch:
    disable_decoder_logs()
    return prepare_batch(config, batch)
