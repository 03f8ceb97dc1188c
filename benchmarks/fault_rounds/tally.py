"""What the rounds came to, as a result with a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from result import Ratio, ReportTable, Result

from .base import Round
from .kinds import KINDS
from .truth import Counts

HEAD = ("kind", "what happens", "rounds", "went on", "by rerun", "lost", "doubled", "foreign", "other", "s a round")


@dataclass
class Tally:
    """Of one kind."""

    rounds: int = 0
    went_on: int = 0
    """Rounds in which the disturbed run did all by itself."""
    counts: Counts = field(default_factory=Counts)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, one: Round) -> None:
        """Take in a round."""
        self.rounds += 1
        self.went_on += one.went_on
        self.counts += one.counts
        self.wrong += one.wrong
        self.seconds += one.seconds

    def cells(self, name: str) -> tuple[str, ...]:
        """As a row below `HEAD`."""
        counts = (self.rounds, self.went_on, self.rounds - self.went_on)
        bad = (self.counts.lost, self.counts.doubled, self.counts.foreign, len(self.wrong))
        return (name, KINDS[name].about, *map(str, counts), *map(str, bad), f"{self.seconds / max(1, self.rounds):.1f}")


def make_result(tallies: Mapping[str, Tally], about: str, remarks: Sequence[str], figures: Mapping[str, Any]) -> Result:
    """A line a kind, and the sums."""
    rounds = sum(tally.rounds for tally in tallies.values())
    total = sum((tally.counts for tally in tallies.values()), Counts())
    wrong = [f"{name}: {what}" for name, tally in tallies.items() for what in tally.wrong]
    sums = {"lost": total.lost, "doubled": total.doubled, "foreign": total.foreign, "other failed checks": len(wrong)}
    return Result(
        about=f"{rounds} rounds: **{', '.join(f'{value} {what}' for what, value in sums.items())}**; {about}",
        tables=(ReportTable(head=HEAD, rows=tuple(tally.cells(name) for name, tally in tallies.items())),),
        ratios=tuple(
            Ratio(what=f"{what}, in {rounds} rounds", against="", value=value, goal=0, at_most=True)
            for what, value in sums.items()
        ),
        remarks=(*remarks, *wrong),
        figures={
            **figures,
            "rows": {name: {**vars(tally), "counts": vars(tally.counts)} for name, tally in tallies.items()},
        },
    )


def is_clean(tallies: Mapping[str, Tally]) -> bool:
    """Whether nothing was lost, doubled, foreign or else wrong."""
    return not any(tally.wrong or tally.counts != Counts() for tally in tallies.values())
