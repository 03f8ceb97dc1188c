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
from stair_es.model.stair import Stair
from stair_es.training import state
from stair_es.training.config import TrainConfig
from stair_es.training.ears import Moment
from stair_es.training.examples import Examples
from stair_es.training.logs import Logs
from stair_es.training.sampler import Draw, Sampler, share
from stair_es.training.schedule import Average, rate
from stair_es.training.stages import Stage
from stair_es.training.state import Progress
from stair_es.training.step import Given, Update, enter, groups
from stair_es.training.validate import Validation, overall
from stair_es.training.workers import Workers

Teacher: TypeAlias = Callable[[Sequence[Draw], Sequence[str]], tuple[Tensor, Tensor]]
"""Samples and their texts -> dense vectors of the images and of the texts."""
_AHEAD = 2
_CHUNKS = 1009
"""Upper bound on the chunks of a batch: the dropout seeds of a batch are consecutive."""


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A training, ready to run."""

    config: TrainConfig
    model: Stair
    examples: Examples
    sampler: Sampler
    validations: Sequence[Validation]
    workers: Workers
    out: Path
    key: str
    """Hash of configuration and data."""
    tell: Callable[[Moment], None]
    teacher: Teacher | None = None

    def run(self) -> Progress:
        """Train to the end, resuming from the saved state if there is one, and leave the selected parameters in the model.

        Returns:
            The final progress.

        Raises:
            StairError: If the loss isn't finite, or the state in `out` belongs to another training.
        """
        average = Average(self.model, self.config.optim.ema)
        saved = state.load(self.out, self.key)
        progress = state.restore(saved, self.model, average) if saved else Progress()
        self._agree(progress)
        logs = Logs(self.out, progress.done) if self._first else None
        try:
            while progress.stage < len(self.config.stages) and not progress.ended:
                _Stage(self, progress, average, logs, saved).run()
                saved = None
        finally:
            if logs:
                logs.close()
        self._keep(progress, average)
        return progress

    def watch(self, progress: Progress, average: Average, logs: Logs | None, stage: Stage) -> None:
        """Validate, log the recalls, and remember the best parameters.

        Args:
            progress: Training progress, which is updated.
            average: Moving average of the parameters, used for validation.
            logs: Metric logger; None on all workers but the first.
            stage: Current stage.
        """
        if not self.validations:
            return
        with average.applied(self.model):
            found = {each.name: each.recalls(self.model, self.narrow()) for each in self.validations}
            value = self._of_first(overall(found))
            better = value > progress.best
            if better and self.config.watch.keep == "best":
                progress.best_parameters = {name: each.clone() for name, each in state.learned(self.model).items()}
        progress.waited = 0 if better else progress.waited + 1
        if better:
            progress.best, progress.best_step = value, progress.done
        progress.ended = bool(self.config.watch.patience) and progress.waited >= self.config.watch.patience
        if logs:
            for name, values in found.items():
                logs.add(progress.done, stage.name, name, values)
            flat = {f"{name}/{key}": value for name, values in found.items() for key, value in values.items()}
            self.tell(Moment(stage.name, progress.done, self.steps, flat))

    def batches(self, done: int) -> Iterator[Given]:
        """Yield the batches of this worker from a step on, preparing them in a background thread."""
        draws = self.sampler.batches(done * self.config.batch.accumulate)
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            waiting = [pool.submit(self._given, next(draws)) for _ in range(_AHEAD)]
            while True:
                ready = waiting.pop(0).result()
                waiting.append(pool.submit(self._given, next(draws)))
                yield ready

    def narrow(self) -> AbstractContextManager[Any]:
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
    def _first(self) -> bool:
        return self.workers.rank == 0

    def _agree(self, progress: Progress) -> None:
        """Check that all workers start at the same step, and give them the same parameters.

        Raises:
            UsageError: If they read different states.
        """
        done = self.workers.gather(torch.tensor([progress.done])).tolist()
        if len(set(done)) > 1:
            raise UsageError(
                f"the workers find different states in {self.out}: of the steps {', '.join(map(str, sorted(set(done))))}",
                "--out must be a folder that all of them share.",
            )
        for tensor in self.model.state_dict().values():
            self.workers.take_first(tensor)

    def _of_first(self, value: float) -> float:
        """Return the first worker's value. With one that differs in the last digit a worker could stop at another step."""
        told = torch.tensor([value], dtype=torch.float64)
        self.workers.take_first(told)
        return float(told)

    def _given(self, draws: Sequence[Draw]) -> Given:
        own = share(draws, self.workers.rank, self.workers.count)
        images, texts, written, taken = self.examples.batch(own)
        teacher = None
        if self.teacher is not None:
            seen, read = self.teacher(taken, written)
            teacher = seen.to(self.device), read.to(self.device)
        return Given(images=images.to(self.device), texts=texts.to(self.device), teacher=teacher)

    def _keep(self, progress: Progress, average: Average) -> None:
        """Load the parameters of the checkpoint into the model."""
        self.model.load_state_dict(progress.best_parameters or average.shadow, strict=False)
        self.model.eval()


