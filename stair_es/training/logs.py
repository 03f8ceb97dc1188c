"""What a training writes down as it goes: a CSV file, and events for TensorBoard where it is installed."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

CSV_FILE, SPEED_FILE = "log.csv", "speed.csv"
_COLUMNS = ("step", "stage", "kind", "name", "value")


class Logs:
    """One row a value: step, stage, kind (`train`, or the name of a validation set), name, value.

    Speed and memory have a file of their own: `log.csv` is the same for the same configuration, whatever ran beside.
    """

    def __init__(self, folder: Path, step: int) -> None:
        """Go on with the logs of a folder.

        Args:
            folder: Made if it isn't there.
            step: The one that the training goes on from; rows of later ones are of a run that was broken off, and are taken out.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._files = [_continued(folder / name, step) for name in (CSV_FILE, SPEED_FILE)]
        self._writers = [csv.DictWriter(file, _COLUMNS) for file in self._files]
        self._board = _board(folder / "tensorboard", step + 1)

    def add(self, step: int, stage: str, kind: str, values: Mapping[str, float]) -> None:
        """Write values down; the kind `speed` goes to its own file."""
        place = int(kind == "speed")
        for name, value in values.items():
            self._writers[place].writerow({"step": step, "stage": stage, "kind": kind, "name": name, "value": f"{value:.6g}"})
            if self._board is not None:
                self._board.add_scalar(f"{kind}/{name}", value, step)
        self._files[place].flush()

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()
        if self._board is not None:
            self._board.close()


def _continued(path: Path, step: int) -> TextIO:
    """The file, without the rows after a step, to be written on. Kept whole until the shorter one is there."""
    kept = [row for row in _rows(path) if int(row["step"]) <= step]
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(kept)
    temporary.replace(path)
    return path.open("a", newline="", encoding="utf-8")


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if None not in row.values() and (row.get("step") or "").isdigit()]


def _board(folder: Path, step: int) -> Any:  # noqa: ANN401  a SummaryWriter, or None
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step)
