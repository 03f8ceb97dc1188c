"""The state of a training on disk, so that it can go on after whatever ended it. Written whole or not at all."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stair_es.errors import UsageError
from stair_es.model.stair import Stair
from stair_es.model.stair_checkpoint import stored
from stair_es.training.schedule import Average

STATE_FILE = "state.pt"


@dataclass(kw_only=True)
class Progress:
    """How far a training is."""

    stage: int = 0
    """The stage that is under way, from 0."""
    step: int = 0
    """Steps of it that are done."""
    done: int = 0
    """Steps of all stages that are done."""
    best: float = -1.0
    """The best recall so far."""
    best_step: int = -1
    waited: int = 0
    """Validations since then."""
    ended: bool = False
    """Whether early stopping ended it."""
    best_parameters: dict[str, Tensor] = field(default_factory=dict)
    """With what a network keeps besides, such as the means of batch norms."""


def save(
    folder: Path,
    key: str,
    progress: Progress,
    model: Stair,
    average: Average,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
) -> None:
    """Write the state; the one before stays until this one is whole.

    Raises:
        OSError: It can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "key": key,
        "progress": {name: value for name, value in vars(progress).items() if name != "best_parameters"},
        "best": progress.best_parameters,
        "model": learned(model),
        "average": average.shadow,
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
    }
    temporary = folder / f".{STATE_FILE}.{os.getpid()}"
    with temporary.open("wb") as file:
        torch.save(values, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / STATE_FILE)


def learned(model: Stair) -> dict[str, Tensor]:
    """The tensors that a training may change, as they are now; not those of backbones that a package brings."""
    return {name: value.detach() for name, value in model.state_dict().items() if stored(name, model.config)}


def load(folder: Path, key: str) -> dict[str, Any] | None:
    """The state in a folder; None where there is none.

    Args:
        folder: Of the training.
        key: Of the configuration and the data: a state of another one is refused.

    Raises:
        UsageError: The state is of another configuration, or can't be read.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    try:
        values: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch has no error of its own for a broken file
        raise UsageError(f"can't read {path}: {error}", "Delete it to begin from the start.") from error
    if values.get("key") != key:
        raise UsageError(
            f"{folder} holds a training with another configuration or other data",
            "Give another --out, or --restart to throw that training away.",
        )
    return values


def restore(values: dict[str, Any], model: Stair, average: Average) -> Progress:
    """Put a state into a model and its average; returns how far it was. The optimizer takes its own part."""
    model.load_state_dict(values["model"], strict=False)
    with torch.no_grad():
        for name, shadow in average.shadow.items():
            shadow.copy_(values["average"][name])
    return Progress(**values["progress"], best_parameters=values["best"])
