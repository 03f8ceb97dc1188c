"""Convert table values to JSON that every engine accepts."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import orjson

from stair_es.errors import ReadError, StairError
from stair_es.sources.limits import MAX_FIELDS_BYTES, MAX_REPORTED_NAMES, join_names
from stair_es.types import Json

NUMBER_TYPES: Mapping[str, Callable[[Any], int | float]] = {"int": int, "float": float}
"""Types that fields of a table can have, because all CSV values are text."""
CHECKED_ROWS = 1000
"""The first rows of a run, in which mistakes about columns are looked for."""
MAX_JSON_DEPTH = 8
_LONG = 2**63
_VALUE_BYTES = 64
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(?P<fraction>(\.[0-9]+)?([eE][+-]?[0-9]+)?)")
_MAX_NUMBER_CHARS = 40
_LOOKS = ("int", "float", "text")
"""What the values of a field look like, the narrowest first. Values with a type of their own need none: they count as text."""


def make_json_safe(value: Any, depth: int = 0) -> Json:  # noqa: ANN401, C901  one line a type
    """Convert `value` to JSON: dates to ISO form, numbers of other libraries to plain ones, unsupported types to text.

    NaN, infinity and bytes, which a document cannot hold, become None.

    Raises:
        ReadError: If it is nested too deeply even for text.
    """
    if value is None or isinstance(value, (bool, bytes, bytearray, memoryview)):
        return value if isinstance(value, bool) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode() if not value.isascii() else value
    if isinstance(value, int):
        return int(value) if -_LONG <= value < _LONG else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return make_json_safe(int(value) if value.is_finite() and value == value.to_integral_value() else float(value))
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if hasattr(value, "tolist"):  # numpy, without importing it
        return make_json_safe(value.tolist(), depth)
    if depth >= MAX_JSON_DEPTH:
        return _as_text(value)
    if isinstance(value, Mapping):
        return {str(key): safe for key, element in value.items() if (safe := make_json_safe(element, depth + 1)) is not None}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [safe for element in value if (safe := make_json_safe(element, depth + 1)) is not None]
    return str(value)


def _as_text(value: object) -> str:
    """Return a value that is nested too deeply for a field as JSON text. Not `str`, which would hit the recursion limit."""
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError as error:
        raise ReadError(f"a field is nested too deeply: {error}", code="field-too-deep") from None


def select_fields(row: Mapping[str, Any], columns: Mapping[str, str], image_column: str | None) -> dict[str, Json]:
    """Return document field -> value as selected by `SourceOptions.columns`, without empty values; `*` excludes the image column.

    Raises:
        ReadError: If the fields are too large, or a value requested as a number is not a number.
    """
    if not columns:
        caption = next((name for name in ("caption", "text", "txt") if isinstance(row.get(name), str) and row[name]), None)
        columns = {"caption": caption} if caption else {}
    selected = {field: column for field, column in columns.items() if column != "*"}
    if "*" in columns.values():
        excluded = {image_column, *selected.values(), *(split_field_type(field)[0] for field in selected)}
        selected |= {name: name for name in row if name not in excluded}
    converted = (_convert_field(field, column, row.get(column)) for field, column in selected.items())
    fields: dict[str, Json] = {field: value for field, value in converted if value is not None and value != ""}
    check_fields_size(fields)
    return fields


def split_field_type(field: str) -> tuple[str, str]:
    """Split a field of `SourceOptions.columns`, such as `price:float`, into name and type; the type is empty if none is given."""
    name, _, kind = field.partition(":")
    return (name, kind) if kind in NUMBER_TYPES else (field, "")


def _convert_field(field: str, column: str, value: Any) -> tuple[str, Json]:  # noqa: ANN401
    name, kind = split_field_type(field)
    if not kind or value is None or value == "":
        return name, make_json_safe(value)
    try:
        return name, make_json_safe(NUMBER_TYPES[kind](value))
    except (TypeError, ValueError, OverflowError):
        raise ReadError(f"column {column!r} isn't of type {kind}: {str(value)[:80]!r}", code="field-of-other-type") from None


class CopiedFields:
    """Looks at the fields that the first rows of a run copy, to remark on numbers that are text. Memory is bounded."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        """Start without rows. `columns` are those of `SourceOptions`; without any, nothing is remarked on."""
        self._columns = columns
        self._looks = dict[str, int]()
        """Field -> position in `_LOOKS` of what all of its values look like."""
        self._rows = 0

    @property
    def is_complete(self) -> bool:
        """Whether no further row is looked at."""
        return not self._columns or self._rows >= CHECKED_ROWS

    def observe_fields(self, fields: Mapping[str, Json]) -> None:
        """Look at the fields of a row. Rows without any, such as files of a folder, don't count."""
        self._rows += bool(fields)
        for name, value in fields.items():
            if name in self._looks or len(self._looks) < MAX_REPORTED_NAMES:
                self._looks[name] = max(self._looks.get(name, 0), _LOOKS.index(_classify_value(value)))

    def list_remarks(self) -> tuple[str, ...]:
        """Return what `*` stands for, and how to make numbers of the texts that look like them."""
        remarks, option = list[str](), "--field "
        if "*" in self._columns.values() and self._looks:
            option = "--field '*' --field "
            remarks.append(f"--field '*' copies {join_names(self._looks)}")
        looks = {name: _LOOKS[look] for name, look in self._looks.items()}
        # An option can't name a field with one of these characters.
        numbers = {name: kind for name, kind in looks.items() if kind in NUMBER_TYPES and not set(name) & set(",=:")}
        if numbers:
            typed = ",".join(f"{name}:{kind}={self._columns.get(name, name)}" for name, kind in numbers.items())
            remarks.append(
                f"copied as text, but all values look like numbers: {join_names(numbers)}."
                f" To store numbers, use {option}{shlex.quote(typed)} (only in a new index)"
            )
        return tuple(remarks)


