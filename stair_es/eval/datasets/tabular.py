"""Caption datasets in tables: TSV as in Conceptual Captions, CSV, Parquet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from stair_es.errors import ReadError, SourceError
from stair_es.eval.datasets.entry import CaptionEntry, InvalidEntry, extract_captions, extract_tags, select_caption_columns
from stair_es.eval.datasets.json_formats import MAX_CAPTION_LINE
from stair_es.optional import import_optional
from stair_es.sources.base import ListingFailure, ReadLimits, ReadResult, Source, SourceItem, SourceOptions
from stair_es.sources.io.files import ListedFile
from stair_es.sources.io.lines import read_numbered_lines
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.open_file import create_file_lister, open_unpacked
from stair_es.sources.io.uris import CSV_SUFFIXES, IMAGE_SUFFIXES, PARQUET_SUFFIXES, get_scheme, to_file_uri
from stair_es.sources.kinds.csv import CsvSource
from stair_es.sources.kinds.parquet import ParquetSource
from stair_es.sources.kinds.table import TableSource, find_image_column
from stair_es.types import Json

ALL_COLUMNS = SourceOptions(columns={"*": "*"})
_COUNTER = re.compile(r"#\d+$")
_QUOTED = re.compile(r'"((?:[^"]|"")+)"')


def read_tsv(path: Path) -> Iterator[CaptionEntry | InvalidEntry]:
    """Read the images of tab-separated lines: `caption<TAB>image`, the reverse, or columns named by a header.

    Quotes are literal (captions of Conceptual Captions contain single ones), except around a whole cell.
    """
    try:
        shared = _find_shared_names(path)
        columns: _Columns | None = None
        for number, cells in _read_cells(path):
            if isinstance(cells, InvalidEntry):
                yield cells
            elif columns is None and (named := _Columns.from_header(cells)):
                columns = named
            else:
                columns = columns or _Columns.from_first_row(cells)
                yield _parse_line(cells, columns, number, shared)
    except SourceError as error:
        yield InvalidEntry(path.name, "the rest can't be read", error.message)


@dataclass(frozen=True)
class _Columns:
    """Meaning of the cells of a line."""

    names: tuple[str, ...]
    image: str

    @classmethod
    def from_header(cls, cells: Sequence[str]) -> _Columns | None:
        """Return the columns of a header; None if the line isn't one: it must name image and caption."""
        column = find_image_column(cells)
        return cls(tuple(cells), column) if column is not None and select_caption_columns(cells) else None

    @classmethod
    def from_first_row(cls, cells: Sequence[str]) -> _Columns:
        """Return the columns of a file without header: the image is the first cell if it has an image suffix, else the second."""
        first = bool(cells) and _is_image_name(cells[0]) and not (len(cells) > 1 and _is_image_name(cells[1]))
        return cls(("image", "caption") if first else ("caption", "image"), "image")


def _is_image_name(cell: str) -> bool:
    return _COUNTER.sub("", cell.partition("?")[0]).lower().endswith(tuple(IMAGE_SUFFIXES))


def _read_cells(path: Path) -> Iterator[tuple[int, list[str] | InvalidEntry]]:
    with open_unpacked(ListedFile(to_file_uri(path), FileLocator(to_file_uri(path)))) as file:
        for number, line in read_numbered_lines(file, MAX_CAPTION_LINE):
            if line is None:
                yield number, InvalidEntry(f"line {number}", "too long")
            elif line.strip():
                try:
                    yield number, [_unquote_cell(cell.strip()) for cell in line.decode().split("\t")]
                except UnicodeDecodeError:
                    yield number, InvalidEntry(f"line {number}", "not UTF-8")


def _unquote_cell(cell: str) -> str:
    quoted = _QUOTED.fullmatch(cell) if cell.startswith('"') else None
    return quoted[1].replace('""', '"') if quoted else cell


def _parse_line(cells: list[str], columns: _Columns, number: int, shared: frozenset[str]) -> CaptionEntry | InvalidEntry:
    if len(cells) < len(columns.names):
        return InvalidEntry(f"line {number}", "too few columns", f"{len(cells)} of {len(columns.names)}")
    return _parse_entry(dict(zip(columns.names, cells, strict=False)), columns.image, f"line {number}", shared)


def _parse_entry(row: Mapping[str, Any], column: str, where: str, shared: frozenset[str]) -> CaptionEntry | InvalidEntry:
    image = _COUNTER.sub("", str(row[column]))  # `1000092795.jpg#0`, as in the files of Flickr
    captions = extract_captions(row)
    if not image:
        return InvalidEntry(where, "no image (a path in `image` or `file`)")
    return CaptionEntry(image, list_candidate_paths(image, shared), captions, extract_tags(row))


