"""The books of a run: one outcome an image, and sums that add up."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from stair_es.cluster.bulk import Sent
from stair_es.errors import IngestError
from stair_es.ingest.batch import Batch, Outcome, Stage
from stair_es.ingest.dead_letters import DeadLetters
from stair_es.ingest.manifest import Manifest
from stair_es.ingest.report import DeadReason

_NUMBERS = re.compile(r"\d+")
_HOST = re.compile(r"\S+: ")
"""What a failed request begins with: numbers in it tell hosts apart."""
_MOST_REASONS = 1000
"""More different ones are not told apart: memory must not grow with what strangers answer."""


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
