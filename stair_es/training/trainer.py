"""The trainer: runs the stages, validates and saves the training state. The only files it touches are the state and the logs."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from stair_es.errors import StairError, UsageError
from stair_es.model.stair.modeling import StairModel
from stair_es.training import checkpointing
from stair_es.training.callbacks import StepMetrics
from stair_es.training.checkpointing import TrainingProgress
from stair_es.training.config.stages import TrainingStage
from stair_es.training.config.train_config import TrainConfig
from stair_es.training.data.collate import Collator
from stair_es.training.data.sampler import BatchSampler, SampleIndex, split_batch
from stair_es.training.metric_logger import MetricLogger
from stair_es.training.schedules import EMA, compute_lr_factor
from stair_es.training.step import DeviceBatch, GradCacheStep, build_param_groups, set_train_mode
from stair_es.training.validation import ValidationSet, compute_mean_recall
from stair_es.training.workers import WorkerGroup

Teacher: TypeAlias = Callable[[Sequence[SampleIndex], Sequence[str]], tuple[Tensor, Tensor]]
"""Samples and their texts -> dense vectors of the images and of the texts."""
_PREFETCH = 2
_SEEDS_PER_BATCH = 1009
"""Upper bound on the chunks of a batch: the dropout seeds of a batch are consecutive."""


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """A training, ready to run."""

    config: TrainConfig
    model: StairModel
    collator: Collator
    sampler: BatchSampler
    validations: Sequence[ValidationSet]
    workers: WorkerGroup
    out: Path
    key: str
    """Hash of configuration and data."""
    on_metrics: Callable[[StepMetrics], None]
    teacher: Teacher | None = None

    def run(self) -> TrainingProgress:
        """Train to the end, resuming from the saved state if there is one, and leave the selected parameters in the model.

        Returns:
            The final progress.

        Raises:
            StairError: If the loss isn't finite, or the state in `out` belongs to another training.
        """
        average = EMA(self.model, self.config.optim.ema)
        saved = checkpointing.load_training_state(self.out, self.key)
        progress = checkpointing.restore_training_state(saved, self.model, average) if saved else TrainingProgress()
        self._sync_workers(progress)
        logs = MetricLogger(self.out, progress.done) if self._is_first else None
        try:
            while progress.stage < len(self.config.stages) and not progress.ended:
                _StageRun(self, progress, average, logs, saved).run()
                saved = None
        finally:
            if logs:
                logs.close()
        self._restore_best(progress, average)
        return progress

    def run_validation(self, progress: TrainingProgress, average: EMA, logs: MetricLogger | None, stage: TrainingStage) -> None:
        """Validate, log the recalls, and remember the best parameters.

        Args:
            progress: Training progress, which is updated.
            average: Moving average of the parameters, used for validation.
            logs: Metric logger; None on all workers but the first.
            stage: Current stage.
        """
        if not self.validations:
            return
        with average.apply_to(self.model):
            found = {each.name: each.compute_recalls(self.model, self.make_autocast()) for each in self.validations}
            value = self._take_first_value(compute_mean_recall(found))
            better = value > progress.best
            if better and self.config.watch.keep == "best":
                progress.best_parameters = {
                    name: each.clone() for name, each in checkpointing.get_trained_tensors(self.model).items()
                }
        progress.waited = 0 if better else progress.waited + 1
        if better:
            progress.best, progress.best_step = value, progress.done
        progress.ended = bool(self.config.watch.patience) and progress.waited >= self.config.watch.patience
        if logs:
            for name, values in found.items():
                logs.log_metrics(progress.done, stage.name, name, values)
            flat = {f"{name}/{key}": value for name, values in found.items() for key, value in values.items()}
            self.on_metrics(StepMetrics(stage.name, progress.done, self.steps, flat))

    def iterate_batches(self, done: int) -> Iterator[DeviceBatch]:
        """Yield the batches of this worker from a step on, preparing them in a background thread."""
        draws = self.sampler.iterate_batches(done * self.config.batch.accumulate)
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            waiting = [pool.submit(self._load_batch, next(draws)) for _ in range(_PREFETCH)]
            while True:
                ready = waiting.pop(0).result()
                waiting.append(pool.submit(self._load_batch, next(draws)))
                yield ready

    def make_autocast(self) -> AbstractContextManager[Any]:
        """Return an autocast context for the configured precision."""
        kind = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.config.optim.precision]
        context: AbstractContextManager[Any] = torch.autocast(self.device.type, dtype=kind, enabled=kind is not None)
        return context

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
        done = self.workers.gather_rows(torch.tensor([progress.done])).tolist()
        if len(set(done)) > 1:
            raise UsageError(
                f"the workers find different states in {self.out}: of steps {', '.join(map(str, sorted(set(done))))}",
                "--out must be a folder that all of them share.",
            )
        for tensor in self.model.state_dict().values():
            self.workers.broadcast_first(tensor)

    def _take_first_value(self, value: float) -> float:
        """Return the first worker's value. With one that differs in the last digit a worker could stop at another step."""
        told = torch.tensor([value], dtype=torch.float64)
        self.workers.broadcast_first(told)
        return float(told)

    def _load_batch(self, draws: Sequence[SampleIndex]) -> DeviceBatch:
        own = split_batch(draws, self.workers.rank, self.workers.count)
        images, texts, written, taken = self.collator.collate_batch(own)
        teacher = None
        if self.teacher is not None:
            seen, read = self.teacher(taken, written)
            teacher = seen.to(self.device), read.to(self.device)
        return DeviceBatch(images=images.to(self.device), texts=texts.to(self.device), teacher=teacher)

    def _restore_best(self, progress: TrainingProgress, average: EMA) -> None:
        """Load the parameters of the checkpoint into the model."""
        self.model.load_state_dict(progress.best_parameters or average.shadow, strict=False)
        self.model.eval()


