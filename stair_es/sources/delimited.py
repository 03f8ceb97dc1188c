"""The source kind `csv`: tables in CSV and TSV with a header line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

from stair_es.errors import UsageError
from stair_es.sources.files import Found
from stair_es.sources.item import Item, Source, SourceOptions, Unlisted
from stair_es.sources.limits import BLANK_BYTES, CSV_ROW_CHARS
from stair_es.sources.lines import check_blank, skip_line
from stair_es.sources.opened import files_at, opened
from stair_es.sources.paths import CSV, ends_with
from stair_es.sources.tables import Table, image_column


class Delimited(Table):
    """Rows of CSV or TSV."""

    def _rows(self, table: Found) -> Iterator[Item | Unlisted]:
        with opened(table) as file:
            text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
            try:
                yield from self._parsed(text, table)
            finally:
                text.detach()  # the file is closed where it was opened; standard input stays open

    def _parsed(self, text: io.TextIOWrapper, table: Found) -> Iterator[Item | Unlisted]:
        lines = _Lines(text)
        first = text.readline(CSV_ROW_CHARS)
        if not first.strip():
            raise UsageError(f"{table.uri} has no header line", "The first line must name the columns.")
        if "\0" in first or any("\udc80" <= letter <= "\udcff" for letter in first):
            raise UsageError(
                f"the header line of {table.uri} isn't UTF-8", "Save it as CSV in UTF-8, or name its kind with --format."
            )
        if not first.endswith(("\n", "\r")) and text.read(1):
            raise UsageError(
                f"the header line of {table.uri} has more than {CSV_ROW_CHARS:,} characters", "Check that the file is CSV."
            )
        delimiter = "\t" if table.uri.lower().removesuffix(".gz").endswith(".tsv") else max(",;\t|", key=first.count)
        names = next(csv.reader([first], delimiter=delimiter))
        self._checked(names, table)
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        column = image_column(names, self._options.image_column)
        while lines.begin_row():
            line = lines.number
            try:
                cells = next(rows)
            except csv.Error as error:
                yield Unlisted(f"{table.uri}#line={line}", self.uri, f"not CSV, up to line {lines.number}: {error}")
                continue
            yield self._row(names, cells, column, table, line)

    def _row(self, names: list[str], cells: list[str], column: str | None, table: Found, line: int) -> Item | Unlisted:
        where = f"{table.uri}#line={line}"
        if len(cells) != len(names):
            return Unlisted(where, self.uri, f"{len(cells)} values in {len(names)} columns")
        if any("\udc80" <= letter <= "\udcff" for cell in cells if not cell.isascii() for letter in cell):
            return Unlisted(where, self.uri, "not UTF-8")
        row = dict(zip(names, cells, strict=True))
        return self._take(row, column or image_column(row), table, f"line={line}")


class _Lines:
    """The lines below the header, for `csv.reader`, which does not limit the length of a row."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._first = ""
        self._chars = 0
        self.number = 1
        """Number of the line that was read last."""

    def begin_row(self) -> bool:
        """Go to the next non-empty line and return whether there is one.

        Raises:
            SourceError: If too many lines are empty.
        """
        blank = self._chars = 0
        while (line := self._text.readline(CSV_ROW_CHARS)) in ("\n", "\r\n", "\r"):
            self.number += 1
            blank += len(line)
            if blank > BLANK_BYTES:
                check_blank(blank, self.number)
        self.number += 1
        self._first = line
        return bool(line)

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self._first:
            line, self._first = self._first, ""
        elif line := self._text.readline(CSV_ROW_CHARS):
            self.number += 1
        else:
            raise StopIteration
        self._chars += len(line)
        if self._chars >= CSV_ROW_CHARS:
            if not line.endswith(("\n", "\r")):
                skip_line(self._text, self.number)
            raise csv.Error(f"a row of more than {CSV_ROW_CHARS:,} characters")
        return line


@dataclass(frozen=True)
class DelimitedKind:
    """Opens `csv` sources."""

    name: str = "csv"
    description: str = "CSV and TSV (.csv, .tsv, .gz) with image paths or URLs; local or remote, globs"

    def claims(self, argument: str) -> bool:
        """Return whether the argument has a CSV or TSV suffix."""
        return ends_with(argument, CSV)

    def open(self, argument: str, options: SourceOptions) -> Source:
        """Return the source, without reading from it."""
        return Delimited(files_at(argument, CSV, options.walk), options)


KIND = DelimitedKind()
