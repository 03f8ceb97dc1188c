"""Run accounting: one outcome per image, and sums that are checked at the end."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from stair_es.errors import IngestError
from stair_es.ingest.accounting.counted_images import generalize_reason
from stair_es.ingest.accounting.dead_letters import DeadLetters
from stair_es.ingest.accounting.manifest import Manifest
from stair_es.ingest.accounting.report import FailureReason, RunTotals
from stair_es.ingest.state import OUTCOME_KINDS, Batch, IngestStage, Outcome
from stair_es.sources.base import ListingFailure, SourceItem
from stair_es.store import BulkRequestStats

_SHOWN_REASONS = 3
_MAX_REASONS = 1000
"""Maximum number of distinct reasons: memory must not grow with untrusted responses."""
_MAX_SHOWN_CHARS = 1000
"""Of a reason, and of the URI of its example."""


@dataclass
class BulkStats:
    """Statistics of the bulk requests of a run."""

    requests: int = 0
    retried: int = 0
    """Number of requests that were retried because the cluster was busy or unreachable."""
    documents: int = 0
    size_bytes: int = 0

    def record_request(self, request: BulkRequestStats) -> None:
        """Add one request."""
        self.requests += 1
        self.retried += request.busy
        self.documents += request.documents
        self.size_bytes += request.size_bytes


@dataclass
class RunAccounting:
    """Records one outcome per image during a run, and checks at the end that none is missing or duplicated."""

    manifest: Manifest
    dead_letters: DeadLetters
    outcome_counts: Counter[str] = field(default_factory=Counter)
    failed_stages: Counter[IngestStage] = field(default_factory=Counter)
    stage_seconds: defaultdict[IngestStage, float] = field(default_factory=lambda: defaultdict(float))
    bulk_stats: BulkStats = field(default_factory=BulkStats)
    encoder_idle: float | None = None
    """Share of idle time of the encoders so far; see `IngestReport`."""
    start_seconds: float | None = None
    """See `IngestReport`."""
    removed: int = 0
    listed: int = 0
    listing_done: bool = False
    waiting_message: str = ""
    _began_s: float = field(default_factory=time.perf_counter)
    _reasons: dict[tuple[IngestStage, str], FailureReason] = field(default_factory=dict)
    _reason_images: Counter[tuple[IngestStage, str]] = field(default_factory=Counter)

    @property
    def done_count(self) -> int:
        """Number of images that have an outcome."""
        return self.outcome_counts.total()

    def accept_listed(self, found: Sequence[SourceItem | ListingFailure]) -> list[SourceItem]:
        """Return the listed images that are new to the run and have work left. A listing failure becomes a failed image."""
        recorded, counted = list[SourceItem | ListingFailure](), list[ListingFailure]()
        for each in found:
            if isinstance(each, ListingFailure) and self.dead_letters.is_counting(each.source):
                counted.append(each)
            else:
                recorded.append(each)
        new = self.manifest.add_images(recorded)
        self.listed += len(new) + len(counted)
        self._count_outcomes([_fail_listing(each) for each in counted])  # without rows of the manifest: there may be millions
        self.record_outcomes([_fail_listing(each) for each in new if isinstance(each, ListingFailure)])
        return [each for each in new if isinstance(each, SourceItem)]

    def record_batch(self, batch: Batch) -> None:
        """Record a finished batch.

        Raises:
            IngestError: If an image comes twice, was never listed, or left the last stage without an outcome.
        """
        outcomes = batch.get_outcomes()
        if len(outcomes) != len(batch.images):
            raise IngestError(
                f"{len(batch.images) - len(outcomes)} images left the last stage without an outcome",
                code="images-without-outcome",
            )
        self.record_outcomes(outcomes)
        if self.start_seconds is None and self.outcome_counts["written"]:
            self.start_seconds = time.perf_counter() - self._began_s
        for stage, seconds in batch.seconds.items():
            self.stage_seconds[stage] += seconds

    def record_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Record outcomes: those of a batch, or of images that skip the stages."""
        ids = [None if outcome.kind == "forgotten" else outcome.id for outcome in outcomes]
        self.manifest.record_outcomes(
            [(outcome.item.uri, outcome.item.source, id_) for outcome, id_ in zip(outcomes, ids, strict=True)]
        )
        self._count_outcomes(outcomes)

    def _count_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        self.outcome_counts.update(outcome.kind for outcome in outcomes)
        failed = [outcome for outcome in outcomes if outcome.kind == "failed"]
        images = Counter(outcome.item.source for outcome in outcomes)
        images.subtract(outcome.item.source for outcome in failed)
        for source, stored in images.items():
            self.dead_letters.record_stored(source, stored)
        for outcome in failed:
            self.failed_stages[outcome.stage] += 1
            self._count_reason(outcome)
            self.dead_letters.add(outcome)

    def _count_reason(self, outcome: Outcome) -> None:
        key = (outcome.stage, generalize_reason(outcome.reason))
        if key not in self._reasons and len(self._reasons) < _MAX_REASONS:
            reason, uri = outcome.reason[:_MAX_SHOWN_CHARS], outcome.item.uri[:_MAX_SHOWN_CHARS]
            self._reasons[key] = FailureReason(stage=outcome.stage, reason=reason, images=0, example=uri)
        if key in self._reasons:
            self._reason_images[key] += 1

    def get_failure_reasons(self) -> tuple[FailureReason, ...]:
        """Return the most frequent reasons of failures. Reasons that differ only in numbers, but not in the host, are grouped."""
        return tuple(
            replace(self._reasons[key], images=images) for key, images in self._reason_images.most_common(_SHOWN_REASONS)
        )

    def get_counts(self) -> dict[str, int]:
        """Return `{kind: images}` with `seen`, for reports of failed runs, too."""
        return {"seen": self.listed, **{kind: self.outcome_counts[kind] for kind in OUTCOME_KINDS}}

    def get_totals(self) -> RunTotals:
        """Return the totals at the end of a run."""
        return RunTotals(
            **self.get_counts(),
            removed=self.removed,
            documents=self.manifest.count_documents(),
            stage_seconds=dict(self.stage_seconds),
            encoder_idle=self.encoder_idle,
            start_seconds=self.start_seconds,
            bulk_requests=self.bulk_stats.requests,
            bulk_retries=self.bulk_stats.retried,
            dead_letters=str(self.dead_letters.path) if self.dead_letters.count else None,
            failure_reasons=self.get_failure_reasons(),
        )

    def describe_stop(self, noun: str) -> str:
        """Return a message about what a failed run stored; `noun` names its items, in the plural."""
        stored = self.outcome_counts["written"] + self.outcome_counts["unchanged"]
        if not stored:
            return f"the run stopped; none of {self.listed:,} {noun} was stored"
        return f"the run stopped with {stored:,} of {self.listed:,} {noun} stored; the next run resumes from there"

    def close(self) -> None:
        """Close the dead-letter file; raise IngestError if images are without an outcome."""
        self.dead_letters.close()
        pending = self.manifest.count_pending()
        if pending or self.done_count != self.listed:
            raise IngestError(
                f"the counts don't add up: {self.get_counts()}, {pending} images without an outcome", code="counts-do-not-add-up"
            )


def _fail_listing(failure: ListingFailure) -> Outcome:
    return Outcome(failure.to_item(), "failed", "list", failure.reason)
