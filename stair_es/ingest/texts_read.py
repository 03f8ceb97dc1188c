"""Sources of texts: one text per line (`.txt`), or a column of JSON Lines, CSV or TSV. The bytes of their items are the text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import orjson

from stair_es.errors import SourceError, UsageError
from stair_es.sources.delimited import Delimited
from stair_es.sources.files import OfFiles
from stair_es.sources.item import Item, Read, Reading, Source, SourceOptions, Unlisted
from stair_es.sources.jsonl import JsonLines
from stair_es.sources.lines import numbered
from stair_es.sources.local_file import Inline
from stair_es.sources.opened import files_at, opened
from stair_es.sources.paths import CSV, JSONL, LIST, STDIN, ends_with
from stair_es.sources.tables import OPTIONS, Table
from stair_es.sources.values import check_fields_size, json_safe

if TYPE_CHECKING:
    from stair_es.sources.files import Found
    from stair_es.types import Json

TextFormat: TypeAlias = Literal["txt", "jsonl", "csv"]

TEXT_COLUMNS = ("text", "caption", "captions")
"""Default names of the text column; the first one that exists is used."""
LONGEST_BYTES = 1 << 20
"""Maximum length of a line of a `.txt` file; encoders use only a few hundred words of a text."""
_SCALARS = (bool, int, float, str)


@dataclass(frozen=True)
class _Several:
    """The locator of all texts of a row, until they are split."""

    texts: tuple[str, ...] = field(repr=False)

    def read(self, reading: Reading, known: str | None = None) -> Read | None:
        return Read("\n".join(self.texts).encode())

    def to_json(self) -> None:
        return None


class _TextTable(Table):
    """Rows with texts instead of images; subclasses parse the rows."""

    def items(self) -> Iterator[Item | Unlisted]:
        """Yield the texts; a row with several texts gives one item each."""
        try:
            for each in super().items():
                if isinstance(each, Item) and isinstance(each.place, _Several):
                    yield from _apart(each, each.place.texts)
                else:
                    yield each
        except UsageError as error:  # a missing column: tables name the options for images only
            raise UsageError(error.message, error.remedy.replace(OPTIONS, "Choose with --text-column.")) from None

    def _item(self, row: Mapping[str, Any], column: str | None, table: Found, position: str) -> Item | Unlisted:
        where = f"{table.uri}#{position}"
        column = self._options.image_column or next((name for name in TEXT_COLUMNS if name in row), None)
        if column is None:
            return Unlisted(
                where, self.uri, f"no column with a text (--text-column); there are: {', '.join(map(str, row))[:300]}"
            )
        texts = _texts(row.get(column))
        if not texts:
            return Unlisted(where, self.uri, f"no text in column {column!r}")
        fields = _others(row, column)
        check_fields_size({**fields, "caption": max(texts, key=len)})
        return Item(where, self.uri, _Several(texts), None, fields)


class _JsonTexts(_TextTable, JsonLines):
    """Texts in JSON Lines."""


class _DelimitedTexts(_TextTable, Delimited):
    """Texts in CSV or TSV."""


class _Lines(OfFiles):
    """One text per line; empty lines are skipped."""

    def items(self) -> Iterator[Item | Unlisted]:
        for each in self._files.found():
            if isinstance(each, Unlisted):
                yield each
                continue
            try:
                with opened(each) as file:
                    for number, line in numbered(file, LONGEST_BYTES):
                        if number == 1 and each.uri == STDIN and _is_object(line):
                            raise UsageError("the texts on standard input look like JSON Lines", "Add --format jsonl.")
                        if line is None or line.strip():
                            yield self._text(line, f"{each.uri}#line={number}")
            except SourceError as error:
                yield Unlisted(each.uri, self.uri, error.message)

    def _text(self, line: bytes | None, where: str) -> Item | Unlisted:
        if line is None:
            return Unlisted(where, self.uri, "the line is too long")
        try:
            return _item(where, self.uri, line.decode().strip(), {})
        except UnicodeDecodeError:
            return Unlisted(where, self.uri, "not UTF-8")


def text_source(argument: str, format_: TextFormat | None = None, column: str | None = None) -> Source:
    """Open the source of a FILE argument: a path, a glob, a URL supported by fsspec, or `-` for standard input.

    Args:
        argument: The argument.
        format_: Format of the file; None to detect it from the name (standard input then has one text per line).
        column: Column with the text; None for the first of `TEXT_COLUMNS`.

    Raises:
        UsageError: If there is no such file, its format can't be detected, or a column is given for a format without columns.
    """
    format_ = format_ or _format_of(argument)
    if format_ == "txt":
        if column is not None:
            raise UsageError(f"{argument!r} has one text per line, and no column {column!r}", "Name the format: --format jsonl")
        return _Lines(files_at(argument, LIST))
    options = SourceOptions(image_column=column)
    if format_ == "jsonl":
        return _JsonTexts(files_at(argument, JSONL), options)
    return _DelimitedTexts(files_at(argument, CSV), options)


def _format_of(argument: str) -> TextFormat:
    if argument == "-" or ends_with(argument, LIST):
        return "txt"
    if ends_with(argument, JSONL):
        return "jsonl"
    if ends_with(argument, CSV):
        return "csv"
    raise UsageError(
        f"can't detect the format of {argument!r} from its name",
        "Texts come from .txt, .jsonl, .csv and .tsv (.gz, too); otherwise use --format.",
    )


def _item(uri: str, source: str, text: str, fields: Mapping[str, Json]) -> Item:
    return Item(uri, source, Inline(text.encode()), None, {**fields, "caption": text})


def _apart(row: Item, texts: tuple[str, ...]) -> Iterator[Item]:
    if len(texts) == 1:
        yield _item(row.uri, row.source, texts[0], row.fields)
        return
    for number, text in enumerate(texts, 1):
        yield _item(f"{row.uri}&text={number}", row.source, text, row.fields)


def _texts(value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(text for each in values if isinstance(each, str) and (text := each.strip()))


def _others(row: Mapping[str, Any], column: str) -> dict[str, Json]:
    """Return the other columns with scalar values; lists and objects can't be fields of a text."""
    fields = {
        name: json_safe(value)
        for name, value in row.items()
        if name not in (column, "caption") and isinstance(value, _SCALARS) and value != ""
    }
    return {name: value for name, value in fields.items() if value is not None}


def _is_object(line: bytes | None) -> bool:
    try:
        return isinstance(orjson.loads(line or b""), dict)
    except orjson.JSONDecodeError:
        return False
