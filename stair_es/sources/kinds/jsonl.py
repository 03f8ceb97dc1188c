"""The source kind `jsonl`: one JSON object per line, each with an image and its fields."""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from stair_es.sources.base import ListingFailure, SourceItem, SourceOptions
from stair_es.sources.io.files import FileLister, ListedFile
from stair_es.sources.io.lines import read_numbered_lines
from stair_es.sources.io.open_file import open_unpacked
from stair_es.sources.io.uris import JSONL_SUFFIXES
from stair_es.sources.kinds.table import ColumnTracker, TableKind, TableSource, find_image_column
from stair_es.sources.limits import MAX_JSON_LINE_BYTES, MAX_JSON_LINE_MARKS

_MARKS = (b",", b":", b"[", b"{")


class JsonLinesSource(TableSource):
    """Rows of JSON Lines."""

    def __init__(self, files: FileLister, options: SourceOptions) -> None:
        super().__init__(files, options)
        self._expected = ColumnTracker(self._named_columns)

    def list_items(self) -> Iterator[SourceItem | ListingFailure]:
        """Yield one item per row. Each named column must occur in some row, not in every row or file."""
        for item in super().list_items():
            yield item
            self._expected.check_missing(self.uri)
        self._expected.check_missing(self.uri, at_end=True)

    def _read_rows(self, table: ListedFile) -> Iterator[SourceItem | ListingFailure]:
        in_base64 = self._options.read_limits.max_bytes * 4 // 3
        longest = min(MAX_JSON_LINE_BYTES, in_base64 + (1 << 20))  # an image, and its fields
        with open_unpacked(table) as file:
            for number, line in read_numbered_lines(file, longest):
                yield self._convert_row(line, number, table)

    def _convert_row(self, line: bytes | None, number: int, table: ListedFile) -> SourceItem | ListingFailure:
        where = f"{table.uri}#line={number}"
        if line is None:
            return ListingFailure(where, self.uri, "the line is too long")
        # Before the parser creates objects for them.
        if len(line) > MAX_JSON_LINE_MARKS and sum(map(line.count, _MARKS)) > MAX_JSON_LINE_MARKS:
            return ListingFailure(where, self.uri, f"more than {MAX_JSON_LINE_MARKS:,} commas, colons and brackets in one line")
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return ListingFailure(where, self.uri, f"not JSON: {error}")
        if not isinstance(row, dict):
            return ListingFailure(where, self.uri, f"not a JSON object but a {type(row).__name__}")
        self._expected.observe_row(row)
        column = find_image_column(row, self._options.image_column)
        return self._try_item(row, column or self._options.image_column, table, f"line={number}")


KIND = TableKind(
    "jsonl",
    "JSON Lines (.jsonl, .ndjson, .gz) with image paths, URLs or base64 bytes; local or remote, globs",
    JSONL_SUFFIXES,
    JsonLinesSource,
)
