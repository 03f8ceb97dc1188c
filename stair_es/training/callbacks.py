"""Training callbacks, and a queue for their calls in other processes."""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from stair_es.types import PartProgressCallback

CallbackName: TypeAlias = Literal["message", "metrics", "progress"]
CallbackEvent: TypeAlias = tuple[CallbackName, tuple[Any, ...]]
"""Name of a callback of `Callbacks`, and its arguments."""


@dataclass(frozen=True)
class StepMetrics:
    """Metrics at one step."""

    stage: str
    step: int
    """Completed steps of all stages."""
    steps: int
    values: dict[str, float]
    """Losses, or recalls of a validation (`set/t2i@1`)."""
    pairs_per_s: float = 0.0
    memory_mb: float = 0.0
    """Peak memory: of the GPU if there is one, else of the process."""


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Callbacks for messages, metrics and progress."""

    on_message: Callable[[str], None]
    """Called with messages for the user."""
    on_metrics: Callable[[StepMetrics], None]
    """Called with metrics."""
    on_progress: PartProgressCallback
    """Called with the progress of a preparation: its name, done, total."""


NO_CALLBACKS = Callbacks(
    on_message=lambda line: None, on_metrics=lambda metrics: None, on_progress=lambda name, done, total: None
)
"""Callbacks that ignore every event."""


class CallbackQueue:
    """Queue of callback events, for a lightweight process that keeps them until they are drained."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[CallbackEvent] = queue.SimpleQueue()
        self._result = b""
        self._starts = 0

    def put(self, name: CallbackName, *args: Any) -> None:  # noqa: ANN401
        """Add a call of one of the callbacks."""
        self._events.put((name, args))

    def drain(self) -> list[CallbackEvent]:
        """Return the events since the last call."""
        return [self._events.get() for _ in range(self._events.qsize())]

    def count_start(self) -> int:
        """Count a start of the training, and return the number of starts before it."""
        self._starts += 1
        return self._starts - 1

    def finish(self, result: bytes) -> None:
        """Store the pickled result of the training, or the error that ended it. The first one counts."""
        self._result = self._result or result

    def get_result(self) -> bytes:
        """Return the pickled result or error; empty if there is none yet."""
        return self._result
