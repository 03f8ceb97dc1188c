"""What a training writes down as it goes: a CSV file, and events for TensorBoard where it is installed."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CSV_FILE = "log.csv"
_COLUMNS = ("step", "stage", "kind", "name", "value")


class Logs:
    """One row a value: step, stage, kind (`train`, `speed`, or the name of a validation set), name, value."""

    def __init__(self, folder: Path, step: int) -> None:
        """Go on with the logs of a folder.

        Args:
            folder: Made if it isn't there.
            step: Rows of this step and later ones are of a run that was broken off: they are taken out.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / CSV_FILE
        kept = [row for row in _rows(path) if int(row["step"]) < step]
        self._file = path.open("w", newline="", encoding="utf-8")
        self._csv = csv.DictWriter(self._file, _COLUMNS)
        self._csv.writeheader()
        self._csv.writerows(kept)
        self._board = _board(folder / "tensorboard", step)

    def add(self, step: int, stage: str, kind: str, values: Mapping[str, float]) -> None:
        """Write values down."""
        for name, value in values.items():
            self._csv.writerow({"step": step, "stage": stage, "kind": kind, "name": name, "value": f"{value:.6g}"})
            if self._board is not None:
                self._board.add_scalar(f"{kind}/{name}", value, step)
        self._file.flush()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


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
