"""The books of a run: one outcome an image, and sums that add up."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from stair_es.cluster.bulk import Sent
from stair_es.cluster.words_sync import WordsReport
from stair_es.errors import IngestError
from stair_es.ingest.batch import STAGES, Batch, Outcome, Stage
from stair_es.ingest.dead_letters import DeadLetters
from stair_es.ingest.manifest import Manifest

_NUMBERS = re.compile(r"\d+")
_HOST = re.compile(r"\S+: ")
"""What a failed request begins with: numbers in it tell hosts apart."""
_MOST_REASONS = 1000
"""More different ones are not told apart: memory must not grow with what strangers answer."""


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


@dataclass
class Traffic:
    """The bulk requests of a run."""

    requests: int = 0
    busy: int = 0
    """How many of them found the cluster busy or away and were repeated."""
    documents: int = 0
    bytes: int = 0

    def observe(self, request: Sent) -> None:
        """Take in one more."""
        self.requests += 1
        self.busy += request.busy
        self.documents += request.documents
        self.bytes += request.bytes


@dataclass
class Books:
    """Keeps one outcome an image while a run goes on, and checks that none is missing or double at its end."""

    manifest: Manifest
    dead_letters: DeadLetters
    kinds: Counter[str] = field(default_factory=Counter)
    dead_stages: Counter[Stage] = field(default_factory=Counter)
    stage_seconds: defaultdict[Stage, float] = field(default_factory=lambda: defaultdict(float))
    traffic: Traffic = field(default_factory=Traffic)
    encoder_idle: float | None = None
    """See `Report`; so far."""
    removed: int = 0
    """Documents whose image is gone."""
    listed: int = 0
    """Images that the sources named so far."""
    listing_done: bool = False
    waiting: str = ""
    """What hosts are waited for now, for people."""
    _reasons: dict[tuple[Stage, str], DeadReason] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """Images that have their outcome."""
        return self.kinds.total()

    def list(self, uri: str, source: str) -> bool:
        """An image was named by a source; whether it is new to the run."""
        new = self.manifest.add(uri, source)
        self.listed += new
        return new

    def enter(self, batch: Batch) -> None:
        """Take in a finished batch.

        Raises:
            IngestError: An image comes twice, was never listed, or left the last stage without an outcome.
        """
        outcomes = batch.outcomes()
        if len(outcomes) != len(batch.images):
            raise IngestError(f"{len(batch.images) - len(outcomes)} images left the last stage without an outcome")
        self.enter_outcomes(outcomes)
        for stage, seconds in batch.seconds.items():
            self.stage_seconds[stage] += seconds

    def enter_outcomes(self, outcomes: Iterable[Outcome]) -> None:
        """Take in outcomes that no stage made, or those of a batch (see `enter`)."""
        taken = tuple(outcomes)
        self.manifest.settle((outcome.item.uri, outcome.id) for outcome in taken)
        for outcome in taken:
            self.kinds[outcome.kind] += 1
            if outcome.kind == "dead":
                self.dead_stages[outcome.stage] += 1
                self._count_reason(outcome)
                self.dead_letters.add(outcome)

    def _count_reason(self, outcome: Outcome) -> None:
        key = (outcome.stage, _mask_numbers(outcome.reason)[:200])
        known = self._reasons.get(key)
        if known is None and len(self._reasons) < _MOST_REASONS:
            known = DeadReason(stage=outcome.stage, reason=outcome.reason, images=0, example=outcome.item.uri)
        if known is not None:
            self._reasons[key] = replace(known, images=known.images + 1)

    def dead_reasons(self, most: int = 3) -> tuple[DeadReason, ...]:
        """The commonest reasons why images are dead; those that differ in numbers alone, but not in the host, are one."""
        return tuple(sorted(self._reasons.values(), key=lambda reason: -reason.images)[:most])

    def counts(self) -> dict[str, int]:
        """`{kind: images}` and `seen`: for reports, of failed runs too."""
        return {"seen": self.listed, **{kind: self.kinds[kind] for kind in ("written", "unchanged", "dead")}}

    def describe_stop(self, noun: str) -> str:
        """What a run that failed left behind, for people; `noun` is what it takes in, in the plural."""
        stored = self.kinds["written"] + self.kinds["unchanged"]
        if not stored:
            return f"the run stopped; none of {self.listed:,} {noun} was stored"
        return f"the run stopped with {stored:,} of {self.listed:,} {noun} stored; the next run goes on from there"

    def close(self) -> None:
        """Check the sums.

        Raises:
            IngestError: Images are without an outcome.
        """
        self.dead_letters.close()
        unsettled = self.manifest.unsettled()
        if unsettled or self.done != self.listed:
            raise IngestError(f"the counts don't add up: {self.counts()}, {unsettled} images without an outcome")


def _mask_numbers(reason: str) -> str:
    host = _HOST.match(reason)
    begin = host.end() if host else 0
    return reason[:begin] + _NUMBERS.sub("#", reason[begin:])
