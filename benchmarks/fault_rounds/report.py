"""The results of the rounds, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.result import Ratio, ReportTable, Result

from .base import Round
from .cluster_state import Counts
from .kinds import KINDS

HEAD = ("kind", "what happens", "rounds", "completed", "by rerun", "lost", "duplicated", "unexpected", "other", "s per round")


@dataclass
class Tally:
    """Sums over the rounds of one kind."""

    rounds: int = 0
    completed: int = 0
    """Rounds whose disturbed run completed without a rerun."""
    counts: Counts = field(default_factory=Counts)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, result: Round) -> None:
        """Add a round."""
        self.rounds += 1
        self.completed += result.is_completed
        self.counts += result.counts
        self.wrong += result.wrong
        self.seconds += result.seconds

    def to_row(self, name: str) -> tuple[str, ...]:
        """Return the row of the table; its columns are `HEAD`."""
        counts = (self.rounds, self.completed, self.rounds - self.completed)
        bad = (self.counts.lost, self.counts.duplicated, self.counts.unexpected, len(self.wrong))
        return (name, KINDS[name].about, *map(str, counts), *map(str, bad), f"{self.seconds / max(1, self.rounds):.1f}")


def build_result(tallies: Mapping[str, Tally], about: str, remarks: Sequence[str], figures: Mapping[str, Any]) -> Result:
    """Return a row for each kind, and the sums."""
    rounds = sum(tally.rounds for tally in tallies.values())
    total = sum((tally.counts for tally in tallies.values()), Counts())
    wrong = [f"{name}: {what}" for name, tally in tallies.items() for what in tally.wrong]
    sums = {"lost": total.lost, "duplicated": total.duplicated, "unexpected": total.unexpected, "other failed checks": len(wrong)}
    return Result(
        about=f"{rounds} rounds: **{', '.join(f'{value} {what}' for what, value in sums.items())}**; {about}",
        tables=(ReportTable(head=HEAD, rows=tuple(tally.to_row(name) for name, tally in tallies.items())),),
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
    """Return whether no check failed."""
    return not any(tally.wrong or tally.counts != Counts() for tally in tallies.values())


BEGIN, END = "<!-- measured: written by benchmarks/faults.py -->", "<!-- end of what is measured -->"


def write_page(page: Path, result: Result, command: str, machine: Mapping[str, Any], load: tuple[float, float]) -> None:
    """Replace the text between the comments with the result.

    Raises:
        ValueError: If the page lacks the comments.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} lacks {BEGIN!r} or {END!r}")
    page.write_text(f"{before}{BEGIN}\n\n{_render_result(result, command, machine, load)}\n\n{END}{after}", encoding="utf-8")


def _render_result(result: Result, command: str, machine: Mapping[str, Any], load: tuple[float, float]) -> str:
    versions = ", ".join(
        f"{name} {machine['versions'][name]}" for name in ("Python", "OpenSearch", "opensearch-py", "ray", "stair-es")
    )
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['memory']}; {machine['system']}"
    return "\n\n".join(
        (
            f"`python {command}`",
            f"{result.figures['began']} to {result.figures['ended']} (UTC), commit {machine['commit']}; {where};"
            f" load {load[0]:.1f} to {load[1]:.1f}; {versions}.",
            replace(result, ratios=()).to_markdown(level=3),  # `about` contains the sums
        )
    )
