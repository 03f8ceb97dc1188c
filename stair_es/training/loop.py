"""The training loop: stages one after another, validation, saved states. Knows nothing of files but the state and the logs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stair_es.errors import StairError
from stair_es.model.stair import Stair
from stair_es.training import state
from stair_es.training.config import TrainConfig
from stair_es.training.ema import Average
from stair_es.training.examples import Examples
from stair_es.training.logs import Logs
from stair_es.training.sampler import Draw, Sampler, share
from stair_es.training.schedule import rate
from stair_es.training.stages import Stage
from stair_es.training.state import Progress
from stair_es.training.step import Given, Update, Workers, groups
from stair_es.training.validate import Validation, overall

_AHEAD = 2


@dataclass(frozen=True)
class Moment:
    """What a training says of itself as it goes."""

    stage: str
    step: int
    """Of all stages together, done."""
    steps: int
    values: dict[str, float]
    """Losses, or recalls of a validation (`set/t2i@1`)."""
    pairs_per_s: float = 0.0
    memory_mb: float = 0.0
    """Peak, of the GPU where there is one, else of the process."""


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
    """Of configuration and data."""
    tell: Callable[[Moment], None]
    teacher: Callable[[Sequence[Draw], Sequence[str]], tuple[torch.Tensor, torch.Tensor]] | None = None

    def run(self) -> Progress:
        """Train to the end, from the saved state if there is one; the model has the parameters to keep then.

        Raises:
            StairError: The loss isn't finite any more, or the state in `out` is of another training.
        """
        average = Average(self.model, self.config.optim.ema)
        saved = state.load(self.out, self.key)
        progress = state.restore(saved, self.model, average) if saved else Progress()
        logs = Logs(self.out, progress.done) if self._first else None
        try:
            while progress.stage < len(self.config.stages) and not progress.ended:
                self._stage(progress, average, logs, saved)
                saved = None
        finally:
            if logs:
                logs.close()
        self._keep(progress, average)
        return progress

    @property
    def _first(self) -> bool:
        return self.workers.rank == 0

    def _stage(self, progress: Progress, average: Average, logs: Logs | None, saved: dict[str, Any] | None) -> None:
        """Train the stage that is under way, and go to the next."""
        config, stage = self.config, self.config.stages[progress.stage]
        optim = config.optim
        rates = {"head": optim.lr, "backbone": optim.backbone_lr, "scale": optim.scale_lr}
        optimizer = torch.optim.AdamW(groups(self.model, stage, rates, optim.weight_decay))
        scaler = torch.amp.GradScaler(self._device.type, enabled=optim.precision == "fp16" and self._device.type == "cuda")
        if saved and progress.step:
            optimizer.load_state_dict(saved["optimizer"])
            scaler.load_state_dict(saved["scaler"])
        update = Update(
            model=self.model,
            stage=stage,
            workers=self.workers,
            narrow=self._narrow,
            chunk=config.batch.chunk,
            teacher_scale=optim.teacher_scale,
        )
        self.model.train()
        clock = time.perf_counter()
        since = progress.done
        batches = self._batches(progress.done)
        while progress.step < stage.steps and not progress.ended:
            told = self._update(update, optimizer, scaler, progress, batches)
            average.update(self.model)
            progress.step += 1
            progress.done += 1
            if progress.done % config.watch.log_every == 0 or progress.step == stage.steps:
                seconds, clock = time.perf_counter() - clock, time.perf_counter()
                self._say(logs, stage, progress, told, (progress.done - since) * config.batch.size / seconds)
                since = progress.done
            if progress.done % config.watch.every == 0 or progress.step == stage.steps:
                self._watch(progress, average, logs, stage)
                if progress.step < stage.steps and not progress.ended:
                    self._save(progress, average, optimizer, scaler)
                clock = time.perf_counter()
        progress.stage, progress.step = progress.stage + 1, 0
        self._save(progress, average, optimizer, scaler)

    def _update(self, update: Update, optimizer: Any, scaler: Any, progress: Progress, batches: Iterator[Any]) -> dict[str, float]:  # noqa: ANN401
        config, stage = self.config, update.stage
        factor = rate(progress.step, steps=stage.steps, warmup=config.optim.warmup_steps, decay=config.optim.decay)
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * factor
        optimizer.zero_grad(set_to_none=True)
        boost = scaler.get_scale() if scaler.is_enabled() else 1.0
        for part in range(config.batch.accumulate):
            seed = (config.seed * 1_000_003 + progress.done) * config.batch.accumulate + part
            told = update.gradients(next(batches), progress.step, seed * 1009, boost / config.batch.accumulate)
        update.sum_gradients()
        if told["loss"] != told["loss"] or told["loss"] == float("inf"):
            raise StairError(
                f"the loss is {told['loss']} in step {progress.done + 1} (stage {stage.name!r})",
                "Lower optim.lr, raise optim.warmup_steps, or train in fp32; the last saved state is whole.",
            )
        if scaler.is_enabled():
            scaler.scale(torch.ones((), device=self._device))  # makes its scale on the device
            scaler.unscale_(optimizer)
        if config.optim.clip:
            learning = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
            torch.nn.utils.clip_grad_norm_(learning, config.optim.clip)
        scaler.step(optimizer)
        scaler.update()
        return {**told, "scale": float(self.model.scale.detach()), "rate": factor}

    def _batches(self, done: int) -> Iterator[Given]:
        """Batches of this worker from a step on, made ready while others are learned from."""
        draws = self.sampler.batches(done * self.config.batch.accumulate)
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            waiting = [pool.submit(self._given, next(draws)) for _ in range(_AHEAD)]
            while True:
                ready = waiting.pop(0).result()
                waiting.append(pool.submit(self._given, next(draws)))
                yield ready

    def _given(self, draws: Sequence[Draw]) -> Given:
        own = share(draws, self.workers.rank, self.workers.count)
        images, texts, written, taken = self.examples.batch(own)
        teacher = None
        if self.teacher is not None:
            teacher = tuple(each.to(self._device) for each in self.teacher(taken, written))
        return Given(images=images.to(self._device), texts=texts.to(self._device), teacher=teacher)  # type: ignore[arg-type]

    def _watch(self, progress: Progress, average: Average, logs: Logs | None, stage: Stage) -> None:
        """Validate; remember the best."""
        if not self.validations:
            return
        with average.applied(self.model):
            found = {each.name: each.recalls(self.model, self._narrow()) for each in self.validations}
            value = overall(found)
            better = value > progress.best
            if better and self.config.watch.keep == "best":
                learned = dict(self.model.named_parameters())
                progress.best_parameters = {name: parameter.detach().clone() for name, parameter in learned.items()}
        progress.waited = 0 if better else progress.waited + 1
        if better:
            progress.best, progress.best_step = value, progress.done
        progress.ended = bool(self.config.watch.patience) and progress.waited >= self.config.watch.patience
        if logs:
            for name, values in found.items():
                logs.add(progress.done, stage.name, name, values)
            flat = {f"{name}/{key}": value for name, values in found.items() for key, value in values.items()}
            self.tell(Moment(stage.name, progress.done, self._steps, flat))

    def _say(self, logs: Logs | None, stage: Stage, progress: Progress, told: dict[str, float], pairs_per_s: float) -> None:
        if logs:
            memory_mb = _memory_mb(self._device)
            logs.add(progress.done, stage.name, "train", told)
            logs.add(progress.done, stage.name, "speed", {"pairs_per_s": pairs_per_s, "memory_mb": memory_mb})
            self.tell(Moment(stage.name, progress.done, self._steps, told, pairs_per_s, memory_mb))

    def _save(self, progress: Progress, average: Average, optimizer: Any, scaler: Any) -> None:  # noqa: ANN401
        if self._first:
            state.save(self.out, self.key, progress, self.model, average, optimizer, scaler)

    @torch.no_grad()
    def _keep(self, progress: Progress, average: Average) -> None:
        """Give the model the parameters that the checkpoint gets."""
        chosen = progress.best_parameters or average.shadow
        for name, parameter in self.model.named_parameters():
            if name in chosen:
                parameter.copy_(chosen[name])
        self.model.eval()

    @property
    def _device(self) -> torch.device:
        return self.model.log_scale.device

    @property
    def _steps(self) -> int:
        return sum(stage.steps for stage in self.config.stages)

    def _narrow(self) -> AbstractContextManager[Any]:
        kind = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.config.optim.precision]
        return torch.autocast(self._device.type, dtype=kind, enabled=kind is not None)


def _memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
