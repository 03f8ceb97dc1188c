"""Rows of a Parquet file in batches of bounded size, even if the file is highly compressed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, BinaryIO, TypeAlias

from stair_es.errors import ReadError
from stair_es.optional import import_optional
from stair_es.sources.limits import (
    MAX_DICTIONARY_BYTES,
    MAX_PARQUET_COLUMNS,
    MAX_PARQUET_FOOTER_BYTES,
    PARQUET_BATCH_BYTES,
    PARQUET_BATCH_ROWS,
    PARQUET_FREE_ROWS,
    PARQUET_ROWS_PER_BYTE,
    PARQUET_TINY_CELL_BYTES,
    cut_name,
)

ParquetRow: TypeAlias = "dict[str, Any] | str"
"""Column -> value, or the reason why the row is rejected."""
_VALUE_BYTES = 64
_DICTIONARY_PAGE = 2


def open_parquet(file: BinaryIO) -> Any:  # noqa: ANN401  has no types
    """Open a file as a `ParquetFile`; raise ReadError if its footer is too large."""
    size_bytes = file.seek(0, 2)
    file.seek(max(size_bytes - 8, 0))
    footer_bytes = int.from_bytes(file.read(4), "little")
    if MAX_PARQUET_FOOTER_BYTES < footer_bytes < size_bytes:
        raise ReadError(f"its footer has {footer_bytes:,} bytes, the limit is {MAX_PARQUET_FOOTER_BYTES:,}", code="parquet-limit")
    file.seek(0)
    parquet_file = import_optional("pyarrow.parquet", "tables").ParquetFile(file, pre_buffer=False)
    if (columns := parquet_file.metadata.num_columns) > MAX_PARQUET_COLUMNS:
        raise ReadError(f"it has {columns:,} columns, the limit is {MAX_PARQUET_COLUMNS:,}", code="parquet-limit")
    return parquet_file


def explain_row_counts(parquet_file: Any, size_bytes: int) -> list[str]:  # noqa: ANN401
    """Return for each row group why its number of rows can't be true, or "".

    A row takes hardly less than a bit of its file, but a footer can claim any number, and a page of nulls have any.
    """
    left, reasons = PARQUET_FREE_ROWS + PARQUET_ROWS_PER_BYTE * size_bytes, list[str]()
    for group in range(parquet_file.num_row_groups):
        rows = parquet_file.metadata.row_group(group).num_rows
        is_plausible = 0 <= rows <= left
        left -= rows if is_plausible else 0
        reasons.append("" if is_plausible else f"{rows:,} rows can't be in a file of {size_bytes:,} bytes")
    return reasons


def has_tiny_cells(parquet_file: Any, group: int, name: str, size_bytes: int) -> bool:  # noqa: ANN401
    """Return whether the cells of a column are too small for images, so that most of them are empty, and few bytes in all."""
    meta = parquet_file.metadata.row_group(group)
    columns = [meta.column(number) for number in range(meta.num_columns)]
    cells = [column for column in columns if f"{column.path_in_schema}.".startswith(f"{name}.")]
    packed_bytes = min(sum(column.total_compressed_size for column in cells), size_bytes)
    unpacked_bytes = sum(column.total_uncompressed_size for column in cells)
    return bool(packed_bytes < PARQUET_TINY_CELL_BYTES * meta.num_rows and unpacked_bytes <= PARQUET_BATCH_BYTES)


def reopen_with_dictionaries(parquet_file: Any, file: BinaryIO) -> Any:  # noqa: ANN401
    """Reopen the `ParquetFile` with nested texts as dictionaries: a row may hold a long text a million times."""
    leaves = (parquet_file.schema.column(number) for number in range(parquet_file.metadata.num_columns))
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and _is_nested(leaf)]
    parquet = import_optional("pyarrow.parquet", "tables")
    return parquet.ParquetFile(file, metadata=parquet_file.metadata, read_dictionary=texts, pre_buffer=False)


def read_row_group(parquet_file: Any, file: BinaryIO, group: int, limits: Mapping[str, int]) -> Iterator[ParquetRow]:  # noqa: ANN401  has no types
    """Yield the rows of a row group; `limits` maps the columns to read to the maximum bytes of one value.

    Raises:
        ReadError: If a column's dictionary is too large, or has another number of rows than the footer says.
    """
    expected, count = parquet_file.metadata.row_group(group).num_rows, 0
    if not limits:
        yield from ({} for _ in range(expected))
        return
    batch_rows = _choose_batch_rows(parquet_file, check_dictionary_sizes(parquet_file, file, group, limits), group)
    for batch in parquet_file.iter_batches(batch_size=batch_rows, row_groups=[group], columns=list(limits), use_threads=False):
        columns = {name: batch.column(position) for name, position in find_column_positions(batch.schema.names).items()}
        for values in zip(*(_read_values(column, limits[name]) for name, column in columns.items()), strict=True):
            count += 1
            if count > expected:
                raise ReadError(
                    f"the row group has more than the {expected:,} rows that the footer says", code="parquet-inconsistent"
                )
            row = dict(zip(columns, values, strict=True))
            rejected = ((name, value) for name, value in row.items() if isinstance(value, ReadError))
            yield next((f"column {cut_name(name)!r}: {value}" for name, value in rejected), row)
        del batch, columns  # before the next one is made
    if count < expected:
        raise ReadError(
            f"the row group has only {count:,} of the {expected:,} rows that the footer says", code="parquet-inconsistent"
        )


def find_column_positions(names: list[str]) -> dict[str, int]:
    """Return the position of each column name; for duplicate names that of the first."""
    positions: dict[str, int] = {}
    for position, name in enumerate(names):
        positions.setdefault(name, position)
    return positions


def check_dictionary_sizes(parquet_file: Any, file: BinaryIO, group: int, names: Iterable[str]) -> dict[int, int]:  # noqa: ANN401
    """Check the dictionary sizes of some columns of a row group.

    Returns:
        Number of each column that belongs to `names` -> bytes of its dictionary, 0 for none.

    Raises:
        ReadError: If a dictionary has more than `MAX_DICTIONARY_BYTES`.
    """
    meta, names_set, found = parquet_file.metadata.row_group(group), frozenset(names), dict[int, int]()
    for number in range(meta.num_columns):
        column = meta.column(number)
        path = column.path_in_schema
        if not names_set.isdisjoint(accumulate(path.split("."), "{}.{}".format)):
            found[number] = _read_dictionary_size(file, column)
            if found[number] > MAX_DICTIONARY_BYTES:
                raise ReadError(
                    f"the dictionary of column {path!r} has {found[number]:,} bytes, the limit is {MAX_DICTIONARY_BYTES:,}",
                    code="parquet-limit",
                )
    return found


def _choose_batch_rows(parquet_file: Any, dictionaries: Mapping[int, int], group: int) -> int:  # noqa: ANN401
    """Return how many rows may be unpacked at once if each value is as long as its column's dictionary."""
    meta, row_bytes = parquet_file.metadata.row_group(group), 0.0
    for number, dictionary_bytes in dictionaries.items():
        column, leaf = meta.column(number), parquet_file.schema.column(number)
        values_per_row = column.num_values / max(meta.num_rows, 1) if _is_nested(leaf) else 1  # a count that can be false
        longest = max(0 if _is_nested(leaf) else dictionary_bytes, leaf.length, 8)
        row_bytes += max(column.total_uncompressed_size / max(meta.num_rows, 1), longest * values_per_row)
    return int(min(max(PARQUET_BATCH_BYTES / max(row_bytes, 1), 1), PARQUET_BATCH_ROWS))


