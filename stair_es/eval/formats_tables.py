"""Caption datasets in tables: TSV as in Conceptual Captions, CSV, Parquet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from stair_es.errors import ReadError, SourceError
from stair_es.eval.formats_entry import Bad, Entry, captions_in, tags_in, wanted
from stair_es.eval.formats_json import LONGEST_LINE
from stair_es.extras import need
from stair_es.sources.delimited import Delimited
from stair_es.sources.files import Found
from stair_es.sources.item import Item, Read, Reading, Source, SourceOptions, Unlisted
from stair_es.sources.lines import numbered
from stair_es.sources.local_file import FileAt
from stair_es.sources.opened import files_at, opened
from stair_es.sources.parquet import Parquet
from stair_es.sources.paths import CSV, IMAGE_SUFFIXES, PARQUET, scheme_of, uri_of
from stair_es.sources.tables import Table, image_column

if TYPE_CHECKING:
    from stair_es.types import Json

ALL = SourceOptions(columns={"*": "*"})
_COUNTER = re.compile(r"#\d+$")
_QUOTED = re.compile(r'"((?:[^"]|"")+)"')


def tsv(path: Path) -> Iterator[Entry | Bad]:
    """Read the images of tab-separated lines: `caption<TAB>image`, the reverse, or columns named by a header.

    Quotes are literal (captions of Conceptual Captions contain single ones), except around a whole cell.
    """
    try:
        shared = _shared_names(path)
        columns: _Columns | None = None
        for number, cells in _cells(path):
            if isinstance(cells, Bad):
                yield cells
            elif columns is None and (named := _Columns.of_header(cells)):
                columns = named
            else:
                columns = columns or _Columns.of_first(cells)
                yield _line(cells, columns, number, shared)
    except SourceError as error:
        yield Bad(path.name, "the rest can't be read", error.message)


@dataclass(frozen=True)
class _Columns:
    """Meaning of the cells of a line."""

    names: tuple[str, ...]
    image: str

    @classmethod
    def of_header(cls, cells: Sequence[str]) -> _Columns | None:
        """Return the columns of a header; None if the line isn't one: it must name image and caption."""
        image = image_column(cells)
        return cls(tuple(cells), image) if image is not None and wanted(cells) else None

    @classmethod
    def of_first(cls, cells: Sequence[str]) -> _Columns:
        """Return the columns of a file without header: the image is the first cell if it has an image suffix, else the second."""
        first = bool(cells) and _looks_like_image(cells[0]) and not (len(cells) > 1 and _looks_like_image(cells[1]))
        return cls(("image", "caption") if first else ("caption", "image"), "image")


def _looks_like_image(cell: str) -> bool:
    return _COUNTER.sub("", cell.partition("?")[0]).lower().endswith(tuple(IMAGE_SUFFIXES))


def _cells(path: Path) -> Iterator[tuple[int, list[str] | Bad]]:
    with opened(Found(uri_of(path), FileAt(uri_of(path)))) as file:
        for number, line in numbered(file, LONGEST_LINE):
            if line is None:
                yield number, Bad(f"line {number}", "too long")
            elif line.strip():
                try:
                    yield number, [_unquoted(cell.strip()) for cell in line.decode().split("\t")]
                except UnicodeDecodeError:
                    yield number, Bad(f"line {number}", "not UTF-8")


def _unquoted(cell: str) -> str:
    whole = _QUOTED.fullmatch(cell) if cell.startswith('"') else None
    return whole[1].replace('""', '"') if whole else cell


def _line(cells: list[str], columns: _Columns, number: int, shared: frozenset[str]) -> Entry | Bad:
    if len(cells) < len(columns.names):
        return Bad(f"line {number}", "too few columns", f"{len(cells)} of {len(columns.names)}")
    return _entry(dict(zip(columns.names, cells, strict=False)), columns.image, f"line {number}", shared)


def _entry(row: Mapping[str, Any], column: str, where: str, shared: frozenset[str]) -> Entry | Bad:
    image = _COUNTER.sub("", str(row[column]))  # `1000092795.jpg#0`, as in the files of Flickr
    captions = captions_in(row)
    if not image:
        return Bad(where, "no image (a path in `image` or `file`)")
    return Entry(image, places_of(image, shared), captions, tags_in(row)) if captions else Bad(where, "no caption", image)


