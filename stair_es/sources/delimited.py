"""The source kind `csv`: tables in CSV and TSV with a header line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from stair_es.errors import UsageError
from stair_es.sources.arguments import CSV, ends_with
from stair_es.sources.files import Found
from stair_es.sources.item import Item, Source, SourceOptions, Unlisted
from stair_es.sources.opened import files_at, opened
from stair_es.sources.tables import Table, image_column


class Delimited(Table):
    """Rows of CSV or TSV."""

    def _rows(self, table: Found) -> Iterator[Item | Unlisted]:
        with opened(table) as file:
            text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
            try:
                yield from self._parsed(text, table)
            finally:
                text.detach()  # what is open is closed where it was opened; standard input stays open

    def _parsed(self, text: io.TextIOWrapper, table: Found) -> Iterator[Item | Unlisted]:
        first = text.readline(1 << 20)
        if not first.strip():
            raise UsageError(f"{table.uri} has no header line", "The first line must name the columns.")
        if "\0" in first or any("\udc80" <= letter <= "\udcff" for letter in first):
            raise UsageError(
                f"the header line of {table.uri} isn't UTF-8", "Save it as CSV in UTF-8, or name its kind with --format."
            )
        delimiter = "\t" if table.uri.lower().removesuffix(".gz").endswith(".tsv") else max(",;\t|", key=first.count)
        names = next(csv.reader([first], delimiter=delimiter))
        self._checked(names, table)
        rows = csv.reader(text, delimiter=delimiter, strict=True)
        column = image_column(names, self._options.image_column)
        for _ in count():
            line = rows.line_num + 2
            try:
                cells = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                yield Unlisted(f"{table.uri}#line={line}", self.uri, f"not CSV, up to line {rows.line_num + 1}: {error}")
                continue
            if cells:
                yield self._row(names, cells, column, table, line)

    def _row(self, names: list[str], cells: list[str], column: str | None, table: Found, line: int) -> Item | Unlisted:
        where = f"{table.uri}#line={line}"
        if len(cells) != len(names):
            return Unlisted(where, self.uri, f"{len(cells)} values in {len(names)} columns")
        if any("\udc80" <= letter <= "\udcff" for cell in cells if not cell.isascii() for letter in cell):
            return Unlisted(where, self.uri, "not UTF-8")
        row = dict(zip(names, cells, strict=True))
        return self._item(row, column or image_column(row), table, f"line={line}")


@dataclass(frozen=True)
class DelimitedKind:
    """Opens `csv` sources."""

    name: str = "csv"
    description: str = "CSV and TSV (.csv, .tsv, .gz) with image paths or URLs; local or remote, globs"

    def claims(self, argument: str) -> bool:
        """By suffix."""
        return ends_with(argument, CSV)

    def open(self, argument: str, options: SourceOptions) -> Source:
        """The source; nothing is read yet."""
        return Delimited(files_at(argument, CSV), options)


KIND = DelimitedKind()
