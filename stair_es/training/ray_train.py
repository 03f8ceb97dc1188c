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
from stair_es.training.workers import DistributedWorkers

_POLL_S = 0.5
_WORKER_TIMEOUT_S = 24 * 3600
"""Timeout for collective operations. Ray detects dead workers, so a slow worker is only slow."""
_RAY_VARIABLES = {"RAY_CHDIR_TO_TRIAL_DIR": "0", "RAY_TRAIN_ENABLE_PRINT_PATCH": "0", "RAY_TRAIN_METRICS_ENABLED": "0"}


def train_on_ray(
    config: TrainConfig,
    out: Path,
    callbacks: Callbacks,
    *,
    workers: int,
    device: str = "auto",
    address: str | None = None,
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
        }
        thread = _FitThread(_build_trainer(worker_config, workers, on_gpu, storage_path))
        try:
            while thread.is_alive():
                thread.join(_POLL_S)  # wakes regularly to handle Ctrl-C
                _forward_events(ray.get(events.drain.remote()), callbacks)
            _forward_events(ray.get(events.drain.remote()), callbacks)
            if thread.error is not None:
                raise _translate_error(ray, thread.error) from thread.error
            result: TrainingResult = pickle.loads(ray.get(events.get_result.remote()))
        finally:
            ray.kill(events)
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
        run_config=ray_train.RunConfig(name="stair-es", storage_path=storage_path),
        torch_config=ray_torch.TorchConfig(backend="nccl" if on_gpu else "gloo", timeout_s=_WORKER_TIMEOUT_S),
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
    """Run the training in a worker."""
    ray, ray_train, ray_torch = (
        import_optional("ray", "train"),
        import_optional("ray.train", "train"),
        import_optional("ray.train.torch", "train"),
    )
    disable_decoder_logs()
    context, events = ray_train.get_context(), worker_config["events"]
    device = ray_torch.get_device() if worker_config["on_gpu"] else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    callbacks = Callbacks(
        on_message=lambda line: events.put.remote("message", line),
        on_metrics=lambda metrics: events.put.remote("metrics", metrics),
        on_progress=lambda name, done, total: events.put.remote("progress", name, done, total),
    )
    result = train_model(
        worker_config["config"],
        worker_config["out"],
        NO_CALLBACKS if context.get_world_rank() else callbacks,
        workers=DistributedWorkers(),
        device=str(device),
        threads=max(1, (os.cpu_count() or 1) // context.get_local_world_size()),
        settings=worker_config["settings"],
    )
    if context.get_world_rank() == 0:
        ray.get(events.finish.remote(pickle.dumps(result)))


def _translate_error(ray: Any, error: Exception) -> StairError:  # noqa: ANN401
    """Return the first worker's StairError if there is one, else Ray's message in one line."""
    failures = dict(sorted(getattr(error, "worker_failures", {}).items()))
    causes = [_find_cause(failure) for failure in failures.values()]
    stair_errors = [cause for cause in causes if isinstance(cause, StairError)]
    if stair_errors:
        return stair_errors[0]
    lines = str(causes[0] if causes else error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, ray.exceptions.RayError) or not causes:
        return StairError(f"Ray failed: {lines[-1]}", _RESUME_REMEDY, code="ray-failed")
    return StairError(f"a worker failed: {type(causes[0]).__name__}: {lines[0]}", _RESUME_REMEDY, code="worker-failed")


def _find_cause(error: BaseException) -> BaseException:
    """Return the exception that Ray's exceptions wrap."""
    while (inner := getattr(error, "cause", None) or error.__cause__) is not None and not isinstance(error, StairError):
        error = inner
    return error


_RESUME_REMEDY = "Run it again: it resumes from the last saved state."
