"""What changes with the step: the learning rate and the weight of the FLOPs regulariser. Pure."""

from __future__ import annotations

import math


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
