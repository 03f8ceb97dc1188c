"""The source kind `parquet`: Parquet tables with a column of image bytes, paths or URLs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from stair_es.errors import SourceError, StairError, UsageError
from stair_es.extras import need
from stair_es.sources.arrow_rows import Row, find_places, reopened, rows_of
from stair_es.sources.cells import CellOf
from stair_es.sources.files import Found
from stair_es.sources.item import Item, Source, SourceOptions, Unlisted
from stair_es.sources.limits import FIELDS_BYTES, LINE_BYTES
from stair_es.sources.object_places import ObjectAt
from stair_es.sources.opened import files_at, not_stdin, raw
from stair_es.sources.paths import PARQUET, ends_with
from stair_es.sources.references import Referred
from stair_es.sources.remote import AGAIN, reason_of
from stair_es.sources.tables import Table, image_column
from stair_es.sources.values import chosen, explain


class Parquet(Table):
    """Rows of Parquet. Unrequested columns and image bytes are not read while listing."""

    def _rows(self, table: Found) -> Iterator[Item | Unlisted]:
        parquet = need("pyarrow.parquet", "tables")
        try:
            with raw(table) as file:
                yield from self._of(parquet.ParquetFile(file, pre_buffer=False), file, table)
        except StairError:
            raise
        except Exception as error:
            raise SourceError(f"{table.uri} can't be read to its end: {reason_of(error)}", AGAIN) from error

    def _of(self, whole: Any, file: BinaryIO, table: Found) -> Iterator[Item | Unlisted]:  # noqa: ANN401  pyarrow has no types
        schema = whole.schema_arrow
        self._checked(schema.names, table)
        column = _image_column(schema, self._options.image_column)
        if column is None:
            raise UsageError(
                f"{table.uri} has no column with an image", f"Name one of these with --image-column: {', '.join(schema.names)}."
            )
        types = schema.types
        binary = {name for name, place in find_places(schema.names).items() if _holds_bytes(types[place])}
        in_cell = column in binary
        names = [name for name in self._wanted(schema.names) if name != column and name not in binary]
        whole = reopened(whole, file)
        limits = dict.fromkeys(names, FIELDS_BYTES) | ({} if in_cell else {column: LINE_BYTES})  # it may hold a data: URI
        first = 0
        for group in range(whole.num_row_groups):
            rows, taken = whole.metadata.row_group(group).num_rows, 0
            try:
                for values in rows_of(whole, file, group, limits):
                    cell = self._cell_of(table, group, taken, column) if in_cell else None
                    yield self._row(values, column, cell, table, f"row={first + taken}")
                    taken += 1
            except Exception as error:  # noqa: BLE001  the following row groups must be read
                lost = f"{table.uri}#rows={first + taken}-{first + rows - 1}"
                yield Unlisted(lost, self.uri, f"these rows can't be read: {explain(error)}")
            first += rows

    def _wanted(self, names: list[str]) -> list[str]:
        columns = set(self._options.columns.values() or ("caption", "text", "txt"))
        return [name for name in names if name in columns or "*" in columns]

    def _row(self, values: Row, column: str, cell: CellOf | None, table: Found, position: str) -> Item | Unlisted:
        if isinstance(values, str):
            return Unlisted(f"{table.uri}#{position}", self.uri, values)
        if cell is None:
            return self._take(values, column, table, position)
        try:
            fields = chosen(values, self._options.columns, column)
        except Exception as error:  # noqa: BLE001  the following rows must be read
            return Unlisted(f"{table.uri}#{position}", self.uri, explain(error))
        return self._made(Referred(None, cell), fields, f"{table.uri}#{position}", table)

    @staticmethod
    def _cell_of(table: Found, group: int, row: int, column: str) -> CellOf:
        secret = table.place.secret_url if isinstance(table.place, ObjectAt) else None
        return CellOf(table.uri, group, row, column, table.version, secret)


def _image_column(schema: Any, named: str | None) -> str | None:  # noqa: ANN401
    """Return `named`, else a column chosen by name, else the only column that holds bytes."""
    by_name = image_column(schema.names, named)
    if by_name is not None:
        return by_name
    binary = [field.name for field in schema if _holds_bytes(field.type)]
    return str(binary[0]) if len(binary) == 1 else None


def _holds_bytes(kind: Any) -> bool:  # noqa: ANN401
    """Return whether cells are bytes, or the struct `{"bytes", "path"}` of Hugging Face."""
    types = need("pyarrow", "tables").types
    if types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type))
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


@dataclass(frozen=True)
class ParquetKind:
    """Opens `parquet` sources."""

    name: str = "parquet"
    description: str = "Parquet (.parquet) with image bytes, paths or URLs in a column; local or remote, globs"

    def claims(self, argument: str) -> bool:
        """Return whether the argument has a Parquet suffix."""
        return ends_with(argument, PARQUET)

    def open(self, argument: str, options: SourceOptions) -> Source:
        """Return the source, without reading from it.

        Raises:
            MissingExtra: If pyarrow is not installed.
            UsageError: If the argument is standard input, or a path that does not exist.
        """
        not_stdin(argument, "Parquet")
        need("pyarrow", "tables")
        return Parquet(files_at(argument, PARQUET, options.walk), options)


KIND = ParquetKind()
