"""A training by several workers on Ray Train, each with a GPU where there are some. The only file here that imports ray.

Each worker runs the whole of `run.train` with its share of every batch; the first one writes. What it says goes to an actor, and
from there to this process.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from stair_es import ray_session
from stair_es.errors import StairError, UsageError
from stair_es.extras import need
from stair_es.training.config import TrainConfig
from stair_es.training.ears import DEAF, Ears, Relay, Said
from stair_es.training.run import Trained, train
from stair_es.training.sampler import share
from stair_es.training.workers import Distributed

_POLL_S = 0.5
_SLOWEST_S = 24 * 3600
"""How long a worker waits for another one: Ray notices one that died, so a slow one is only slow."""
_QUIET = {"RAY_CHDIR_TO_TRIAL_DIR": "0", "RAY_TRAIN_ENABLE_PRINT_PATCH": "0", "RAY_TRAIN_METRICS_ENABLED": "0"}


def train_together(
    config: TrainConfig, out: Path, ears: Ears, *, workers: int, device: str = "auto", address: str | None = None
) -> Trained:
    """Train with several workers, or go on with the training in `out`; see `run.train`.

    The same batches as with one worker, so the same parameters but for rounding; the dropout alone is drawn differently.

    Args:
        config: What is trained on what, and how. `batch.size` is that of all workers together.
        out: Folder of state, logs and checkpoint: one that all workers see, as they must see the training set.
        ears: Who is told.
        workers: How many.
        device: `cuda` gives each a GPU, `cpu` none; `auto` takes GPUs if the Ray cluster has any.
        address: A running Ray cluster; None starts one on this machine for the time of the training.

    Raises:
        MissingExtra: Ray isn't installed.
        UsageError: The batch can't be divided, or the cluster has too few GPUs or cores.
        StairError: Ray can't be reached, or the training failed.
    """
    share(range(config.batch.size), 0, workers)
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    with (
        ray_session.session("train", address, error=StairError, instead="Train with one worker") as ray,
        TemporaryDirectory() as kept,
    ):
        on_gpu = _on_gpu(ray, device, workers)
        ear = ray.remote(num_cpus=0)(Relay).remote()
        told = {"config": config, "out": out.absolute(), "ear": ear, "on_gpu": on_gpu}
        fit = _Fit(_trainer(told, workers, on_gpu, kept))
        try:
            while fit.is_alive():
                fit.join(_POLL_S)  # waking now and then lets a Ctrl-C through
                _pass_on(ray.get(ear.said.remote()), ears)
            _pass_on(ray.get(ear.said.remote()), ears)
            if fit.failed is not None:
                raise _translated(ray, fit.failed) from fit.failed
            found: Trained = pickle.loads(ray.get(ear.result.remote()))
        finally:
            ray.kill(ear)
    return found


def _on_gpu(ray: Any, device: str, workers: int) -> bool:  # noqa: ANN401
    """Whether each worker gets a GPU.

    Raises:
        UsageError: There are too few, or too few cores.
    """
    there = ray.cluster_resources()
    gpus, cores = int(there.get("GPU", 0)), int(there.get("CPU", 0))
    on_gpu = device != "cpu" and (device != "auto" or gpus > 0)
    if on_gpu and workers > gpus:
        raise UsageError(f"{workers} workers need {workers} GPUs, there are {gpus}", "Use fewer --workers, or --device cpu.")
    if workers > cores:
        raise UsageError(f"{workers} workers need {workers} cores, there are {cores}", "Use fewer --workers.")
    return on_gpu


def _trainer(told: Mapping[str, Any], workers: int, on_gpu: bool, kept: str) -> Any:  # noqa: ANN401
    ray_train, ray_torch = need("ray.train", "train"), need("ray.train.torch", "train")
    return ray_torch.TorchTrainer(
        _work,
        train_loop_config=dict(told),
        scaling_config=ray_train.ScalingConfig(num_workers=workers, use_gpu=on_gpu),
        run_config=ray_train.RunConfig(name="stair-es", storage_path=kept),
        torch_config=ray_torch.TorchConfig(backend="nccl" if on_gpu else "gloo", timeout_s=_SLOWEST_S),
    )


class _Fit(threading.Thread):
    """`trainer.fit()` beside this thread, which listens meanwhile. Ray takes Ctrl-C over only in a main thread."""

    def __init__(self, trainer: Any) -> None:  # noqa: ANN401
        super().__init__(daemon=True)
        self.failed: Exception | None = None
        self._trainer = trainer
        self.start()

    def run(self) -> None:
        try:
            self._trainer.fit()
        except Exception as error:  # noqa: BLE001  whatever it is: raised by who waits for this thread
            self.failed = error


def _pass_on(said: list[Said], ears: Ears) -> None:
    for what, values in said:
        getattr(ears, what)(*values)


def _work(told: Mapping[str, Any]) -> None:
    """What each worker does."""
    ray, ray_train, ray_torch = need("ray", "train"), need("ray.train", "train"), need("ray.train.torch", "train")
    context, ear = ray_train.get_context(), told["ear"]
    device = ray_torch.get_device() if told["on_gpu"] else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    heard = Ears(
        say=lambda line: ear.hear.remote("say", line),
        tell=lambda moment: ear.hear.remote("tell", moment),
        progress=lambda what, done, total: ear.hear.remote("progress", what, done, total),
    )
    trained = train(
        told["config"],
        told["out"],
        DEAF if context.get_world_rank() else heard,
        workers=Distributed(),
        device=str(device),
        threads=max(1, (os.cpu_count() or 1) // context.get_local_world_size()),
    )
    if context.get_world_rank() == 0:
        ray.get(ear.finish.remote(pickle.dumps(trained)))


def _translated(ray: Any, error: Exception) -> StairError:  # noqa: ANN401
    """The first worker's own error, where it is one of ours; else what Ray says, in a line."""
    failures = dict(sorted(getattr(error, "worker_failures", {}).items()))
    causes = [_cause(each) for each in failures.values()]
    ours = [each for each in causes if isinstance(each, StairError)]
    if ours:
        return ours[0]
    said = str(causes[0] if causes else error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, ray.exceptions.RayError) or not causes:
        return StairError(f"Ray failed: {said[-1]}", _ON)
    return StairError(f"a worker failed: {type(causes[0]).__name__}: {said[0]}", _ON)


def _cause(error: BaseException) -> BaseException:
    """What is below Ray's wrappings."""
    while (inner := getattr(error, "cause", None) or error.__cause__) is not None and not isinstance(error, StairError):
        error = inner
    return error


_ON = "Run it again: it goes on from the last saved state."
