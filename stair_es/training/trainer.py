"""The trainer: runs the stages, validates and saves the training state. The only files it touches are the state and the logs."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stair_es.errors import StairError, UsageError
from stair_es.model.cuda import make_autocast
from stair_es.model.stair.modeling import StairModel
from stair_es.training import checkpointing
from stair_es.training.callbacks import Callbacks, StepMetrics
from stair_es.training.checkpointing import TrainingProgress
from stair_es.training.config.schema import TrainingStage
from stair_es.training.config.toml import parse_training_toml
from stair_es.training.config.train_config import TrainConfig
from stair_es.training.data.batches import BatchSource
from stair_es.training.metric_loggers import LoggedRun, MetricLog, flatten_values
from stair_es.training.optimizers import build_optimizer, compute_lr_factor
from stair_es.training.step import EMA, DeviceBatch, GradCacheStep, set_train_mode
from stair_es.training.validation import ValidationSet, compute_selection_metric, has_enough_images
from stair_es.training.workers import WorkerGroup

_SEEDS_PER_BATCH = 1009
"""Upper bound on the chunks of a batch: the dropout seeds of a batch are consecutive."""


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """A training, ready to run."""

    config: TrainConfig
    model: StairModel
    batches: BatchSource
    validations: Sequence[ValidationSet]
    workers: WorkerGroup
    out: Path
    key: str
    """Hash of configuration and data."""
    callbacks: Callbacks
    on_saved: Callable[[], None] = lambda: None
    """Called after each saved state."""

    def run(self) -> TrainingProgress:
        """Train to the end, resuming from the saved state if there is one, and leave the selected parameters in the model.

        Returns:
            The final progress.

        Raises:
            StairError: If the loss isn't finite, or the state in `out` belongs to another training.
        """
        average = EMA(self.model, self.config.optim.ema)
        state = checkpointing.load_training_state(self.out, self.key)
        progress = checkpointing.restore_training_state(state, self.model, average) if state else TrainingProgress()
        self._sync_workers(progress)
        if state and not self.batches.restore_state(progress.readers):
            self.callbacks.on_message("the number of workers has changed: the shards begin a new epoch")
        logs = self._open_logs(progress.global_step) if self._is_first else None
        try:
            while progress.stage < len(self.config.stages) and not progress.stopped_early:
                _StageRun(self, progress, average, logs, state).run()
                state = None
        finally:
            if logs:
                logs.close()
        self._restore_best(progress, average)
        return progress

    def run_validation(self, progress: TrainingProgress, average: EMA, logs: MetricLog | None, stage: TrainingStage) -> None:
        """Validate, log the metrics, and remember the best parameters.

        Args:
            progress: Training progress, which is updated.
            average: Moving average of the parameters, used for validation.
            logs: Metric logger; None on all workers but the first.
            stage: Current stage.
        """
        if not self.validations:
            return
        with average.apply_to(self.model):
            metrics = {
                dataset.name: dataset.compute_metrics(self.model, self.make_autocast(), self.workers)
                for dataset in self.validations
            }
            recall = self._broadcast_value(compute_selection_metric(metrics))
            can_choose = has_enough_images(self.validations)
            improved = recall > progress.best_recall or not can_choose
            if improved and can_choose and self.config.validation.keep == "best":
                progress.best_parameters = {
                    name: tensor.clone() for name, tensor in checkpointing.get_trained_tensors(self.model).items()
                }
        progress.validations_since_best = 0 if improved else progress.validations_since_best + 1
        if improved:
            progress.best_recall, progress.best_step = recall, progress.global_step
        if improved or self.config.validation.keep == "last":
            progress.kept_metrics = metrics
        progress.stopped_early = (
            bool(self.config.validation.patience) and progress.validations_since_best >= self.config.validation.patience
        )
        if logs:
            for name, values in metrics.items():
                logs.log_metrics(progress.global_step, stage.name, name, values)
            flat = {f"{name}/{key}": value for name, values in metrics.items() for key, value in values.items()}
            self.callbacks.on_metrics(StepMetrics(stage.name, progress.global_step, self.steps, flat))

    def iterate_batches(self, global_step: int) -> Iterator[DeviceBatch]:
        """Yield the batches of this worker from a step on, on the device of the model."""
        return (batch.to(self.device) for batch in self.batches.iterate_batches(global_step * self.config.batch.accumulate))

    def make_autocast(self) -> AbstractContextManager[Any]:
        """Return an autocast context for the configured precision."""
        return make_autocast(self.device.type, self.config.optim.precision)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.model.log_scale.device

    @property
    def steps(self) -> int:
        """Total steps of all stages."""
        return sum(stage.steps for stage in self.config.stages)

    @property
    def _is_first(self) -> bool:
        return self.workers.rank == 0

    def _sync_workers(self, progress: TrainingProgress) -> None:
        """Check that all workers start at the same step, and give them the same parameters.

        Raises:
            UsageError: If they read different states.
        """
        steps = self.workers.gather_rows(torch.tensor([progress.global_step])).tolist()
        if len(set(steps)) > 1:
            raise UsageError(
                f"the workers found different states in {self.out}: of steps {', '.join(map(str, sorted(set(steps))))}",
                "--out must be a folder that all of them share.",
                code="states-differ",
            )
        for tensor in self.model.state_dict().values():
            self.workers.broadcast_first(tensor)

    def _open_logs(self, step: int) -> MetricLog:
        config = self.config
        parameters = dict(flatten_values(parse_training_toml(config.text, "the configuration")))
        run = LoggedRun(
            folder=self.out, project=config.log.project, name=config.log.run or config.name, step=step, parameters=parameters
        )
        return MetricLog(config.log, run, self.callbacks.on_message)

    def _broadcast_value(self, value: float) -> float:
        """Return the first worker's value. With one that differs in the last digit a worker could stop at another step."""
        tensor = torch.tensor([value], dtype=torch.float64)
        self.workers.broadcast_first(tensor)
        return float(tensor)

    def _restore_best(self, progress: TrainingProgress, average: EMA) -> None:
        """Load the parameters of the checkpoint into the model."""
        self.model.load_state_dict(progress.best_parameters or average.shadow, strict=False)
        self.model.eval()


