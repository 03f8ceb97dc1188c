"""The source kind `csv`: tables in CSV and TSV with a header line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from stair_es.errors import UsageError
from stair_es.sources.base import ListingFailure, SourceItem
from stair_es.sources.io.files import ListedFile
from stair_es.sources.io.lines import check_blank_bytes, skip_line
from stair_es.sources.io.open_file import open_unpacked
from stair_es.sources.io.uris import CSV_SUFFIXES
from stair_es.sources.kinds.table import TableKind, TableSource, find_image_column
from stair_es.sources.limits import MAX_BLANK_BYTES, MAX_CSV_ROW_CHARS


class CsvSource(TableSource):
    """Rows of CSV or TSV."""

    def _read_rows(self, table: ListedFile) -> Iterator[SourceItem | ListingFailure]:
        with open_unpacked(table) as file:
            text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
            try:
                yield from self._parse_rows(text, table)
            finally:
                text.detach()  # the file is closed where it was opened; standard input stays open

    def _parse_rows(self, text: io.TextIOWrapper, table: ListedFile) -> Iterator[SourceItem | ListingFailure]:
        lines = _CsvLines(text)
        first = text.readline(MAX_CSV_ROW_CHARS)
        if not first.strip():
            raise UsageError(f"{table.uri} has no header line", "The first line must name the columns.", code="no-header-line")
        if "\0" in first or any("\udc80" <= letter <= "\udcff" for letter in first):
            raise UsageError(
                f"the header line of {table.uri} isn't UTF-8",
                "Save it as CSV in UTF-8, or specify its format with --format.",
                code="header-not-utf-8",
            )
        if not first.endswith(("\n", "\r")) and text.read(1):
            raise UsageError(
                f"the header line of {table.uri} has more than {MAX_CSV_ROW_CHARS:,} characters",
                "Check that the file is CSV.",
                code="header-too-long",
            )
        delimiter = "\t" if table.uri.lower().removesuffix(".gz").endswith(".tsv") else max(",;\t|", key=first.count)
        names = next(csv.reader([first], delimiter=delimiter))
        self._check_columns(names, table)
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        column = find_image_column(names, self._options.image_column)
        while lines.begin_row():
            line = lines.number
            try:
                cells = next(rows)
            except csv.Error as error:
                yield ListingFailure(f"{table.uri}#line={line}", self.uri, f"not CSV, up to line {lines.number}: {error}")
                continue
            yield self._convert_row(names, cells, column, table, line)

    def _convert_row(
        self, names: list[str], cells: list[str], column: str | None, table: ListedFile, line: int
    ) -> SourceItem | ListingFailure:
        where = f"{table.uri}#line={line}"
        if len(cells) != len(names):
            return ListingFailure(where, self.uri, f"{len(cells)} values in {len(names)} columns")
        if any("\udc80" <= letter <= "\udcff" for cell in cells if not cell.isascii() for letter in cell):
            return ListingFailure(where, self.uri, "not UTF-8")
        row = dict(zip(names, cells, strict=True))
        return self._try_item(row, column or find_image_column(row), table, f"line={line}")


class _CsvLines:
    """The lines below the header, for `csv.reader`, which does not limit the length of a row."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._first = ""
        self._chars = 0
        self.number = 1

    def begin_row(self) -> bool:
        """Go to the next non-empty line and return whether there is one."""
        blank = self._chars = 0
        while (line := self._text.readline(MAX_CSV_ROW_CHARS)) in ("\n", "\r\n", "\r"):
            self.number += 1
            blank += len(line)
            if blank > MAX_BLANK_BYTES:
                check_blank_bytes(blank, self.number)
        self.number += 1
        self._first = line
        return bool(line)

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        if self._first:
            line, self._first = self._first, ""
        elif line := self._text.readline(MAX_CSV_ROW_CHARS):
            self.number += 1
        else:
            raise StopIteration
        self._chars += len(line)
        if self._chars >= MAX_CSV_ROW_CHARS:
            if not line.endswith(("\n", "\r")):
                skip_line(self._text, self.number)
            raise csv.Error(f"a row of more than {MAX_CSV_ROW_CHARS:,} characters")
        return line


KIND = TableKind("csv", "CSV and TSV (.csv, .tsv, .gz) with image paths or URLs; local or remote, globs", CSV_SUFFIXES, CsvSource)
