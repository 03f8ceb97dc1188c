"""The record of a run. The page is rendered from records alone, so single records can be updated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from harness.result import Result

Status: TypeAlias = Literal["done", "failed", "not run"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """The record of one command."""

    name: str
    command: str
    """The command as shown on the page."""
    status: Status
    reason: str = ""
    """Why the status isn't `done`."""
    began: str = ""
    """ISO 8601, UTC, to the minute."""
    seconds: float = 0.0
    load: tuple[float, float] = (0.0, 0.0)
    """Load of the machine before and after the run."""
    machine: Mapping[str, Any]
    """See `read_machine`."""
    result: Result | None = None
    """May also be set for a failed run, if a measured value missed its goal."""

    def write(self, file: Path) -> None:
        """Write the record as JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Record:
        """Read a record that `write` wrote."""
        values = json.loads(file.read_text(encoding="utf-8"))
        before, after = values["load"]
        result = Result.from_dict(values["result"]) if values["result"] else None
        return cls(**{**values, "load": (before, after), "result": result})
