"""The source kind `jsonl`: one JSON object per line, each with an image and its fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from stair_es.sources.files import Files, Found
from stair_es.sources.item import Item, Source, SourceOptions, Unlisted
from stair_es.sources.limits import LINE_BYTES, LINE_MARKS
from stair_es.sources.lines import numbered
from stair_es.sources.opened import files_at, opened
from stair_es.sources.paths import JSONL, ends_with
from stair_es.sources.tables import Expected, Table, image_column

_MARKS = (b",", b":", b"[", b"{")


class JsonLines(Table):
    """Rows of JSON Lines."""

    def __init__(self, files: Files, options: SourceOptions) -> None:
        super().__init__(files, options)
        self._expected = Expected(self._named)

    def items(self) -> Iterator[Item | Unlisted]:
        """Yield one item per row. Each named column must occur in some row, not in every row or file."""
        for each in super().items():
            yield each
            self._expected.check(self.uri)
        self._expected.check(self.uri, at_end=True)

    def _rows(self, table: Found) -> Iterator[Item | Unlisted]:
        in_base64 = self._options.reading.max_bytes * 4 // 3
        longest = min(LINE_BYTES, in_base64 + (1 << 20))  # an image, and its fields
        with opened(table) as file:
            for number, line in numbered(file, longest):
                yield self._row(line, number, table)

    def _row(self, line: bytes | None, number: int, table: Found) -> Item | Unlisted:
        where = f"{table.uri}#line={number}"
        if line is None:
            return Unlisted(where, self.uri, "the line is too long")
        if len(line) > LINE_MARKS and sum(map(line.count, _MARKS)) > LINE_MARKS:  # before the parser creates objects for them
            return Unlisted(where, self.uri, f"more than {LINE_MARKS:,} commas, colons and brackets in one line")
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return Unlisted(where, self.uri, f"not JSON: {error}")
        if not isinstance(row, dict):
            return Unlisted(where, self.uri, f"not a JSON object but a {type(row).__name__}")
        self._expected.saw(row)
        column = image_column(row, self._options.image_column)
        return self._take(row, column or self._options.image_column, table, f"line={number}")


@dataclass(frozen=True)
class JsonLinesKind:
    """Opens `jsonl` sources."""

    name: str = "jsonl"
    description: str = "JSON Lines (.jsonl, .ndjson, .gz) with image paths, URLs or base64 bytes; local or remote, globs"

    def claims(self, argument: str) -> bool:
        """Return whether the argument has a JSON Lines suffix."""
        return ends_with(argument, JSONL)

    def open(self, argument: str, options: SourceOptions) -> Source:
        """Return the source, without reading from it."""
        return JsonLines(files_at(argument, JSONL, options.walk), options)


KIND = JsonLinesKind()
