"""Texts as documents: captions in a separate index, with the same mapping, life cycle and accounting as images.

Sources have one text per line (`.txt`), or a column of JSON Lines, CSV or TSV; the bytes of their items are the text. The `_id`
is derived from the text, so the same text twice is one document.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import orjson

from stair_es.cluster.documents.document import DocumentSettings, make_content_id
from stair_es.errors import SourceError, UsageError
from stair_es.ingest.deferred import MAX_DEFERRED_BYTES, HeldImages
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.state import ImageState, Outcome, Pending
from stair_es.sources.base import ListingFailure, ReadLimits, ReadResult, Source, SourceItem, SourceOptions
from stair_es.sources.io.files import FileSource, ListedFile
from stair_es.sources.io.lines import read_numbered_lines
from stair_es.sources.io.local_file import InlineBytes
from stair_es.sources.io.open_file import create_file_lister, open_unpacked
from stair_es.sources.io.uris import CSV_SUFFIXES, JSONL_SUFFIXES, LIST_SUFFIXES, STDIN_URI, has_source_suffix
from stair_es.sources.kinds.csv import CsvSource
from stair_es.sources.kinds.fields import check_fields_size, make_json_safe
from stair_es.sources.kinds.jsonl import JsonLinesSource
from stair_es.sources.kinds.table import COLUMN_REMEDY, TableSource
from stair_es.sources.limits import join_names
from stair_es.types import Json, Runner, TextFormat

TEXT_COLUMNS = ("text", "caption", "captions")
"""Default names of the text column; the first one that exists is used."""
MAX_LINE_BYTES = 1 << 20
"""Maximum length of a line of a `.txt` file; encoders use only a few hundred words of a text."""
MAX_WAITING_TEXTS = 512
"""Maximum number of texts that wait for an equal one. Their outcomes come in one burst. If they fail, more of them would use up
the dead-letter lines that a source starts with.
"""
_SCALARS = (bool, int, float, str)


@dataclass(frozen=True, kw_only=True)
class TextIngestOptions(IngestOptions):
    """Options of an ingest of texts. The text tower of the model is part of the settings: another one gives other vectors."""

    noun: ClassVar[Literal["image", "text"]] = "text"
    document: DocumentSettings = field(default_factory=lambda: DocumentSettings(thumbnail_px=0, id="content-hash"))
    runner: Runner = "local"
    batch_images: int = 256

    def __post_init__(self) -> None:
        """Check what texts can't have: Ray, and ids of their positions."""
        super().__post_init__()
        if self.runner != "local" or self.document.id != "content-hash":
            raise UsageError(
                "texts are ingested by the runner 'local' and have ids of their content",
                "Leave both options out.",
                code="invalid-text-options",
            )

    @property
    def settings(self) -> dict[str, Json]:
        """The settings that distinguish the documents, and mark the index as one of texts; see `get_content_type`."""
        return {**asdict(self.document), "texts": {"text_tower": self.model.text_tower}}

    @property
    def enricher_versions(self) -> tuple[str, ...]:
        """The text tower, which is part of each fingerprint."""
        return (f"text_tower={self.model.text_tower}",)


class EqualTexts(HeldImages):
    """Texts that are equal to one on its way: they wait for its outcome, so that the first one is written."""

    def __init__(self, has_document: Callable[[str], bool]) -> None:
        """Start without texts. `has_document` returns whether a document was stored by this run, or found to be up to date."""
        super().__init__(MAX_WAITING_TEXTS, MAX_DEFERRED_BYTES)
        self._has_document = has_document
        self._waiting: dict[str, int] = {}
        """`_id` of each text on its way -> number of later ones."""

    def route_image(self, image: Pending) -> Pending | Outcome | None:
        """Return the text if it is the first one, None if it waits, or its outcome if it is stored."""
        id_ = _make_text_id(image.item)
        if id_ in self._waiting:
            self._waiting[id_] += 1
            self._images.append(image._replace(deferral_key=id_))
            return None
        if self._has_document(id_):
            return Outcome(image.item, "unchanged", "check", id=id_)
        self._waiting[id_] = 0
        return image

    def observe_result(self, image: Pending, state: ImageState) -> list[Outcome]:
        """Return the outcomes of the texts that waited for this one: unchanged, or failed or forgotten like it."""
        id_ = _make_text_id(image.item)
        waiting = self._images.take(self._waiting.pop(id_), lambda other: other.deferral_key == id_)
        assert isinstance(state, Outcome)  # no text is deferred by a host
        if state.kind in ("failed", "forgotten"):
            return [state._replace(item=other.item) for other in waiting]
        return [Outcome(other.item, "unchanged", "check", id=state.id) for other in waiting]


def _make_text_id(item: SourceItem) -> str:
    read = item.locator.read(ReadLimits())
    return make_content_id(hashlib.sha256(read.data if read else b"").hexdigest())


@dataclass(frozen=True)
class _TextsLocator:
    """The locator of all texts of a row, until they are split."""

    texts: tuple[str, ...] = field(repr=False)

    def read(self, limits: ReadLimits, known_version: str | None = None) -> ReadResult | None:
        return ReadResult("\n".join(self.texts).encode())

    def to_json(self) -> None:
        return None