def _is_nested(leaf: Any) -> bool:  # noqa: ANN401
    return bool(leaf.path != leaf.name)


def _read_dictionary_size(file: BinaryIO, column: Any) -> int:  # noqa: ANN401
    """Return the unpacked size of a column chunk's dictionary. Only its page header has it, not the file's footer."""
    start = min(column.dictionary_page_offset or column.data_page_offset, column.data_page_offset)
    file.seek(start)
    head = iter(file.read(16))
    try:
        kind, size = _read_varint(head), _read_varint(head)
    except StopIteration:
        return 0
    return size if kind == _DICTIONARY_PAGE else 0


def _read_varint(head: Iterator[int]) -> int:
    """Return the next field of a struct of integers in Thrift's compact protocol: a byte for the field, then a zigzag varint."""
    next(head)
    number = shift = 0
    while True:
        byte = next(head)
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number >> 1


def _read_values(column: Any, max_bytes: int) -> Iterator[Any]:  # noqa: ANN401
    """Yield the values of a column, with a `ReadError` instead of each value that takes more than `max_bytes`."""
    if _estimate_bytes(column) <= max_bytes:
        yield from column.to_pylist()
        return
    for number, scalar in enumerate(column):
        size = (
            _estimate_entry_bytes(scalar)
            if isinstance(scalar, _import_arrow().DictionaryScalar)
            else _estimate_bytes(column.slice(number, 1))
        )
        yield (
            scalar.as_py()
            if size <= max_bytes
            else ReadError(f"{size:,} bytes, the limit is {max_bytes:,}", code="parquet-limit")
        )


def _estimate_bytes(array: Any) -> int:  # noqa: ANN401
    """Return an upper estimate of the bytes that the values of an Arrow array take as Python objects."""
    kind, types = array.type, _import_arrow().types
    size = len(array) * _VALUE_BYTES
    if types.is_dictionary(kind):
        compute = import_optional("pyarrow.compute", "tables")
        lengths = compute.binary_length(array.dictionary) if _is_text(array.dictionary) else None
        return size + (compute.sum(lengths.take(array.indices)).as_py() or 0) if lengths else size
    if types.is_struct(kind):
        return size + sum(map(_estimate_bytes, array.flatten()))
    if types.is_fixed_size_list(kind):
        return size + _estimate_bytes(array.flatten())
    if types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind):
        first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
        children = [array.keys, array.items] if types.is_map(kind) else [array.values]
        return size + sum(_estimate_bytes(child.slice(first, last - first)) for child in children)
    return size + int(array.nbytes)


def _is_text(array: Any) -> bool:  # noqa: ANN401
    types, kind = _import_arrow().types, array.type
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind))


def _estimate_entry_bytes(scalar: Any) -> int:  # noqa: ANN401
    entry = scalar.value
    buffer = entry.as_buffer() if isinstance(entry, _import_arrow().BinaryScalar) else None
    return _VALUE_BYTES + (buffer.size if buffer else 0)


def _import_arrow() -> Any:  # noqa: ANN401
    return import_optional("pyarrow", "tables")
