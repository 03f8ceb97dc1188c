"""Log training metrics to CSV files, and to TensorBoard if it is installed."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

CSV_FILE, SPEED_FILE = "log.csv", "speed.csv"
_COLUMNS = ("step", "stage", "kind", "name", "value")


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