class _Stage:
    """A running stage."""

    def __init__(self, loop: Loop, progress: Progress, average: Average, logs: Logs | None, saved: dict[str, Any] | None) -> None:
        optim, self._stage = loop.config.optim, loop.config.stages[progress.stage]
        self._loop, self._progress, self._average, self._logs = loop, progress, average, logs
        rates = {"head": optim.lr, "backbone": optim.backbone_lr, "scale": optim.scale_lr}
        self._optimizer = torch.optim.AdamW(groups(loop.model, self._stage, rates, optim.weight_decay))
        self._scaler = torch.amp.GradScaler(loop.device.type, enabled=optim.precision == "fp16")
        if saved and progress.step:
            self._optimizer.load_state_dict(saved["optimizer"])
            self._scaler.load_state_dict(saved["scaler"])
        self._update = Update(
            model=loop.model,
            stage=self._stage,
            workers=loop.workers,
            narrow=loop.narrow,
            chunk=loop.config.batch.chunk,
            teacher_scale=optim.teacher_scale,
        )

    def run(self) -> None:
        """Run the stage to its end, and advance the progress to the next one."""
        loop, stage, progress, watch = self._loop, self._stage, self._progress, self._loop.config.watch
        enter(loop.model, stage)
        since, clock = progress.done, time.perf_counter()
        batches = loop.batches(progress.done)
        while progress.step < stage.steps and not progress.ended:
            told = self._step(batches)
            self._average.update(loop.model)
            progress.step += 1
            progress.done += 1
            last = progress.step == stage.steps
            if progress.done % watch.log_every == 0 or last:
                pairs = (progress.done - since) * loop.config.batch.size * loop.config.batch.accumulate
                self._say(told, pairs / (time.perf_counter() - clock))
                since, clock = progress.done, time.perf_counter()
            if progress.done % watch.every == 0 or last:
                begun = time.perf_counter()
                loop.watch(progress, self._average, self._logs, stage)
                if not last and not progress.ended:
                    self._save()
                clock += time.perf_counter() - begun
        progress.stage, progress.step = progress.stage + 1, 0
        self._save()

    def _step(self, batches: Iterator[Given]) -> dict[str, float]:
        config, model = self._loop.config, self._loop.model
        step, parts = self._progress.step, config.batch.accumulate
        factor = rate(step, steps=self._stage.steps, warmup=config.optim.warmup_steps, decay=config.optim.decay)
        for group in self._optimizer.param_groups:
            group["lr"] = group["rate"] * factor
        self._optimizer.zero_grad(set_to_none=True)
        found = []
        for part in range(parts):
            seed = ((config.seed * 1_000_003 + self._progress.done) * parts + part) * _CHUNKS
            found.append(self._update.gradients(next(batches), step, seed, lambda loss: self._scaler.scale(loss / parts)))
        self._update.sum_gradients()
        told = {name: sum(each[name] for each in found) / parts for name in found[0]}
        self._scaler.unscale_(self._optimizer)
        learning = [parameter for parameter in model.parameters() if parameter.grad is not None]
        norm = float(torch.nn.utils.clip_grad_norm_(learning, config.optim.clip or math.inf))
        self._check(told["loss"], norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return {**told, "norm": norm, "scale": float(model.scale.detach()), "rate": factor}

    def _check(self, loss: float, norm: float) -> None:
        """Check that the loss is finite. With fp16 the scaler skips overflowing gradients and lowers its scale."""
        if math.isfinite(loss) and (math.isfinite(norm) or self._scaler.is_enabled()):
            return
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
        raise StairError(
            f"{what} in step {self._progress.done + 1} (stage {self._stage.name!r})",
            "Lower optim.lr, raise optim.warmup_steps, or train in fp32; the last saved state is intact.",
        )

    def _say(self, told: dict[str, float], pairs_per_s: float) -> None:
        if self._logs:
            name, done, memory_mb = self._stage.name, self._progress.done, _memory_mb(self._loop.device)
            self._logs.add(done, name, "train", told)
            self._logs.add(done, name, "speed", {"pairs_per_s": pairs_per_s, "memory_mb": memory_mb})
            self._loop.tell(Moment(name, done, self._loop.steps, told, pairs_per_s, memory_mb))

    def _save(self) -> None:
        loop = self._loop
        if loop.workers.rank == 0:
            state.save(loop.out, loop.key, self._progress, loop.model, self._average, self._optimizer, self._scaler)


def _memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
