"""Training callbacks, and the log of metrics in CSV files, and in TensorBoard if it is installed."""

from __future__ import annotations

import csv
import os
import queue
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TextIO, TypeAlias

from stair_es.types import PartProgressCallback

CallbackName: TypeAlias = Literal["message", "metrics", "progress"]
CallbackEvent: TypeAlias = tuple[CallbackName, tuple[Any, ...]]
"""Name of a callback of `Callbacks`, and its arguments."""
CSV_FILE, SPEED_FILE = "log.csv", "speed.csv"
_COLUMNS = ("step", "stage", "kind", "name", "value")


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


class MetricLogger:
    """Logger with one row per value: step, stage, kind (`train`, or the name of a validation set), name, value.

    Speed and memory go to a separate file, so that `log.csv` is reproducible for the same configuration.
    """

    def __init__(self, folder: Path, step: int) -> None:
        """Open the logs of a folder, and remove rows after `step`.

        Args:
            folder: Created if it doesn't exist.
            step: Step that the training resumes from; rows of later steps belong to an interrupted run and are removed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._files = [_resume_file(folder / name, step) for name in (CSV_FILE, SPEED_FILE)]
        self._writers = [csv.DictWriter(file, _COLUMNS) for file in self._files]
        self._tensorboard = _open_tensorboard(folder / "tensorboard", step + 1)

    def log_metrics(self, step: int, stage: str, kind: str, values: Mapping[str, float]) -> None:
        """Log values at a step; the kind `speed` has its own file.

        Args:
            step: Completed steps of all stages.
            stage: Name of the stage.
            kind: `train`, `speed`, or the name of a validation set.
            values: Values by name.
        """
        index = int(kind == "speed")
        for name, value in values.items():
            self._writers[index].writerow({"step": step, "stage": stage, "kind": kind, "name": name, "value": f"{value:.6g}"})
            if self._tensorboard is not None:
                self._tensorboard.add_scalar(f"{kind}/{name}", value, step)
        self._files[index].flush()

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()


def _resume_file(path: Path, step: int) -> TextIO:
    """Reopen a log file without the rows after a step. The old file is kept until the new one is complete."""
    kept = [row for row in _read_rows(path) if int(row["step"]) <= step]
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(kept)
    temporary.replace(path)
    return path.open("a", newline="", encoding="utf-8")


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if None not in row.values() and (row.get("step") or "").isdigit()]


def _open_tensorboard(folder: Path, step: int) -> Any:  # noqa: ANN401  a SummaryWriter, or None
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step)
