"""Reports of tables, for the smaller evaluations, and Markdown tables."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

_MAX_PROBLEMS = 5


@dataclass(frozen=True, kw_only=True)
class ReportTable:
    """A table of formatted cells."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    heading: str = ""


@dataclass(frozen=True, kw_only=True)
class TableReport:
    """Tables, the values behind them, and remarks."""

    title: str
    about: str
    tables: tuple[ReportTable, ...]
    values: Mapping[str, Any] = field(repr=False)
    """Values for JSON."""
    remarks: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    """Skipped parts, with reasons."""
    packages: tuple[str, ...] = ("stair-es", "numpy")
    """Packages whose versions are listed."""
    seconds: float

    def to_markdown(self) -> str:
        """Return the report as Markdown."""
        parts = [f"# {self.title}", self.about, *render_problems(self.problems)]
        for table in self.tables:
            parts += [*([f"## {table.heading}"] if table.heading else []), render_table(table.head, table.rows)]
        if self.remarks:
            parts.append("\n".join(f"- {remark}" for remark in self.remarks))
        parts.append(", ".join(f"{name} {number}" for name, number in self._list_versions().items()) + f"; {self.seconds:.1f} s")
        return "\n\n".join(parts) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return {
            **self.values,
            "remarks": list(self.remarks),
            "problems": list(self.problems),
            "versions": self._list_versions(),
            "seconds": round(self.seconds, 2),
        }

    def _list_versions(self) -> dict[str, str]:
        return {"python": platform.python_version(), **{name: version(name) for name in self.packages}}


def format_percent(fraction: float) -> str:
    """Format a fraction as percent with one decimal."""
    return f"{100 * fraction:.1f}"


def render_problems(problems: Sequence[str]) -> list[str]:
    """Return the first few problems as one paragraph, or none."""
    if not problems:
        return []
    more = len(problems) - _MAX_PROBLEMS
    lines = [f"- {problem}" for problem in problems[:_MAX_PROBLEMS]]
    head = f"{len(problems)} entries were" if len(problems) > 1 else "1 entry was"
    return ["\n".join([f"{head} left out:\n", *lines, *([f"- and {more} more"] if more > 0 else [])])]


def render_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Render a pipe table with aligned columns; `|` and line breaks in cells are escaped."""
    cells = [[_escape_cell(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    lines = [head, ["-" * width for width in widths], *cells]
    return "\n".join(
        "| " + " | ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def shorten_cell(text: str) -> str:
    """Shorten a text for a cell."""
    return text if len(text) <= 40 else text[:37] + "..."


def _escape_cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
