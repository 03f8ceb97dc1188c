"""Train from a configuration to a checkpoint: read the sets, build the model, run the stages, write the folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import orjson
import torch

from stair_es.config.settings import Settings, resolve_settings
from stair_es.errors import StairError, UsageError
from stair_es.model.stair import checkpoint
from stair_es.model.stair.configuration import CONFIG_FILE
from stair_es.model.stair.modeling import StairModel, remove_dropout
from stair_es.model.vocabularies.whole_words import WholeWordVocabulary
from stair_es.training import factory
from stair_es.training.callbacks import NO_CALLBACKS, Callbacks
from stair_es.training.checkpointing import STATE_FILE, TrainingProgress
from stair_es.training.config.train_config import TrainConfig
from stair_es.training.data.dataset import TrainingSet
from stair_es.training.data.sampler import BatchSampler, split_batch
from stair_es.training.data_module import build_data_module
from stair_es.training.model_card import render_model_card
from stair_es.training.trainer import Trainer
from stair_es.training.workers import SingleProcess, WorkerGroup

CONFIG_COPY = "train.toml"


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
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


def train_model(
    config: TrainConfig,
    out: Path,
    ears: Callbacks = NO_CALLBACKS,
    *,
    workers: WorkerGroup | None = None,
    device: str = "auto",
    threads: int = 0,
    settings: Settings | None = None,
) -> TrainingResult:
    """Train, or resume the training in `out`, and write the checkpoint to `out`.

    Args:
        config: Training configuration.
        out: Folder of state, logs and checkpoint.
        ears: Callbacks.
        workers: Worker group of a distributed training, of which this process is a member.
        device: `auto`, `cpu`, `cuda`, or a specific device such as `cuda:1`.
        threads: Threads that read images; 0 for the number of cores.
        settings: Data folder and trusted models; None for those of the environment.

    Raises:
        StairError: If something in the configuration isn't available, or the training failed.
    """
    workers, settings = workers or SingleProcess(), resolve_settings(settings)
    threads = threads or os.cpu_count() or 1
    split_batch(range(config.batch.size), workers.rank, workers.count)  # fail before the sets are read
    where = _choose_device(device)
    torch.manual_seed(config.seed if config.model.start_seed is None else config.model.start_seed)
    learned = factory.build_training_set(config, ears, threads)
    model = factory.build_model(config, learned, ears, settings.home).to(where)
    sampler = BatchSampler([pair.captions[0] for pair in learned], config.batch.size, config.seed)
    first_alone = config.data.cache and workers.count > 1  # the others find its cache if they share a home
    if first_alone and workers.rank:
        workers.broadcast_first(torch.zeros(1))
    fed = build_data_module(config, model, learned, ears, threads, settings)
    if first_alone and not workers.rank:
        workers.broadcast_first(torch.zeros(1))
    loop = Trainer(
        config=config,
        model=model,
        collator=fed.collator,
        sampler=sampler,
        validations=fed.validations,
        workers=workers,
        out=out,
        key=_compute_key(config, learned, model.tokens.whole),
        on_metrics=ears.on_metrics,
        teacher=fed.teacher,
    )
    progress = _run_trainer(loop)
    if workers.rank == 0:
        _write_checkpoint(config, model, out, progress, learned)
    return _build_result(out, progress, learned)


def _build_result(out: Path, progress: TrainingProgress, learned: TrainingSet) -> TrainingResult:
    return TrainingResult(
        folder=out,
        steps=progress.done,
        best=progress.best,
        best_step=progress.best_step,
        pairs=len(learned),
        problems=learned.problems.format_lines(),
        stopped_early=progress.ended,
    )


def _run_trainer(loop: Trainer) -> TrainingProgress:
    batch = loop.config.batch
    try:
        return loop.run()
    except torch.cuda.OutOfMemoryError as error:
        raise StairError(
            f"out of GPU memory with {batch.chunk or batch.size} pairs per forward pass",
            "Set batch.chunk, or lower it: training resumes from the last saved state. Or train in bf16.",
        ) from error


def prepare_output_folder(out: Path, *, restart: bool) -> bool:
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


def _choose_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError("no CUDA device here", "Omit --device, or use cpu.")
    return torch.device(name)


def _compute_key(config: TrainConfig, learned: TrainingSet, whole: WholeWordVocabulary | None) -> str:
    """Return a hash of all that a saved state depends on: not of validation, paths and settings that only save memory.

    Names of fields count, those of classes don't.
    """
    told = replace(
        config,
        folder=Path(),
        text="",
        watch=replace(config.watch, patience=0, every=1, log_every=1),
        batch=replace(config.batch, chunk=0),
    )
    digest = hashlib.sha256(repr(asdict(told)).encode())
    if whole is not None:
        digest.update(whole.to_json().encode())
    for pair in learned:
        digest.update(orjson.dumps((pair.name, pair.captions, pair.tags)))
    return digest.hexdigest()[:16]


def _write_checkpoint(
    config: TrainConfig, model: StairModel, out: Path, progress: TrainingProgress, learned: TrainingSet
) -> None:
    finished = remove_dropout(model.config)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if checkpoint.is_stored_tensor(name, model.config)}
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    if model.tokens.whole is None:
        tensors[checkpoint.FEATURE_IDS_TENSOR] = torch.from_numpy(model.tokens.feature_ids_F)
    text = render_model_card(config, finished, progress, len(learned), len(model.tokens.tokens))
    checkpoint.save_checkpoint(out, finished, model.tokens.tokenizer, tensors, text, model.tokens.whole)
    (out / CONFIG_COPY).write_text(config.text, encoding="utf-8")


__all__ = ["Callbacks", "TrainingResult", "prepare_output_folder", "train_model"]
