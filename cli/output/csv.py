"""CSV (RFC 4180) for other programs, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stair_es.errors import OptionConflict

from .bars import escape_control
from .console import print_plain, stdout

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Cell = str | int | float | bool | None

OutputFormat = Literal["text", "json", "csv"]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV with a header to stdout.")]
_QUOTE_MARK = "'"
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def select_output_format(*, as_json: bool, as_csv: bool) -> OutputFormat:
    """Return the output format that `--json` and `--csv` select; `text` without either.

    Raises:
        UsageError: If both were given.
    """
    if as_json and as_csv:
        raise OptionConflict("--json and --csv are mutually exclusive", "Leave one of them out.")
    return "json" if as_json else "csv" if as_csv else "text"


def escape_formula(text: str) -> str:
    """Escape a text that a spreadsheet would run as a formula with a leading quote mark.

    A text that begins with the mark gets another one, so removing one leading mark restores the text.
    """
    return _QUOTE_MARK + text if text.startswith((*_FORMULA_STARTS, _QUOTE_MARK)) else text


def format_csv(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Format the table, without a final line end."""
    return "\n".join(_format_row([_escape_cell(value) for value in row]) for row in (header, *rows))


def emit_csv(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """Print the table to stdout."""
    print_csv(format_csv(header, rows))


def print_csv(table: str) -> None:
    """Print lines of a table to stdout: unchanged for a program, escaped on a terminal."""
    if stdout.is_terminal:
        table = "\n".join(escape_control(line, stdout.encoding) for line in table.split("\n"))
    print_plain(table)


def _escape_cell(value: Cell) -> Cell:
    if isinstance(value, bool):
        return str(value).lower()
    return escape_formula(value.encode("utf-8", "backslashreplace").decode()) if isinstance(value, str) else value


def _format_row(cells: Sequence[Cell]) -> str:
    out = io.StringIO()
    # A carriage return must be quoted: some versions quote only the line terminator.
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return out.getvalue().removesuffix("\r\n")
