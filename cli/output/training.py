"""Prints the result of a training, and what one needs for `stair-es train --plan`."""

from __future__ import annotations

from dataclasses import asdict
from math import ceil
from typing import TYPE_CHECKING

from .console import emit_json, print_plain

if TYPE_CHECKING:
    from stair_es.training.config.train_config import TrainConfig
    from stair_es.training.plan import StagePlan
    from stair_es.training.train import TrainingResult

_A100_TFLOPS = {"fp32": 156.0, "bf16": 312.0, "fp16": 312.0}
"""By precision, from NVIDIA's data sheet; fp32 as TF32."""


def print_training_plan(config: TrainConfig, gpus: int, tflops: float | None, pairs: int | None, *, as_json: bool) -> None:
    """Measure and print what a training needs.

    Args:
        config: Training configuration.
        gpus: Number of GPUs.
        tflops: Rate of a GPU, in 10^12 operations per second; None for that of an A100.
        pairs: Number of training pairs; None if it isn't known.
        as_json: Whether to print JSON.
    """
    from stair_es.training.plan import UTILIZATION, plan_training

    plan = plan_training(config, gpus)
    rate = tflops or _A100_TFLOPS[config.optim.precision]
    pairs_per_step = config.batch.size * config.batch.accumulate
    epoch = None if pairs is None else ceil(pairs / pairs_per_step)
    hours = plan.estimate_hours(rate)
    speed = sum(stage.steps for stage in plan.stages) * pairs_per_step / (hours * 3600)
    if as_json:
        values = {"steps_per_epoch": epoch, "tflops": rate, "utilization": UTILIZATION, "hours": hours, "pairs_per_second": speed}
        emit_json({**asdict(plan), **values})
        return
    print_plain(
        f"{plan.parameters / 1e6:,.1f} M parameters, {plan.tokens:,} tokens at most;"
        f" {plan.pairs_per_gpu:,} pairs on each of {gpus:,} GPUs, {config.batch.accumulate} batches per step"
    )
    for stage in plan.stages:
        _print_stage(stage)
    if epoch is not None:
        print_plain(f"an epoch of {pairs:,} pairs: {epoch:,} steps")
    print_plain(
        f"{hours:,.2f} hours for all steps at {rate:,g} TFLOPS x {UTILIZATION:.0%}, if readers and network keep up with"
        f" {speed:,.0f} pairs per second. This is a calculation: nobody ran it."
    )


def _print_stage(stage: StagePlan) -> None:
    print_plain(f"stage {stage.name}: {stage.steps:,} steps, {stage.trained / 1e6:,.1f} M parameters learn; per GPU and batch")
    memory = ", ".join(f"{part} {size / 1e9:,.2f}" for part, size in stage.memory_bytes.items())
    print_plain(f"  memory {sum(stage.memory_bytes.values()) / 1e9:,.2f} GB: {memory}")
    flop = ", ".join(f"{part} {count / 1e12:,.2f}" for part, count in stage.flop.items())
    print_plain(f"  operations {sum(stage.flop.values()) / 1e12:,.2f} TFLOP: {flop}")
    print_plain(f"  sent in a step {stage.sent_bytes / 1e9:,.3f} GB")


def print_training_result(result: TrainingResult, *, as_json: bool) -> None:
    """Print the result of a training."""
    if as_json:
        emit_json(
            {
                "checkpoint": str(result.folder),
                "steps": result.steps,
                "best": result.best if result.best_step >= 0 else None,
                "best_step": result.best_step if result.best_step >= 0 else None,
                "pairs": result.pairs,
                "problems": list(result.problems),
                "stopped_early": result.stopped_early,
            }
        )
        return
    best = f", recall@1 {100 * result.best:.1f} % at step {result.best_step:,}" if result.best_step >= 0 else ""
    early = ", stopped early" if result.stopped_early else ""
    pairs = "" if result.pairs is None else f"{result.pairs:,} pairs, "
    print_plain(f"{result.folder}: {pairs}{result.steps:,} steps{early}{best}")
