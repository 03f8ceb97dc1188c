"""Train with several workers on Ray Train, each with its own GPU if there are any. The only module here that imports Ray.

Each worker runs `train_model` on its share of every batch; the first one writes files. Callback events go to an actor, and from
there to the calling process.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from stair_es.config.settings import Settings
from stair_es.errors import StairError, UsageError
from stair_es.optional import import_optional
from stair_es.system import ray_session
from stair_es.system.decoder_logs import disable_decoder_logs
from stair_es.training.callbacks import NO_CALLBACKS, CallbackEvent, CallbackQueue, Callbacks
from stair_es.training.config.train_config import TrainConfig
from stair_es.training.data.sampler import split_batch
from stair_es.training.train import TrainingResult, train_model
from stair_es.training.workers import RESUME_REMEDY, WORKER_TIMEOUT_S, DistributedWorkers

_POLL_S = 0.5
DEFAULT_MAX_RESTARTS = 3
_RAY_VARIABLES = {"RAY_CHDIR_TO_TRIAL_DIR": "0", "RAY_TRAIN_ENABLE_PRINT_PATCH": "0", "RAY_TRAIN_METRICS_ENABLED": "0"}


def train_on_ray(
    config: TrainConfig,
    out: Path,
    callbacks: Callbacks,
    *,
    workers: int,
    device: str = "auto",
    address: str | None = None,
    max_restarts: int = DEFAULT_MAX_RESTARTS,
    settings: Settings | None = None,
) -> TrainingResult:
    """Train with several workers, or resume the training in `out`; see `train_model`.

    Batches, and so parameters, are the same as with one worker, up to rounding and dropout.

    Args:
        config: Training configuration. `batch.size` is the total of all workers.
        out: Folder of state, logs and checkpoint; all workers must be able to access it, like the training set.
        callbacks: Callbacks.
        workers: Number of workers.
        device: `cuda` gives each worker a GPU, `cpu` none; `auto` uses GPUs if the Ray cluster has any.
        address: Address of a running Ray cluster; None starts one on this machine for the duration of the training.
        max_restarts: Maximum number of restarts from the last saved state after a worker was lost.
        settings: Data folder and trusted models, for workers on this machine; those of a cluster have their own environment.

    Raises:
        MissingExtra: If Ray isn't installed.
        UsageError: If the batch can't be divided among the workers, or the cluster has too few GPUs or cores.
        StairError: If Ray can't be reached, or the training failed.
    """
    split_batch(range(config.batch.size), 0, workers)
    with (
        ray_session.set_missing_variables(_RAY_VARIABLES),
        ray_session.open_ray_session("train", address, error_type=StairError, alternative="Train with one worker") as ray,
        TemporaryDirectory() as storage_path,
    ):
        on_gpu = _should_use_gpus(ray, device, workers)
        events = ray.remote(num_cpus=0)(CallbackQueue).remote()
        worker_config = {
            "config": config,
            "out": out.absolute(),
            "events": events,
            "on_gpu": on_gpu,
            "settings": settings if ray_session.is_local_address(address) else None,
            "max_restarts": max_restarts,
        }
        thread = _FitThread(_build_trainer(worker_config, workers, on_gpu, storage_path))
        try:
            while thread.is_alive():
                thread.join(_POLL_S)  # wakes regularly to handle Ctrl-C
                _forward_events(ray.get(events.drain.remote()), callbacks)
            _forward_events(ray.get(events.drain.remote()), callbacks)
            return _get_result(ray, events, thread.error)
        finally:
            ray.kill(events)


def _get_result(ray: Any, events: Any, error: Exception | None) -> TrainingResult:  # noqa: ANN401
    """Return the result of the training.

    Raises:
        StairError: The error of a worker, or what Ray reports if the workers have left nothing.
    """
    outcome = ray.get(events.get_result.remote())
    if error is not None and not outcome:
        raise _translate_error(ray, error) from error
    result: TrainingResult | StairError = pickle.loads(outcome)
    if isinstance(result, StairError):
        raise result
    return result


def _should_use_gpus(ray: Any, device: str, workers: int) -> bool:  # noqa: ANN401
    """Return whether each worker gets a GPU.

    Raises:
        UsageError: If there are too few GPUs or cores.
    """
    resources = ray.cluster_resources()
    gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    on_gpu = device != "cpu" and (device != "auto" or gpus > 0)
    if on_gpu and workers > gpus:
        raise UsageError(
            f"{workers} workers require {workers} GPUs, but there are {gpus}",
            "Use fewer --workers, or --device cpu.",
            code="gpus-too-few",
        )
    if workers > cores:
        raise UsageError(
            f"{workers} workers require {workers} cores, but there are {cores}", "Use fewer --workers.", code="cores-too-few"
        )
    return on_gpu


def _build_trainer(worker_config: Mapping[str, Any], workers: int, on_gpu: bool, storage_path: str) -> Any:  # noqa: ANN401
    ray_train, ray_torch = import_optional("ray.train", "train"), import_optional("ray.train.torch", "train")
    return ray_torch.TorchTrainer(
        _run_worker,
        train_loop_config=dict(worker_config),
        scaling_config=ray_train.ScalingConfig(num_workers=workers, use_gpu=on_gpu),
        run_config=ray_train.RunConfig(
            name="stair-es",
            storage_path=storage_path,
            failure_config=ray_train.FailureConfig(max_failures=worker_config["max_restarts"]),
        ),
        torch_config=ray_torch.TorchConfig(backend="nccl" if on_gpu else "gloo", timeout_s=WORKER_TIMEOUT_S),
    )


class _FitThread(threading.Thread):
    """Thread that runs `trainer.fit()` while the main thread forwards events. Ray takes over Ctrl-C only in a main thread."""

    def __init__(self, trainer: Any) -> None:  # noqa: ANN401
        super().__init__(daemon=True)
        self.error: Exception | None = None
        self._trainer = trainer
        self.start()

    def run(self) -> None:
        try:
            self._trainer.fit()
        except Exception as error:  # noqa: BLE001  raised again by the waiting thread
            self.error = error


def _forward_events(events: list[CallbackEvent], callbacks: Callbacks) -> None:
    handlers: dict[str, Callable[..., None]] = {
        "message": callbacks.on_message,
        "metrics": callbacks.on_metrics,
        "progress": callbacks.on_progress,
    }
    for name, args in events:
        handlers[name](*args)


def _run_worker(worker_config: Mapping[str, Any]) -> None:
    """Run the training in a worker. A `StairError` would fail again, so it is stored, and after it no worker trains."""
    ray, ray_train = import_optional("ray", "train"), import_optional("ray.train", "train")
    context, events = ray_train.get_context(), worker_config["events"]
    if ray.get(events.get_result.remote()):
        return
    disable_decoder_logs()
    is_first = context.get_world_rank() == 0
    if is_first and (restarts := ray.get(events.count_start.remote())):
        line = f"a worker was lost: restarting from the last saved state ({restarts} of {worker_config['max_restarts']})"
        events.put.remote("message", line)
    try:
        result = _train_share(worker_config, context, is_first)
    except StairError as error:
        ray.get(events.finish.remote(pickle.dumps(error)))
        raise
    if is_first:
        ray.get(events.finish.remote(pickle.dumps(result)))


def _train_share(worker_config: Mapping[str, Any], context: Any, is_first: bool) -> TrainingResult:  # noqa: ANN401
    """Train on the worker's share of the batches. The first worker reports."""
    events = worker_config["events"]
    device = import_optional("ray.train.torch", "train").get_device() if worker_config["on_gpu"] else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    callbacks = Callbacks(
        on_message=lambda line: events.put.remote("message", line),
        on_metrics=lambda metrics: events.put.remote("metrics", metrics),
        on_progress=lambda name, done, total: events.put.remote("progress", name, done, total),
    )
    return train_model(
        worker_config["config"],
        worker_config["out"],
        callbacks if is_first else NO_CALLBACKS,
        workers=DistributedWorkers(),
        device=str(device),
        threads=max(1, (os.cpu_count() or 1) // context.get_local_world_size()),
        settings=worker_config["settings"],
    )


def _translate_error(ray: Any, error: Exception) -> StairError:  # noqa: ANN401
    """Return the first worker's StairError if there is one, else Ray's message in one line."""
    failures = dict(sorted(getattr(error, "worker_failures", {}).items()))
    causes = [_find_cause(failure) for failure in failures.values()]
    stair_errors = [cause for cause in causes if isinstance(cause, StairError)]
    if stair_errors:
        return stair_errors[0]
    lines = str(causes[0] if causes else error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, ray.exceptions.RayError) or not causes:
        return StairError(f"Ray failed: {lines[-1]}", RESUME_REMEDY, code="ray-failed")
    return StairError(f"a worker failed: {type(causes[0]).__name__}: {lines[0]}", RESUME_REMEDY, code="worker-failed")


def _find_cause(error: BaseException) -> BaseException:
    """Return the exception that Ray's exceptions wrap."""
    while (inner := getattr(error, "cause", None) or error.__cause__) is not None and not isinstance(error, StairError):
        error = inner
    return error
