"""Training state on disk, from which an interrupted training resumes. Files are replaced atomically."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stair_es.errors import UsageError
from stair_es.model.stair.checkpoint import is_stored_tensor
from stair_es.model.stair.modeling import StairModel
from stair_es.training.step import EMA

STATE_FILE = "state.pt"


@dataclass(kw_only=True)
class TrainingProgress:
    """Progress of a training."""

    stage: int = 0
    """Current stage, from 0."""
    step: int = 0
    """Completed steps of the current stage."""
    global_step: int = 0
    """Completed steps of all stages."""
    best_recall: float = -1.0
    """Best recall so far."""
    best_step: int = -1
    best_metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    """Metrics of that validation, by set."""
    validations_since_best: int = 0
    """Validations since the best one."""
    stopped_early: bool = False
    """Whether training was stopped early."""
    best_parameters: dict[str, Tensor] = field(default_factory=dict)
    """Includes buffers, such as the means of batch norms."""


def save_training_state(
    folder: Path,
    key: str,
    progress: TrainingProgress,
    model: StairModel,
    average: EMA,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    readers: Sequence[Mapping[str, Any] | None],
) -> None:
    """Write the state, with the places of all workers in their shards; the previous one is kept until it is complete.

    Raises:
        OSError: If the state can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "key": key,
        "progress": {name: value for name, value in vars(progress).items() if name != "best_parameters"},
        "best": progress.best_parameters,
        "model": get_trained_tensors(model),
        "average": average.shadow,
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "readers": list(readers),
    }
    temporary = folder / f".{STATE_FILE}.{os.getpid()}"
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / STATE_FILE)


def get_trained_tensors(model: StairModel) -> dict[str, Tensor]:
    """Return the current tensors that training may change, without those of backbones from a package."""
    return {name: tensor.detach() for name, tensor in model.state_dict().items() if is_stored_tensor(name, model.config)}


def load_training_state(folder: Path, key: str) -> dict[str, Any] | None:
    """Load the state of a folder; None if there is none.

    Args:
        folder: Output folder of the training.
        key: Hash of configuration and data: a state with another one is rejected.

    Raises:
        UsageError: If the state belongs to another configuration, or can't be read.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch has no specific exception for a broken file
        raise UsageError(f"can't read {path}: {error}", "Delete it to start over.", code="state-unreadable") from error
    if state.get("key") != key:
        raise UsageError(
            f"{folder} contains the state of a training run with another configuration or other data",
            "Use another --out, or --restart to discard that run.",
            code="state-of-other-training",
        )
    return state


def restore_training_state(state: dict[str, Any], model: StairModel, average: EMA) -> TrainingProgress:
    """Load a state into a model and its average, and return the progress. The optimizer state is restored by the stage."""
    model.load_state_dict(state["model"], strict=False)
    with torch.no_grad():
        for name, shadow in average.shadow.items():
            shadow.copy_(state["average"][name])
    return TrainingProgress(**state["progress"], best_parameters=state["best"])
