"""The report of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from stair_es.ingest.sinks.base import SinkResult
from stair_es.ingest.state import OUTCOME_KINDS, STAGES, IngestStage


@dataclass(frozen=True, kw_only=True)
class FailureReason:
    """A reason for failed images."""

    stage: IngestStage
    reason: str
    """Reason of the first such image; the others may contain other numbers."""
    images: int
    example: str
    """URI of the first such image."""


@dataclass(frozen=True, kw_only=True)
class RunTotals:
    """What the accounting of a run has at its end."""

    seen: int
    written: int
    unchanged: int
    failed: int
    forgotten: int
    """Images left out, since they are on the list of forgotten images."""
    removed: int
    """Documents removed because their image is gone (`--resync`)."""
    documents: int
    """Distinct documents of the images: fewer than images if ids go by content and contents repeat."""
    stage_seconds: dict[IngestStage, float]
    """Summed over all workers, so possibly more than the duration of the run."""
    encoder_idle: float | None
    """Share of time in which the encoders were idle, 0..1, from their first batch to their last."""
    start_seconds: float | None
    """Seconds until the first image was written: listing, Ray, the model. None if none was written."""
    bulk_requests: int
    bulk_retries: int
    dead_letters: str | None
    """Path of the dead-letter file, if images failed."""
    failure_reasons: tuple[FailureReason, ...] = ()
    """The most frequent reasons of failures, most images first."""


@dataclass(frozen=True, kw_only=True)
class IngestReport(RunTotals, SinkResult):
    """The report of a run."""

    seconds: float
    """Duration from the first image to the last refresh."""
    index: str
    """The concrete index that was written."""
    alias: str
    model: str
    runner: str
    remarks: tuple[str, ...] = ()
    """What the user should know about the copied columns, such as numbers that are stored as text."""

    def is_complete(self, *, allow_failed: bool = False) -> bool:
        """Return whether all tokens are in the token index, if there is one, and no image failed (or failures are allowed)."""
        return not ((self.failed and not allow_failed) or (self.token_index and self.token_index.failed))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON for `--json`."""
        rate = self.seen / self.seconds if self.seconds else 0.0
        total = sum(self.stage_seconds.values()) or 1.0
        return {
            **{name: getattr(self, name) for name in ("seen", *OUTCOME_KINDS, "removed", "documents")},
            "seconds": round(self.seconds, 3),
            "images_per_s": round(rate, 2),
            "stage_seconds": {stage: round(self.stage_seconds.get(stage, 0.0), 3) for stage in STAGES},
            "stage_share": {stage: round(self.stage_seconds.get(stage, 0.0) / total, 3) for stage in STAGES},
            "encoder_idle": None if self.encoder_idle is None else round(self.encoder_idle, 3),
            "start_seconds": None if self.start_seconds is None else round(self.start_seconds, 3),
            **{name: getattr(self, name) for name in ("bulk_requests", "bulk_retries", "index", "alias", "swapped")},
            "not_swapped_reason": self.not_swapped_reason,
            "deleted_indices": list(self.deleted_indices),
            "token_index": self.token_index.to_json() if self.token_index else None,
            **{name: getattr(self, name) for name in ("model", "runner", "dead_letters")},
            "failure_reasons": [asdict(reason) for reason in self.failure_reasons],
            "remarks": list(self.remarks),
        }
