"""What a training says of itself as it goes, and who is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Moment:
    """How it is going."""

    stage: str
    step: int
    """Of all stages together, done."""
    steps: int
    values: dict[str, float]
    """Losses, or recalls of a validation (`set/t2i@1`)."""
    pairs_per_s: float = 0.0
    memory_mb: float = 0.0
    """Peak, of the GPU where there is one, else of the process."""


@dataclass(frozen=True, kw_only=True)
class Ears:
    """Who is told what."""

    say: Callable[[str], None]
    """Remarks for people."""
    tell: Callable[[Moment], None]
    """How the training is going."""
    progress: Callable[[str, int, int], None]
    """How far a preparation is: what, done, of how many."""


DEAF = Ears(say=lambda line: None, tell=lambda moment: None, progress=lambda what, done, total: None)
"""Nobody is told anything."""