def places_of(image: str, shared: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Return the paths that an image may have, from its path or URL in a row.

    Args:
        image: Path or URL. The file of a URL is named by host and path (as `wget -x` does) or by the last part of the path.
        shared: Last parts that occur in several URLs, and so are ambiguous.
    """
    if scheme_of(image) not in ("http", "https"):
        return (image,)
    parts = urlsplit(image)
    last = parts.path.rpartition("/")[2]
    whole = f"{parts.netloc}{parts.path}"
    names = (whole, unquote(whole)) if last in shared or not last else (whole, unquote(whole), last, unquote(last))
    return tuple(dict.fromkeys(names))


def _shared_names(path: Path) -> frozenset[str]:
    """Return the last path parts that occur in several URLs of the file, and so are ambiguous."""
    seen, shared = dict[str, int](), set[str]()
    for _, cells in _cells(path):
        for cell in cells if isinstance(cells, list) else ():
            if cell.startswith(("http://", "https://")):
                last = urlsplit(cell).path.rpartition("/")[2]
                if seen.setdefault(last, hash(cell)) != hash(cell):
                    shared.add(last)
    return frozenset(shared)


@dataclass(frozen=True)
class _Named:
    """An image that a row names by path or URL, to be resolved against the folder of images."""

    text: str

    def read(self, reading: Reading, known: str | None = None) -> Read | None:
        raise ReadError("the image isn't resolved yet")

    def to_json(self) -> dict[str, Json] | None:
        return None


class _Rows(Table):
    """A table whose paths stay unresolved, and of which only columns of captions and tags are read."""

    def _item(self, row: Mapping[str, Any], column: str | None, table: Found, position: str) -> Item | Unlisted:
        item = super()._item(row, column, table, position)
        named = row.get(column) if column is not None else None
        if isinstance(item, Unlisted) or not isinstance(named, str):
            return item
        return Item(f"{table.uri}#{position}", item.source, _Named(named), None, item.fields)

    def _wanted(self, names: list[str]) -> list[str]:
        return wanted(names)


class _Csv(_Rows, Delimited):
    pass


class _Parquet(_Rows, Parquet):
    pass


def csv(path: Path) -> Iterator[Entry | Bad]:
    """Read the images of CSV with a header.

    Raises:
        UsageError: If the file doesn't exist, or has no header.
    """
    return of_source(_Csv(files_at(str(path), CSV), ALL))


def parquet(path: Path) -> Iterator[Entry | Bad]:
    """Read the images of Parquet files: bytes, Hugging Face's `{"bytes", "path"}`, or paths.

    Args:
        path: A file, a folder or a glob.

    Raises:
        MissingExtra: If pyarrow isn't installed.
        UsageError: If the file doesn't exist, or has no image column.
    """
    need("pyarrow", "tables")
    return of_source(_Parquet(files_at(str(path), PARQUET), ALL))


def of_source(source: Source) -> Iterator[Entry | Bad]:
    """Read the entries of a source of rows or samples."""
    base = re.split(r"[*?\[{]", source.uri)[0]
    if base == source.uri and not any(base.lower().endswith(suffix) for suffix in (*PARQUET, *CSV, ".tar")):
        base += "/"  # a folder
    base = base[: base.rindex("/") + 1]
    try:
        for item in source.items():
            where = unquote(item.uri.removeprefix(base))
            yield Bad(where, item.reason) if isinstance(item, Unlisted) else _of_item(item, where)
    except SourceError as error:
        yield Bad(unquote(source.uri.removeprefix(base)), "the rest can't be read", error.message)


def _of_item(item: Item, where: str) -> Entry | Bad:
    if isinstance(item.place, _Named):
        return _entry({**item.fields, "image": item.place.text}, "image", where, frozenset())
    captions = captions_in(item.fields)
    return Entry(where, (), captions, tags_in(item.fields), item.place) if captions else Bad(where, "no caption")
