"""What a run did."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from stair_es.cluster.words_sync import WordsReport
from stair_es.ingest.batch import STAGES, Stage


@dataclass(frozen=True, kw_only=True)
class DeadReason:
    """Why some images are dead."""

    stage: Stage
    reason: str
    """Of the first of them: others may name other numbers."""
    images: int
    example: str
    """URI of the first of them."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a run did."""

    seen: int
    written: int
    unchanged: int
    dead: int
    removed: int
    """Documents whose image is gone (`--resync`)."""
    documents: int
    """Different documents of the images that have one: fewer than images where ids go by content and contents repeat."""
    seconds: float
    """From the first image to the last refresh."""
    stage_seconds: dict[Stage, float]
    """Summed over all workers, so more than `seconds` where several work side by side."""
    encoder_idle: float | None
    """0..1: share of the time in which the encoders had nothing to do, from their first batch to their last."""
    bulk_requests: int
    bulk_busy: int
    """How many of them found the cluster busy or away and were repeated."""
    index: str
    """The concrete index that was written."""
    alias: str
    swapped: bool
    """The alias stands for a newly built index from this run on."""
    unfinished: str
    """Why a newly built index doesn't stand behind the alias yet; empty otherwise."""
    pruned: tuple[str, ...]
    """Retired indices that were deleted."""
    model: str
    runner: str
    dead_letters: str | None
    """The JSONL file, where images are dead."""
    dead_reasons: tuple[DeadReason, ...] = ()
    """The commonest, most images first."""
    words_index: WordsReport | None = None
    """What was done to the words index, where there is one."""

    def is_complete(self, *, allow_failed: bool = False) -> bool:
        """Whether all tokens are in the index of tokens, where there is one, and no image failed (or that is allowed)."""
        return not ((self.dead and not allow_failed) or (self.words_index and self.words_index.failed))

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        rate = self.seen / self.seconds if self.seconds else 0.0
        total = sum(self.stage_seconds.values()) or 1.0
        return {
            **{name: getattr(self, name) for name in ("seen", "written", "unchanged", "dead", "removed", "documents")},
            "seconds": round(self.seconds, 3),
            "images_per_s": round(rate, 2),
            "stage_seconds": {stage: round(self.stage_seconds.get(stage, 0.0), 3) for stage in STAGES},
            "stage_share": {stage: round(self.stage_seconds.get(stage, 0.0) / total, 3) for stage in STAGES},
            "encoder_idle": None if self.encoder_idle is None else round(self.encoder_idle, 3),
            **{name: getattr(self, name) for name in ("bulk_requests", "bulk_busy", "index", "alias", "swapped", "unfinished")},
            "pruned": list(self.pruned),
            "words_index": self.words_index.to_json() if self.words_index else None,
            **{name: getattr(self, name) for name in ("model", "runner", "dead_letters")},
            "dead_reasons": [asdict(reason) for reason in self.dead_reasons],
        }