def _classify_value(value: Json) -> str:
    """Return which of `_LOOKS` a value is: an id with leading zeros, or too long for the engines, is a text."""
    number = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) and len(value) <= _MAX_NUMBER_CHARS else None
    if number is None:
        return "text"
    if number["fraction"]:
        return "float" if math.isfinite(float(number[0])) else "text"
    return "int" if -_LONG <= int(number[0]) < _LONG else "text"


def check_fields_size(fields: Mapping[str, Json]) -> None:
    """Raise ReadError if the fields of a document exceed `MAX_FIELDS_BYTES`."""
    if (size := estimate_json_bytes(fields)) > MAX_FIELDS_BYTES:
        largest = max(fields, key=lambda name: estimate_json_bytes(fields[name]))
        raise ReadError(
            f"its fields take {size:,} bytes, the limit is {MAX_FIELDS_BYTES:,}; the largest is {largest[:100]!r}",
            code="fields-too-large",
        )


def estimate_json_bytes(value: Json | Mapping[str, Json]) -> int:
    """Estimate the bytes of memory that JSON takes: the characters of its texts, plus 64 for each value."""
    size, pending = _VALUE_BYTES, [value]
    while pending:
        part = pending.pop()
        if isinstance(part, (dict, Mapping)):  # the abstract class alone takes longer
            for name, element in part.items():
                size += len(name) + _VALUE_BYTES
                if isinstance(element, str):
                    size += len(element)
                else:
                    pending.append(element)
        elif isinstance(part, list):
            size += _VALUE_BYTES * len(part)
            pending += part
        elif isinstance(part, str):
            size += len(part)
    return size


def describe_row_error(error: Exception) -> str:
    """Return why a row or a sample was rejected, for the report."""
    return error.message if isinstance(error, StairError) else f"can't be used: {type(error).__name__}: {error}"[:300]
