"""Gradients and updates of a tiny model by one worker, or by several processes with their share of the batch: for tests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from stair_es.model.stair.modeling import StairModel, TextBatch
from stair_es.training.config.schema import LossName, OptimizerConfig, TrainingStage
from stair_es.training.data.collate import OnlineTexts
from stair_es.training.data.sampler import split_batch
from stair_es.training.optimizers import build_param_groups
from stair_es.training.step import DeviceBatch, GradCacheStep, set_train_mode
from stair_es.training.validation import CaptionValidation, ClassValidation, ValidationSet
from stair_es.training.workers import DistributedWorkers, SingleProcess, WorkerGroup
from support import warm_commands  # noqa: F401  what its fork server imports
from support.models import tiny_stair, tiny_training

TEXTS = [f"{first} {second}" for first in ("red", "blue", "the") for second in ("dog", "cat", "bird runs", "tree sea car")]
ALL: dict[LossName, float] = {
    "contrastive": 1.0,
    "ground_image": 0.5,
    "ground_text": 0.25,
    "flops_image": 0.01,
    "flops_text": 0.02,
    "distil": 0.3,
}


@dataclass(frozen=True)
class Case:
    """A model, a batch and a step whose gradients mustn't depend on the number of workers."""

    model: dict[str, Any] = field(default_factory=dict)
    losses: dict[LossName, float] = field(default_factory=lambda: ALL)
    chunk: int = 0
    repeats: bool = False
    """Whether the batch has hashes, some of them equal."""


SCORED: dict[LossName, float] = {"contrastive": 1.0, "distil": 0.3}
CASES = {
    "cosine": Case(),
    "dot, chunks": Case({"similarity": "dot"}, chunk=2),
    "two heads": Case({"heads": ("tokens", "dense"), "dense_dim": 6}),
    "dense, chunks": Case({"heads": ("dense",), "dense_dim": 6}, SCORED, chunk=1),
    "repeats": Case(repeats=True),
    "repeats, chunks": Case({"similarity": "dot"}, SCORED, chunk=2, repeats=True),
    "contrastive": Case(losses={"contrastive": 1.0}),
    "joint, gated": Case(
        {"heads": ("tokens", "dense"), "dense_dim": 6, "scored_by": "tokens"},
        {"contrastive": 0.5, "joint": 0.5, "distil": 0.2, "gate_image": 0.1},
        repeats=True,
    ),
    "no scores": Case(losses={"ground_image": 1.0, "flops_text": 0.1}),
}


def build_batch(model: StairModel, rows: slice = slice(None)) -> DeviceBatch:
    """Return a batch of 12, or some rows of it."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, 32, 32, 3), generator=draw, dtype=torch.uint8)
    teacher = torch.randn(2, 12, 5, generator=draw)
    tokenized = model.tokens.encode(TEXTS)
    texts = TextBatch.from_tokenized(tokenized)
    return DeviceBatch(images=images[rows], texts=texts[rows], teacher=(teacher[0][rows], teacher[1][rows]))


def compute_case(case: Case, workers: WorkerGroup) -> dict[str, torch.Tensor]:
    """Compute losses and gradients of a case: the captions 0, 1, 2 and 7 have no tokens, 3, 5 and 10 are repeats."""
    model = build_model(**case.model)
    rows = split_batch(range(12), workers.rank, workers.count)
    taken = slice(rows[0], rows[-1] + 1)
    batch = build_batch(model, taken)
    texts = ["the the" if row in (0, 1, 2, 7) else text for row, text in enumerate(TEXTS)]
    batch = replace(batch, texts=TextBatch.from_tokenized(model.tokens.encode(texts))[taken])
    if case.repeats:
        hashes_G = torch.arange(12)
        hashes_G[[3, 5, 10]] = -(2**62)
        batch = replace(batch, caption_hashes_B=hashes_G[taken])
    stage = TrainingStage(name="s", steps=1, losses=case.losses)
    build_param_groups(model, stage, OptimizerConfig())
    set_train_mode(model, stage)
    update = GradCacheStep(model=model, stage=stage, workers=workers, make_autocast=nullcontext, chunk=case.chunk)
    values = update.compute_gradients(batch, 0, 5)
    update.sum_gradients()
    gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return {**{f"loss {name}": torch.tensor(value) for name, value in values.items()}, **gradients}


def build_model(**changes: Any) -> StairModel:  # noqa: ANN401
    """Return a model without dropout."""
    model = tiny_stair.build_model(tiny_stair.build_config(text_own_words=True, **changes))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def run_steps(model: StairModel, workers: WorkerGroup, chunk: int) -> dict[str, torch.Tensor]:
    """Run three updates with the worker's part of the same batch."""
    stage = TrainingStage(name="s", steps=3, losses=ALL)
    optimizer = torch.optim.SGD(build_param_groups(model, stage, OptimizerConfig(lr=0.05, backbone_lr=0.05, scale_lr=0.05)))
    set_train_mode(model, stage)
    rows = split_batch(range(12), workers.rank, workers.count)
    batch = build_batch(model, slice(rows[0], rows[-1] + 1))
    update = GradCacheStep(model=model, stage=stage, workers=workers, make_autocast=nullcontext, chunk=chunk)
    for step in range(3):
        optimizer.zero_grad()
        update.compute_gradients(batch, step, step)
        update.sum_gradients()
        optimizer.step()
    return {name: each.detach().clone() for name, each in model.named_parameters()}


