"""A report of a few tables: what the smaller evaluations have to say."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from stair_es.eval.markdown import problem_list, table


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as people read them."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    heading: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Tables, the values behind them, and what must be known of both."""

    title: str
    about: str
    tables: tuple[Table, ...]
    values: Mapping[str, Any] = field(repr=False)
    """For JSON."""
    remarks: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    """What was left out, and why."""
    packages: tuple[str, ...] = ("stair-es", "numpy")
    """Whose versions count."""
    seconds: float

    def markdown(self) -> str:
        """The whole report."""
        parts = [f"# {self.title}", self.about, *problem_list(self.problems)]
        for each in self.tables:
            parts += [*([f"## {each.heading}"] if each.heading else []), table(each.head, each.rows)]
        if self.remarks:
            parts.append("\n".join(f"- {remark}" for remark in self.remarks))
        parts.append(", ".join(f"{name} {number}" for name, number in self._versions().items()) + f"; {self.seconds:.1f} s")
        return "\n\n".join(parts) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            **self.values,
            "remarks": list(self.remarks),
            "problems": list(self.problems),
            "versions": self._versions(),
            "seconds": round(self.seconds, 2),
        }

    def _versions(self) -> dict[str, str]:
        return {"python": platform.python_version(), **{name: version(name) for name in self.packages}}


def percent(share: float) -> str:
    """With one decimal, as in every table."""
    return f"{100 * share:.1f}"
