"""The exponential moving average of a model's parameters (Polyak and Juditsky, 1992)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


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
