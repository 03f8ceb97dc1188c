"""Updates of a tiny model by one worker or by two processes with half of the batch each: for tests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from stair_es.model.stair.modeling import StairModel, TextBatch
from stair_es.training.config.schema import LossName, TrainingStage
from stair_es.training.data.collate import OnlineTexts
from stair_es.training.data.sampler import split_batch
from stair_es.training.step import DeviceBatch, GradCacheStep, build_param_groups, set_train_mode
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


def build_batch(model: StairModel, rows: slice = slice(None)) -> DeviceBatch:
    """Return a batch of 12, or some rows of it."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, 32, 32, 3), generator=draw, dtype=torch.uint8)
    teacher = torch.randn(2, 12, 5, generator=draw)
    tokenized = model.tokens.encode(TEXTS)
    texts = TextBatch.from_tokenized(tokenized)
    return DeviceBatch(images=images[rows], texts=texts[rows], teacher=(teacher[0][rows], teacher[1][rows]))


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
    optimizer = torch.optim.SGD(build_param_groups(model, stage, {"head": 0.05, "backbone": 0.05, "scale": 0.05}, 0.01))
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


def run_worker(rank: int, folder: str) -> None:
    """Run one of two processes: write its parameters and collective results, run the training of the folder, and exit."""
    os.environ["STAIR_ES_HOME"] = f"{folder}/home"  # a fork server has the environment of its first test
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    workers = DistributedWorkers()
    torch.save(run_steps(build_model(), workers, chunk=4), f"{folder}/{rank}.pt")
    tensor = torch.full((2,), float(rank + 1))
    gathered = workers.gather_rows(tensor)
    workers.sum_in_place(tensor)
    first = torch.tensor([rank + 7])
    workers.broadcast_first(first)
    torch.save({"gathered": gathered, "sum": tensor, "first": first}, f"{folder}/{rank}-collectives.pt")
    assert validate(workers) == validate(SingleProcess())
    assert tiny_training.run_training(Path(folder, "set"), Path(folder, "out"), workers=workers).steps == 6
    distributed.barrier()
    os._exit(0)  # at an ordinary end some of gloo's threads are still there now and then, and C++ aborts the process