def list_candidate_paths(image: str, shared: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Return the paths that an image may have, from its path or URL in a row.

    Args:
        image: Path or URL. The file of a URL is named by host and path (as `wget -x` does) or by the last part of the path.
        shared: Last parts that occur in several URLs, and so are ambiguous.
    """
    if get_scheme(image) not in ("http", "https"):
        return (image,)
    parts = urlsplit(image)
    filename = parts.path.rpartition("/")[2]
    url_path = f"{parts.netloc}{parts.path}"
    names = () if filename in shared or not filename else (filename, unquote(filename))
    return tuple(dict.fromkeys((url_path, unquote(url_path), *names)))


def _find_shared_names(path: Path) -> frozenset[str]:
    """Return the last path parts that occur in several URLs of the file, and so are ambiguous."""
    seen, shared = dict[str, int](), set[str]()
    for _, cells in _read_cells(path):
        for cell in cells if isinstance(cells, list) else ():
            if cell.startswith(("http://", "https://")):
                filename = urlsplit(cell).path.rpartition("/")[2]
                if seen.setdefault(filename, hash(cell)) != hash(cell):
                    shared.add(filename)
    return frozenset(shared)


@dataclass(frozen=True)
class _UnresolvedLocator:
    """An image that a row names by path or URL, to be resolved against the folder of images."""

    text: str

    def read(self, limits: ReadLimits, known_version: str | None = None) -> ReadResult | None:
        raise ReadError("the image isn't resolved yet", code="image-unresolved")

    def to_json(self) -> dict[str, Json] | None:
        return None


class _Rows(TableSource):
    """A table whose paths stay unresolved, and of which only columns of captions and tags are read."""

    def _build_item(
        self, row: Mapping[str, Any], column: str | None, table: ListedFile, position: str
    ) -> SourceItem | ListingFailure:
        item = super()._build_item(row, column, table, position)
        reference = row.get(column) if column is not None else None
        if isinstance(item, ListingFailure) or not isinstance(reference, str):
            return item
        return SourceItem(f"{table.uri}#{position}", item.source, _UnresolvedLocator(reference), None, item.fields)

    def _select_columns(self, names: list[str]) -> list[str]:
        return select_caption_columns(names)


class _Csv(_Rows, CsvSource):
    pass


class _Parquet(_Rows, ParquetSource):
    pass


def read_csv(path: Path) -> Iterator[CaptionEntry | InvalidEntry]:
    """Read the images of CSV with a header.

    Raises:
        UsageError: If the file doesn't exist, or has no header.
    """
    return read_source_entries(_Csv(create_file_lister(str(path), CSV_SUFFIXES), ALL_COLUMNS))


def read_parquet(path: Path) -> Iterator[CaptionEntry | InvalidEntry]:
    """Read the images of Parquet files: bytes, Hugging Face's `{"bytes", "path"}`, or paths.

    Raises:
        MissingExtra: If pyarrow isn't installed.
        UsageError: If the file doesn't exist, or has no image column.
    """
    import_optional("pyarrow", "tables")
    return read_source_entries(_Parquet(create_file_lister(str(path), PARQUET_SUFFIXES), ALL_COLUMNS))


def read_source_entries(source: Source) -> Iterator[CaptionEntry | InvalidEntry]:
    """Read the entries of a source of rows or samples."""
    base = re.split(r"[*?\[{]", source.uri)[0]
    if base == source.uri and not any(base.lower().endswith(suffix) for suffix in (*PARQUET_SUFFIXES, *CSV_SUFFIXES, ".tar")):
        base += "/"  # a folder
    base = base[: base.rindex("/") + 1]
    try:
        for item in source.list_items():
            where = unquote(item.uri.removeprefix(base))
            yield InvalidEntry(where, item.reason) if isinstance(item, ListingFailure) else _parse_item(item, where)
    except SourceError as error:
        yield InvalidEntry(unquote(source.uri.removeprefix(base)), "the rest can't be read", error.message)


def _parse_item(item: SourceItem, where: str) -> CaptionEntry | InvalidEntry:
    if isinstance(item.locator, _UnresolvedLocator):
        return _parse_entry({**item.fields, "image": item.locator.text}, "image", where, frozenset())
    return CaptionEntry(where, (), extract_captions(item.fields), extract_tags(item.fields), item.locator)
