"""Values that change with the step: the learning rate, the weight of the FLOPs regularizer, and the average of the parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def compute_lr_factor(step: int, *, steps: int, warmup: int, decay: str = "cosine") -> float:
    """Return the factor for the learning rate at a step, 0..1.

    Args:
        step: Step of the stage, from 0.
        steps: Number of steps of the stage.
        warmup: Steps of the linear warm-up.
        decay: `cosine` falls to 0 at the end, `constant` doesn't change.
    """
    if step < warmup:
        return (step + 1) / warmup
    if decay == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def compute_flops_factor(step: int, *, warmup: int) -> float:
    """Return the factor for the FLOPs regularizer at a step: it rises with the square of the step (Formal et al., 2021)."""
    return min(1.0, ((step + 1) / warmup) ** 2) if warmup else 1.0


class EMA:
    """Exponential moving average of trained parameters (Polyak and Juditsky, 1992); with `decay` 0 there is none."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self.shadow: dict[str, Tensor] = {}
        if decay:
            self.shadow = {name: value.detach().clone() for name, value in model.named_parameters()}

    def update(self, model: nn.Module) -> None:
        """Update the average after a step: `a = decay * a + (1 - decay) * p`."""
        for name, value in model.named_parameters():
            if name in self.shadow and value.requires_grad:
                self.shadow[name].lerp_(value.detach(), 1 - self._decay)

    @contextmanager
    def apply_to(self, model: nn.Module) -> Iterator[None]:
        """Use the averages as the model's parameters within the context."""
        if not self.shadow:
            yield
            return
        original = {name: value.detach().clone() for name, value in model.named_parameters()}
        try:
            _copy_values(self.shadow, model)
            yield
        finally:
            _copy_values(original, model)


def _copy_values(values: dict[str, Tensor], model: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(values[name])
