"""What changes with the step: the learning rate and the weight of the FLOPs regulariser. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def rate(step: int, *, steps: int, warmup: int, decay: str = "cosine") -> float:
    """What the learning rate is multiplied with in a step, 0..1.

    Args:
        step: From 0.
        steps: Of the stage.
        warmup: Steps in which it rises linearly.
        decay: `cosine` falls to 0 at the end, `constant` stays.
    """
    if step < warmup:
        return (step + 1) / warmup
    if decay == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def regulariser(step: int, *, warmup: int) -> float:
    """What the FLOPs regulariser is multiplied with in a step: rises with the square of the step (Formal et al., 2021)."""
    return min(1.0, ((step + 1) / warmup) ** 2) if warmup else 1.0


class Average:
    """Averages the parameters that learn; `decay` 0 means that there is no average, only the parameters."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self.shadow: dict[str, Tensor] = {}
        if decay:
            self.shadow = {name: value.detach().clone() for name, value in model.named_parameters()}

    def update(self, model: nn.Module) -> None:
        """Take a step's parameters in: `a = decay * a + (1 - decay) * p`."""
        for name, value in model.named_parameters():
            if name in self.shadow and value.requires_grad:
                self.shadow[name].lerp_(value.detach(), 1 - self._decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model with the averages as its parameters, within."""
        if not self.shadow:
            yield
            return
        kept = {name: value.detach().clone() for name, value in model.named_parameters()}
        try:
            _copy(self.shadow, model)
            yield
        finally:
            _copy(kept, model)


def _copy(values: dict[str, Tensor], model: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(values[name])