@dataclass(frozen=True)
class DrawnImages:
    """Random images: the same for a number."""

    def load_batch(self, items: Sequence[int], views: Sequence[int]) -> tuple[torch.Tensor, list[int]]:
        """Return the images; every 50th is unreadable."""
        rows = [torch.randint(0, 256, (32, 32, 3), generator=torch.Generator().manual_seed(item)) for item in items]
        return torch.stack(rows).to(torch.uint8), [position for position, item in enumerate(items) if item % 50 == 49]


def validate(workers: WorkerGroup) -> list[dict[str, float]]:
    """Return the metrics of 150 images with captions, and of them with classes, by the batches of the workers."""
    model, count = build_model(), 150
    loaders: dict[str, Any] = {"images": DrawnImages(), "texts": OnlineTexts(model.tokens)}
    captions = tuple(f"{TEXTS[item % len(TEXTS)]} {TEXTS[item // len(TEXTS) % len(TEXTS)]}" for item in range(count))
    labels = tuple(item % len(TEXTS) for item in range(count))
    sets: list[ValidationSet] = [
        CaptionValidation(name="captions", captions=captions, **loaders),
        ClassValidation(name="classes", labels=labels, class_texts=[[text, f"a {text}"] for text in TEXTS], **loaders),
    ]
    return [dataset.compute_metrics(model, nullcontext(), workers) for dataset in sets]


def run_worker(rank: int, folder: str, count: int) -> None:
    """Run one of several processes: write its gradients, parameters and collective results, and exit.

    If the folder has a training, it is run as well.
    """
    os.environ["STAIR_ES_HOME"] = f"{folder}/home"  # a fork server has the environment of its first test
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=count)
    workers = DistributedWorkers()
    torch.save({name: compute_case(case, workers) for name, case in CASES.items()}, f"{folder}/{rank}-cases.pt")
    torch.save(run_steps(build_model(), workers, chunk=2), f"{folder}/{rank}.pt")
    torch.save(run_collectives(workers), f"{folder}/{rank}-collectives.pt")
    if count == 2:
        assert validate(workers) == validate(SingleProcess())
    if Path(folder, "set").is_dir():
        assert tiny_training.run_training(Path(folder, "set"), Path(folder, "out"), workers=workers).steps == 6
    distributed.barrier()
    os._exit(0)  # at an ordinary end some of gloo's threads are still there now and then, and C++ aborts the process


def run_collectives(workers: DistributedWorkers) -> dict[str, torch.Tensor]:
    """Return results of all collectives: the sums are of tensors that don't fit into one bucket, and of two types."""
    rows = torch.full((2,), float(workers.rank + 1))
    large = [torch.full((2_000_000,), float(workers.rank + number)) for number in range(5)]
    sums = [*large, torch.tensor(workers.rank + 1), rows.clone().T]
    workers.sum_in_place(sums)
    first = torch.tensor([workers.rank + 7])
    workers.broadcast_first(first)
    return {
        "gathered": workers.gather_rows(rows),
        "narrow": workers.gather_rows(rows.bfloat16()),
        "sums": torch.stack([each.flatten()[-1].float() for each in sums]),
        "first": first,
    }
