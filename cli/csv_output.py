"""Tables for other programs: comma-separated values as RFC 4180 has them, with nothing in them that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stair_es.errors import UsageError

from .bars import visible
from .output import plain, stdout

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Cell = str | int | float | bool | None

Form = Literal["text", "json", "csv"]
Csv = Annotated[bool, typer.Option("--csv", help="Comma-separated values on stdout, with a header.")]
_MARK = "'"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def form_of(*, as_json: bool, as_csv: bool) -> Form:
    """What `--json` and `--csv` ask for.

    Raises:
        UsageError: Both.
    """
    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other", "Leave one of them out.")
    return "json" if as_json else "csv" if as_csv else "text"


def safe(text: str) -> str:
    """A text that no spreadsheet takes for a formula: one that begins like one, or with the mark itself, gets a mark in front.

    So the text is what is left without one leading mark.
    """
    return _MARK + text if text.startswith((*_FORMULA, _MARK)) else text


def lines(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """The table, without the last line end."""
    return "\n".join(_line([_cell(value) for value in row]) for row in (header, *rows))


def emit_csv(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """The table on stdout."""
    show(lines(header, rows))


def show(table: str) -> None:
    """Lines of a table on stdout: as they are for a program; a person's terminal gets nothing that could drive it."""
    if stdout.is_terminal:
        table = "\n".join(visible(line, stdout.encoding) for line in table.split("\n"))
    plain(table)


def _cell(value: Cell) -> Cell:
    if isinstance(value, bool):
        return str(value).lower()
    return safe(value.encode("utf-8", "backslashreplace").decode()) if isinstance(value, str) else value


def _line(cells: Sequence[Cell]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(cells)  # which it has to quote: some versions quote nothing else
    return out.getvalue().removesuffix("\r\n")