class _TextTable(TableSource):
    """Rows with texts instead of images; subclasses parse the rows."""

    def list_items(self) -> Iterator[SourceItem | ListingFailure]:
        """Yield the texts; a row with several texts gives one item each."""
        try:
            for item in super().list_items():
                if isinstance(item, SourceItem) and isinstance(item.locator, _TextsLocator):
                    yield from _split_texts(item, item.locator.texts)
                else:
                    yield item
        except UsageError as error:  # a missing column: tables name the options for images only
            raise UsageError(
                error.message, error.remedy.replace(COLUMN_REMEDY, "Choose with --text-column."), code=error.code
            ) from None

    def _build_item(
        self, row: Mapping[str, Any], column: str | None, table: ListedFile, position: str
    ) -> SourceItem | ListingFailure:
        where = f"{table.uri}#{position}"
        column = self._options.image_column or next((name for name in TEXT_COLUMNS if name in row), None)
        if column is None:
            return ListingFailure(where, self.uri, f"no column with a text (--text-column); there are: {join_names(row)}")
        texts = _extract_texts(row.get(column))
        if not texts:
            return ListingFailure(where, self.uri, f"no text in column {column!r}")
        fields = _extract_fields(row, column)
        check_fields_size({**fields, "caption": max(texts, key=len)})
        return SourceItem(where, self.uri, _TextsLocator(texts), None, fields)


class _JsonTexts(_TextTable, JsonLinesSource):
    """Texts in JSON Lines."""


class _DelimitedTexts(_TextTable, CsvSource):
    """Texts in CSV or TSV."""


class _TextLines(FileSource):
    """One text per line; empty lines are skipped."""

    def list_items(self) -> Iterator[SourceItem | ListingFailure]:
        for listed in self._files.list_files():
            if isinstance(listed, ListingFailure):
                yield listed
                continue
            try:
                with open_unpacked(listed) as file:
                    for number, line in read_numbered_lines(file, MAX_LINE_BYTES):
                        if number == 1 and listed.uri == STDIN_URI and _is_json_object(line):
                            raise UsageError(
                                "the texts on standard input look like JSON Lines",
                                "Add --format jsonl.",
                                code="texts-look-like-other-format",
                            )
                        if line is None or line.strip():
                            yield self._parse_line(line, f"{listed.uri}#line={number}")
            except SourceError as error:
                yield ListingFailure(listed.uri, self.uri, error.message)

    def _parse_line(self, line: bytes | None, where: str) -> SourceItem | ListingFailure:
        if line is None:
            return ListingFailure(where, self.uri, "the line is too long")
        try:
            return _build_text_item(where, self.uri, line.decode().strip(), {})
        except UnicodeDecodeError:
            return ListingFailure(where, self.uri, "not UTF-8")


def open_text_source(argument: str, format_: TextFormat | None = None, column: str | None = None) -> Source:
    """Open the source of a FILE argument: a path, a glob, a URL supported by fsspec, or `-` for standard input.

    Args:
        argument: The argument.
        format_: Format of the file; None to detect it from the name (standard input then has one text per line).
        column: Column with the text; None for the first of `TEXT_COLUMNS`.

    Raises:
        UsageError: If there is no such file, its format can't be detected, or a column is given for a format without columns.
    """
    format_ = format_ or _detect_format(argument)
    if format_ == "txt":
        if column is not None:
            raise UsageError(
                f"{argument!r} has one text per line, and no column {column!r}",
                "Use the format: --format jsonl",
                code="lines-have-no-columns",
            )
        return _TextLines(create_file_lister(argument, LIST_SUFFIXES))
    options = SourceOptions(image_column=column)
    if format_ == "jsonl":
        return _JsonTexts(create_file_lister(argument, JSONL_SUFFIXES), options)
    return _DelimitedTexts(create_file_lister(argument, CSV_SUFFIXES), options)


def _detect_format(argument: str) -> TextFormat:
    if argument == "-" or has_source_suffix(argument, LIST_SUFFIXES):
        return "txt"
    if has_source_suffix(argument, JSONL_SUFFIXES):
        return "jsonl"
    if has_source_suffix(argument, CSV_SUFFIXES):
        return "csv"
    raise UsageError(
        f"can't detect the format of {argument!r} from its name",
        "Texts come from .txt, .jsonl, .csv and .tsv (.gz, too); otherwise use --format.",
        code="unknown-text-format",
    )


def _build_text_item(uri: str, source: str, text: str, fields: Mapping[str, Json]) -> SourceItem:
    return SourceItem(uri, source, InlineBytes(text.encode()), None, {**fields, "caption": text})


def _split_texts(row: SourceItem, texts: tuple[str, ...]) -> Iterator[SourceItem]:
    if len(texts) == 1:
        yield _build_text_item(row.uri, row.source, texts[0], row.fields)
        return
    for number, text in enumerate(texts, 1):
        yield _build_text_item(f"{row.uri}&text={number}", row.source, text, row.fields)


def _extract_texts(value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(text for value in values if isinstance(value, str) and (text := value.strip()))


def _extract_fields(row: Mapping[str, Any], column: str) -> dict[str, Json]:
    """Return the other columns with scalar values; lists and objects can't be fields of a text."""
    fields = {
        name: make_json_safe(value)
        for name, value in row.items()
        if name not in (column, "caption") and isinstance(value, _SCALARS) and value != ""
    }
    return {name: value for name, value in fields.items() if value is not None}


def _is_json_object(line: bytes | None) -> bool:
    try:
        return isinstance(orjson.loads(line or b""), dict)
    except orjson.JSONDecodeError:
        return False
