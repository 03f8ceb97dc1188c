"""Train from a configuration to a checkpoint: read the sets, build the model, run the stages, write the folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import torch

from stair_es.errors import StairError, UsageError
from stair_es.model import stair_checkpoint
from stair_es.model.stair import Stair, without_training_traits
from stair_es.model.stair_config import CONFIG_FILE
from stair_es.model.whole_words import WholeWords
from stair_es.training import build
from stair_es.training.card import card
from stair_es.training.config import TrainConfig
from stair_es.training.ears import DEAF, Ears
from stair_es.training.feed import feed
from stair_es.training.loop import Loop
from stair_es.training.pairs import TrainingSet
from stair_es.training.sampler import Sampler, share
from stair_es.training.state import STATE_FILE, Progress
from stair_es.training.workers import Alone, Workers

CONFIG_COPY = "train.toml"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Result of a training."""

    folder: Path
    """Folder of the checkpoint."""
    steps: int
    best: float
    """Best recall at 1, mean of both directions and all validation sets; -1 without validation."""
    best_step: int
    pairs: int
    problems: Sequence[str]
    stopped_early: bool


def train(
    config: TrainConfig,
    out: Path,
    ears: Ears = DEAF,
    *,
    workers: Workers | None = None,
    device: str = "auto",
    threads: int = 0,
) -> Trained:
    """Train, or resume the training in `out`, and write the checkpoint to `out`.

    Args:
        config: Training configuration.
        out: Folder of state, logs and checkpoint.
        ears: Callbacks.
        workers: Worker group of a distributed training, of which this process is a member.
        device: `auto`, `cpu`, `cuda`, or a specific device such as `cuda:1`.
        threads: Threads that read images; 0 for the number of cores.

    Raises:
        StairError: If something in the configuration isn't available, or the training failed.
    """
    workers = workers or Alone()
    threads = threads or os.cpu_count() or 1
    share(range(config.batch.size), workers.rank, workers.count)  # fail before the sets are read
    where = _device(device)
    torch.manual_seed(config.seed if config.model.start_seed is None else config.model.start_seed)
    learned = build.training_set(config, ears, threads)
    model = build.model(config, learned, ears).to(where)
    sampler = Sampler([pair.captions[0] for pair in learned], config.batch.size, config.seed)
    first_alone = config.data.cache and workers.count > 1  # the others find its cache if they share a home
    if first_alone and workers.rank:
        workers.take_first(torch.zeros(1))
    fed = feed(config, model, learned, ears, threads)
    if first_alone and not workers.rank:
        workers.take_first(torch.zeros(1))
    loop = Loop(
        config=config,
        model=model,
        examples=fed.examples,
        sampler=sampler,
        validations=fed.validations,
        workers=workers,
        out=out,
        key=_key(config, learned, model.tokens.whole),
        tell=ears.tell,
        teacher=fed.teacher,
    )
    progress = _run(loop)
    if workers.rank == 0:
        _write(config, model, out, progress, learned)
    return Trained(
        folder=out,
        steps=progress.done,
        best=progress.best,
        best_step=progress.best_step,
        pairs=len(learned),
        problems=learned.problems.lines(),
        stopped_early=progress.ended,
    )


def _run(loop: Loop) -> Progress:
    batch = loop.config.batch
    try:
        return loop.run()
    except torch.cuda.OutOfMemoryError as error:
        raise StairError(
            f"out of GPU memory with {batch.chunk or batch.size} pairs per forward pass",
            "Set batch.chunk, or lower it: training resumes from the last saved state. Or train in bf16.",
        ) from error


def make_room(out: Path, *, restart: bool) -> bool:
    """Check that a training may write to a folder; return True if it resumes an existing training.

    Args:
        out: The folder.
        restart: Whether to discard an existing training.

    Raises:
        UsageError: If the folder holds a model without training state.
    """
    state = out / STATE_FILE
    if restart:
        state.unlink(missing_ok=True)
    elif not state.is_file() and (out / CONFIG_FILE).exists():
        raise UsageError(
            f"{out} holds a model without training state, which can't be resumed",
            "Use another --out, or --restart to replace it.",
        )
    return state.is_file()


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError("no CUDA device here", "Omit --device, or use cpu.")
    return torch.device(name)


def _key(config: TrainConfig, learned: TrainingSet, whole: WholeWords | None) -> str:
    """Return a hash of all that a saved state depends on: not of validation, paths and settings that only save memory."""
    told = replace(
        config,
        folder=Path(),
        text="",
        watch=replace(config.watch, patience=0, every=1, log_every=1),
        batch=replace(config.batch, chunk=0),
    )
    digest = hashlib.sha256(repr(told).encode())
    if whole is not None:
        digest.update(whole.to_json().encode())
    for pair in learned:
        digest.update(orjson.dumps((pair.name, pair.captions, pair.tags)))
    return digest.hexdigest()[:16]


def _write(config: TrainConfig, model: Stair, out: Path, progress: Progress, learned: TrainingSet) -> None:
    finished = without_training_traits(model.config)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if stair_checkpoint.stored(name, model.config)}
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    if model.tokens.whole is None:
        tensors[stair_checkpoint.FEATURE_IDS] = torch.from_numpy(model.tokens.feature_ids_F)
    text = card(config, finished, progress, len(learned), len(model.tokens.words))
    stair_checkpoint.save(out, finished, model.tokens.tokenizer, tensors, text, model.tokens.whole)
    (out / CONFIG_COPY).write_text(config.text, encoding="utf-8")


__all__ = ["Ears", "Trained", "make_room", "train"]
