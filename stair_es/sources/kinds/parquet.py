"""The source kind `parquet`: Parquet tables with a column of image bytes, paths or URLs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from stair_es.errors import ReadError, SourceError, StairError, UsageError
from stair_es.optional import import_optional
from stair_es.sources.base import ListingFailure, Source, SourceItem, SourceOptions
from stair_es.sources.io.files import ListedFile
from stair_es.sources.io.object_store import ObjectLocator
from stair_es.sources.io.open_file import check_not_stdin, open_raw
from stair_es.sources.io.parquet_cell import ParquetCellLocator
from stair_es.sources.io.parquet_rows import (
    ParquetRow,
    explain_row_counts,
    find_column_positions,
    has_tiny_cells,
    open_parquet,
    read_row_group,
    reopen_with_dictionaries,
)
from stair_es.sources.io.remote import RERUN_REMEDY, describe_store_error
from stair_es.sources.io.resolve import ResolvedImage, resolve_image_reference
from stair_es.sources.io.uris import PARQUET_SUFFIXES, get_base_uri
from stair_es.sources.kinds.fields import describe_row_error, select_fields
from stair_es.sources.kinds.table import TableKind, TableSource, find_image_column
from stair_es.sources.limits import MAX_FIELDS_BYTES, MAX_JSON_LINE_BYTES, join_names


class ParquetSource(TableSource):
    """Rows of Parquet. Unrequested columns and image bytes are not read while listing."""

    def _read_rows(self, table: ListedFile) -> Iterator[SourceItem | ListingFailure]:
        try:
            with open_raw(table) as file:
                yield from self._read_table(open_parquet(file), file, table)
        except ReadError as error:
            raise SourceError(f"{table.uri} can't be read: {error.message}", RERUN_REMEDY, code=error.code) from error
        except StairError:
            raise
        except Exception as error:
            raise SourceError(
                f"{table.uri} can't be read to its end: {describe_store_error(error)}", RERUN_REMEDY, code="table-not-read-to-end"
            ) from error

    def _read_table(self, parquet_file: Any, file: BinaryIO, table: ListedFile) -> Iterator[SourceItem | ListingFailure]:  # noqa: ANN401  pyarrow has no types
        schema = parquet_file.schema_arrow
        self._check_columns(schema.names, table)
        column = _choose_image_column(schema, self._options.image_column)
        if column is None:
            raise UsageError(
                f"{table.uri} has no column with an image",
                f"Use one of these with --image-column: {join_names(schema.names)}.",
                code="no-such-column",
            )
        types = schema.types
        binary = {name for name, position in find_column_positions(schema.names).items() if _has_bytes(types[position])}
        in_cell = column in binary
        names = [name for name in self._select_columns(schema.names) if name != column and name not in binary]
        parquet_file = reopen_with_dictionaries(parquet_file, file)
        limits = dict.fromkeys(names, MAX_FIELDS_BYTES)
        if not in_cell:
            limits[column] = MAX_JSON_LINE_BYTES  # it may hold a data: URI
        first_row, secret = 0, table.locator.secret_url if isinstance(table.locator, ObjectLocator) else None
        size_bytes = file.seek(0, 2)
        for group, implausible in enumerate(explain_row_counts(parquet_file, size_bytes)):
            rows, count = parquet_file.metadata.row_group(group).num_rows, 0
            read_cells = in_cell and not implausible and has_tiny_cells(parquet_file, group, column, size_bytes)
            group_limits = {**limits, column: self._options.read_limits.max_bytes} if read_cells else limits
            try:
                if implausible:
                    raise ReadError(implausible, code="parquet-inconsistent")
                for values in read_row_group(parquet_file, file, group, group_limits):
                    cell = ParquetCellLocator(table.uri, group, count, column, table.version, secret) if in_cell else None
                    yield self._convert_row(values, column, cell, table, f"row={first_row + count}")
                    count += 1
            except Exception as error:  # noqa: BLE001  the following row groups must be read
                lost_rows = f"{table.uri}#rows={first_row + count}-{first_row + rows - 1}"
                yield ListingFailure(lost_rows, self.uri, f"these rows can't be read: {describe_row_error(error)}")
            first_row += max(rows, 0)

    def _select_columns(self, names: list[str]) -> list[str]:
        selected = set(self._options.columns.values() or ("caption", "text", "txt"))
        return [name for name in names if name in selected or "*" in selected]

    def _convert_row(
        self, values: ParquetRow, column: str, cell: ParquetCellLocator | None, table: ListedFile, position: str
    ) -> SourceItem | ListingFailure:
        if isinstance(values, str):
            return ListingFailure(f"{table.uri}#{position}", self.uri, values)
        if cell is None:
            return self._try_item(values, column, table, position)
        if column in values and isinstance(empty := resolve_image_reference(values[column], get_base_uri(table.uri)), str):
            return ListingFailure(f"{table.uri}#{position}", self.uri, empty)
        try:
            fields = select_fields(values, self._options.columns, column)
        except Exception as error:  # noqa: BLE001  the following rows must be read
            return ListingFailure(f"{table.uri}#{position}", self.uri, describe_row_error(error))
        return self._build_resolved_item(ResolvedImage(None, cell), fields, f"{table.uri}#{position}", table)


def _choose_image_column(schema: Any, named: str | None) -> str | None:  # noqa: ANN401
    """Return `named`, else a column chosen by name, else the only column that holds bytes."""
    by_name = find_image_column(schema.names, named)
    if by_name is not None:
        return by_name
    binary = [field.name for field in schema if _has_bytes(field.type)]
    return str(binary[0]) if len(binary) == 1 else None


def _has_bytes(kind: Any) -> bool:  # noqa: ANN401
    """Return whether cells are bytes, or the struct `{"bytes", "path"}` of Hugging Face."""
    types = import_optional("pyarrow", "tables").types
    if types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0 and _has_bytes(kind.field("bytes").type))
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


@dataclass(frozen=True)
class _ParquetKind(TableKind):
    def open(self, argument: str, options: SourceOptions) -> Source:
        check_not_stdin(argument, "Parquet")
        import_optional("pyarrow", "tables")
        return super().open(argument, options)


KIND = _ParquetKind(
    "parquet",
    "Parquet (.parquet) with image bytes, paths or URLs in a column; local or remote, globs",
    PARQUET_SUFFIXES,
    ParquetSource,
)
