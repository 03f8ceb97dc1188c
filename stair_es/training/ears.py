"""What a training says of itself as it goes, and who is told."""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

Said: TypeAlias = tuple[str, tuple[Any, ...]]
"""The name of a field of `Ears`, and what it is called with."""


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


class Relay:
    """Keeps what is said until somebody asks; lives in a process of its own, which needs nothing heavy for it."""

    def __init__(self) -> None:
        self._said: queue.SimpleQueue[Said] = queue.SimpleQueue()
        self._result = b""

    def hear(self, what: str, *values: Any) -> None:  # noqa: ANN401
        """Take in a call of one of `Ears`' fields."""
        self._said.put((what, values))

    def said(self) -> list[Said]:
        """What was said since the last time."""
        return [self._said.get() for _ in range(self._said.qsize())]

    def finish(self, result: bytes) -> None:
        """Take in what became of it all, pickled."""
        self._result = result

    def result(self) -> bytes:
        """What became of it all, pickled."""
        return self._result