class _StageRun:
    """A running stage."""

    def __init__(
        self, trainer: Trainer, progress: TrainingProgress, average: EMA, logs: MetricLog | None, state: dict[str, Any] | None
    ) -> None:
        optim, self._stage = trainer.config.optim, trainer.config.stages[progress.stage]
        self._trainer, self._progress, self._average, self._logs = trainer, progress, average, logs
        self._optimizer = build_optimizer(trainer.model, self._stage, optim)
        self._scaler = torch.amp.GradScaler(trainer.device.type, enabled=optim.precision == "fp16")
        if state and progress.step:
            self._optimizer.load_state_dict(state["optimizer"])
            self._scaler.load_state_dict(state["scaler"])
        self._grad_step = GradCacheStep(
            model=trainer.model,
            stage=self._stage,
            workers=trainer.workers,
            make_autocast=trainer.make_autocast,
            chunk=trainer.config.batch.chunk,
            teacher_scale=optim.teacher_scale,
            gather_dtype=torch.bfloat16 if optim.precision == "bf16" else torch.float32,
        )

    def run(self) -> None:
        """Run the stage to its end, and advance the progress to the next one."""
        trainer, stage, progress, validation = self._trainer, self._stage, self._progress, self._trainer.config.validation
        set_train_mode(trainer.model, stage, checkpointing=trainer.config.batch.checkpointing)
        logged_step, clock = progress.global_step, time.perf_counter()
        batches = trainer.iterate_batches(progress.global_step)
        while progress.step < stage.steps and not progress.stopped_early:
            loss_values = self._run_step(batches)
            self._average.update(trainer.model)
            progress.step += 1
            progress.global_step += 1
            is_last = progress.step == stage.steps
            if progress.global_step % validation.log_every == 0 or is_last:
                pairs = (progress.global_step - logged_step) * trainer.config.batch.size * trainer.config.batch.accumulate
                self._log_step(loss_values, pairs / (time.perf_counter() - clock))
                logged_step, clock = progress.global_step, time.perf_counter()
            if progress.global_step % validation.every == 0 or is_last:
                validation_start = time.perf_counter()
                trainer.run_validation(progress, self._average, self._logs, stage)
                if not is_last and not progress.stopped_early:
                    self._save_state()
                clock += time.perf_counter() - validation_start
        progress.stage, progress.step = progress.stage + 1, 0
        self._save_state()

    def _run_step(self, batches: Iterator[DeviceBatch]) -> dict[str, float]:
        config, model = self._trainer.config, self._trainer.model
        step, accumulate = self._progress.step, config.batch.accumulate
        factor = compute_lr_factor(step, steps=self._stage.steps, warmup=config.optim.warmup_steps, decay=config.optim.decay)
        for group in self._optimizer.param_groups:
            group["lr"] = group["rate"] * factor
        self._optimizer.zero_grad(set_to_none=True)
        results = []
        for index in range(accumulate):
            seed = ((config.seed * 1_000_003 + self._progress.global_step) * accumulate + index) * _SEEDS_PER_BATCH
            results.append(
                self._grad_step.compute_gradients(next(batches), step, seed, lambda loss: self._scaler.scale(loss / accumulate))
            )
        self._grad_step.sum_gradients()
        means = {name: sum(result[name] for result in results) / accumulate for name in results[0]}
        self._scaler.unscale_(self._optimizer)
        trained = [parameter for parameter in model.parameters() if parameter.grad is not None]
        norm = float(torch.nn.utils.clip_grad_norm_(trained, config.optim.clip or math.inf))
        self._check_finite(means["loss"], norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return {**means, "norm": norm, "scale": float(model.scale.detach()), "rate": factor}

    def _check_finite(self, loss: float, norm: float) -> None:
        """Check that the loss is finite. With fp16 the scaler skips overflowing gradients and lowers its scale."""
        if math.isfinite(loss) and (math.isfinite(norm) or self._scaler.is_enabled()):
            return
        problem = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
        raise StairError(
            f"{problem} in step {self._progress.global_step + 1} (stage {self._stage.name!r})",
            "Lower optim.lr, raise optim.warmup_steps, or train in fp32; the last saved state is intact.",
            code="loss-not-finite",
        )

    def _log_step(self, values: dict[str, float], pairs_per_s: float) -> None:
        if self._logs:
            name, step, memory_mb = self._stage.name, self._progress.global_step, _measure_memory_mb(self._trainer.device)
            self._logs.log_metrics(step, name, "train", values)
            self._logs.log_metrics(step, name, "speed", {"pairs_per_s": pairs_per_s, "memory_mb": memory_mb})
            self._trainer.callbacks.on_metrics(StepMetrics(name, step, self._trainer.steps, values, pairs_per_s, memory_mb))

    def _save_state(self) -> None:
        trainer = self._trainer
        self._progress.readers = trainer.workers.gather_objects(trainer.batches.get_state())
        if trainer.workers.rank == 0:
            checkpointing.save_training_state(
                trainer.out,
                trainer.key,
                self._progress,
                trainer.model,
                self._average,
                self._optimizer,
                self._scaler,
                trainer.config.validation.keep_states,
            )
            trainer.on_saved()


def _measure_memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
