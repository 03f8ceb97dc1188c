"""The result of a benchmark, in one format for its output and for the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stair_es.eval.tables import ReportTable, render_table

__all__ = ["Ratio", "ReportTable", "Result", "render_ratios"]


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A measured ratio, what it compares, and its goal."""

    what: str
    against: str
    value: float
    """Our value divided by the other one; without a comparison, the value itself."""
    goal: float = 1.0
    at_most: bool = False
    """Whether lower is better, as for times and bytes."""

    @property
    def is_met(self) -> bool:
        """Whether the printed value meets the goal."""
        return round(self.value, 2) <= self.goal if self.at_most else round(self.value, 2) >= self.goal

    @property
    def verdict(self) -> str:
        """The verdict in words: `ahead` or `behind` for a goal of 1."""
        won, lost = ("ahead", "**behind**") if self.goal == 1 else ("met", "**missed**")
        return won if self.is_met else lost

    def to_row(self) -> tuple[str, str, str, str, str]:
        """Return the row of the table; its columns are `RATIO_HEAD`."""
        bound = f"at {'most' if self.at_most else 'least'} {self.goal:g}"
        return self.what, self.against, f"{self.value:.2f}", bound, self.verdict


RATIO_HEAD = ("metric", "compared with", "measured", "goal", "result")


def render_ratios(ratios: Sequence[Ratio]) -> str:
    """Render the ratios as a table in Markdown."""
    return render_table(RATIO_HEAD, [ratio.to_row() for ratio in ratios])


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of one run of a benchmark."""

    about: str
    """Sizes, rounds and other parameters of the numbers."""
    tables: tuple[ReportTable, ...] = ()
    ratios: tuple[Ratio, ...] = ()
    remarks: tuple[str, ...] = ()
    """Notes for the reader, such as what was left out and why."""
    figures: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """All figures, unrounded, for programs."""

    def to_markdown(self, level: int = 2) -> str:
        """Return everything except the figures. Headings of tables have this level."""
        parts = [self.about]
        for each in self.tables:
            parts += [*([f"{'#' * level} {each.heading}"] if each.heading else []), render_table(each.head, each.rows)]
        if self.ratios:
            parts.append(render_ratios(self.ratios))
        if self.remarks:
            parts.append("\n".join(f"- {remark}" for remark in self.remarks))
        return "\n\n".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return it as values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Result:
        """Return what `to_dict` was called on."""
        return cls(
            about=values["about"],
            tables=tuple(
                ReportTable(head=tuple(each["head"]), rows=tuple(map(tuple, each["rows"])), heading=each["heading"])
                for each in values["tables"]
            ),
            ratios=tuple(Ratio(**each) for each in values["ratios"]),
            remarks=tuple(values["remarks"]),
            figures=values["figures"],
        )

    @classmethod
    def read(cls, file: Path) -> Result:
        """Return what `--json` wrote."""
        return cls.from_dict(json.loads(file.read_text(encoding="utf-8")))