class _StageRun:
    """A running stage."""

    def __init__(
        self, loop: Trainer, progress: TrainingProgress, average: EMA, logs: MetricLogger | None, saved: dict[str, Any] | None
    ) -> None:
        optim, self._stage = loop.config.optim, loop.config.stages[progress.stage]
        self._loop, self._progress, self._average, self._logs = loop, progress, average, logs
        rates = {"head": optim.lr, "backbone": optim.backbone_lr, "scale": optim.scale_lr}
        self._optimizer = torch.optim.AdamW(build_param_groups(loop.model, self._stage, rates, optim.weight_decay))
        self._scaler = torch.amp.GradScaler(loop.device.type, enabled=optim.precision == "fp16")
        if saved and progress.step:
            self._optimizer.load_state_dict(saved["optimizer"])
            self._scaler.load_state_dict(saved["scaler"])
        self._update = GradCacheStep(
            model=loop.model,
            stage=self._stage,
            workers=loop.workers,
            make_autocast=loop.make_autocast,
            chunk=loop.config.batch.chunk,
            teacher_scale=optim.teacher_scale,
        )

    def run(self) -> None:
        """Run the stage to its end, and advance the progress to the next one."""
        loop, stage, progress, watch = self._loop, self._stage, self._progress, self._loop.config.watch
        set_train_mode(loop.model, stage)
        since, clock = progress.done, time.perf_counter()
        batches = loop.iterate_batches(progress.done)
        while progress.step < stage.steps and not progress.ended:
            told = self._run_step(batches)
            self._average.update(loop.model)
            progress.step += 1
            progress.done += 1
            last = progress.step == stage.steps
            if progress.done % watch.log_every == 0 or last:
                pairs = (progress.done - since) * loop.config.batch.size * loop.config.batch.accumulate
                self._log_step(told, pairs / (time.perf_counter() - clock))
                since, clock = progress.done, time.perf_counter()
            if progress.done % watch.every == 0 or last:
                begun = time.perf_counter()
                loop.run_validation(progress, self._average, self._logs, stage)
                if not last and not progress.ended:
                    self._save_state()
                clock += time.perf_counter() - begun
        progress.stage, progress.step = progress.stage + 1, 0
        self._save_state()

    def _run_step(self, batches: Iterator[DeviceBatch]) -> dict[str, float]:
        config, model = self._loop.config, self._loop.model
        step, parts = self._progress.step, config.batch.accumulate
        factor = compute_lr_factor(step, steps=self._stage.steps, warmup=config.optim.warmup_steps, decay=config.optim.decay)
        for group in self._optimizer.param_groups:
            group["lr"] = group["rate"] * factor
        self._optimizer.zero_grad(set_to_none=True)
        found = []
        for part in range(parts):
            seed = ((config.seed * 1_000_003 + self._progress.done) * parts + part) * _SEEDS_PER_BATCH
            found.append(self._update.compute_gradients(next(batches), step, seed, lambda loss: self._scaler.scale(loss / parts)))
        self._update.sum_gradients()
        told = {name: sum(each[name] for each in found) / parts for name in found[0]}
        self._scaler.unscale_(self._optimizer)
        learning = [parameter for parameter in model.parameters() if parameter.grad is not None]
        norm = float(torch.nn.utils.clip_grad_norm_(learning, config.optim.clip or math.inf))
        self._check_finite(told["loss"], norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return {**told, "norm": norm, "scale": float(model.scale.detach()), "rate": factor}

    def _check_finite(self, loss: float, norm: float) -> None:
        """Check that the loss is finite. With fp16 the scaler skips overflowing gradients and lowers its scale."""
        if math.isfinite(loss) and (math.isfinite(norm) or self._scaler.is_enabled()):
            return
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
        raise StairError(
            f"{what} in step {self._progress.done + 1} (stage {self._stage.name!r})",
            "Lower optim.lr, raise optim.warmup_steps, or train in fp32; the last saved state is intact.",
        )

    def _log_step(self, told: dict[str, float], pairs_per_s: float) -> None:
        if self._logs:
            name, done, memory_mb = self._stage.name, self._progress.done, _measure_memory_mb(self._loop.device)
            self._logs.log_metrics(done, name, "train", told)
            self._logs.log_metrics(done, name, "speed", {"pairs_per_s": pairs_per_s, "memory_mb": memory_mb})
            self._loop.on_metrics(StepMetrics(name, done, self._loop.steps, told, pairs_per_s, memory_mb))

    def _save_state(self) -> None:
        loop = self._loop
        if loop.workers.rank == 0:
            checkpointing.save_training_state(
                loop.out, loop.key, self._progress, loop.model, self._average, self._optimizer, self._scaler
            )


def _measure_memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
