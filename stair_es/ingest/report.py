"""The books of a run: one outcome an image, and sums that add up."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

from stair_es.errors import IngestError
from stair_es.ingest.stages import STAGES, Batch, Outcome, Stage


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a run did."""

    seen: int
    written: int
    unchanged: int
    dead: int
    seconds: float
    """From the first image to the last refresh."""
    stage_seconds: dict[Stage, float]
    """Summed over all workers, so more than `seconds` where several work side by side."""
    index: str
    """The concrete index that was written."""
    alias: str
    model: str
    runner: str
    dead_letters: str | None
    """The JSONL file, where images are dead."""

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        rate = self.seen / self.seconds if self.seconds else 0.0
        return {
            **{name: getattr(self, name) for name in ("seen", "written", "unchanged", "dead")},
            "seconds": round(self.seconds, 3),
            "images_per_s": round(rate, 2),
            "stage_seconds": {stage: round(self.stage_seconds.get(stage, 0.0), 3) for stage in STAGES},
            **{name: getattr(self, name) for name in ("index", "alias", "model", "runner", "dead_letters")},
        }


class DeadLetters:
    """A JSONL file of dead images (`uri`, `source`, `stage`, `reason`, `at`); made with the first one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._file: IO[str] | None = None

    def prepare(self) -> None:
        """Make its folder and remove the letters of an earlier run, before there is one to write.

        Raises:
            IngestError: The file couldn't be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)
            self.path.touch()
            self.path.unlink()
        except OSError as error:
            raise self._unwritable(error) from error

    def add(self, outcome: Outcome) -> None:
        """Write one line, at once: it must survive whatever happens next.

        Raises:
            IngestError: The file can't be written.
        """
        line = {
            "uri": outcome.ref.uri,
            "source": outcome.ref.source,
            "stage": outcome.stage,
            "reason": outcome.reason,
            "at": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        }
        try:
            if self._file is None:
                self._file = self.path.open("w", encoding="utf-8")
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error
        self.count += 1

    def _unwritable(self, error: OSError) -> IngestError:
        return IngestError(f"can't write dead letters to {self.path}: {error.strerror}", "Use --dead-letters FILE.")

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.close()


@dataclass
class Books:
    """Keeps one outcome an image while a run goes on, and checks that none is missing or double at its end."""

    expected: set[str]
    dead_letters: DeadLetters
    kinds: Counter[str] = field(default_factory=Counter)
    stage_seconds: defaultdict[Stage, float] = field(default_factory=lambda: defaultdict(float))
    _open: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self._open = set(self.expected)

    @property
    def done(self) -> int:
        """Images that have their outcome."""
        return self.kinds.total()

    def enter(self, batch: Batch) -> None:
        """Take in a finished batch.

        Raises:
            IngestError: An image comes twice, was never asked for, or left the last stage without an outcome.
        """
        outcomes = batch.outcomes()
        if len(outcomes) != len(batch.images):
            raise IngestError(f"{len(batch.images) - len(outcomes)} images left the last stage without an outcome")
        self.enter_outcomes(outcomes)
        for stage, seconds in batch.seconds.items():
            self.stage_seconds[stage] += seconds

    def enter_outcomes(self, outcomes: Iterable[Outcome]) -> None:
        """Take in outcomes that no stage made, or those of a batch (see `enter`)."""
        for outcome in outcomes:
            if outcome.ref.uri not in self._open:
                raise IngestError(f"an outcome too many for {outcome.ref.uri}")
            self._open.remove(outcome.ref.uri)
            self.kinds[outcome.kind] += 1
            if outcome.kind == "dead":
                self.dead_letters.add(outcome)

    def close(self) -> None:
        """Check the sums.

        Raises:
            IngestError: Images are without an outcome.
        """
        self.dead_letters.close()
        if self._open:
            some = ", ".join(sorted(self._open)[:3])
            raise IngestError(f"{len(self._open)} images ended without an outcome, among them {some}")
