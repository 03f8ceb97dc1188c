"""Values of tables as JSON that every engine takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson

from stair_es.errors import ReadError, StairError
from stair_es.sources.limits import FIELDS_BYTES

if TYPE_CHECKING:
    from stair_es.types import Json

NUMBERS: Mapping[str, Callable[[Any], int | float]] = {"int": int, "float": float}
"""Types that the fields of a table can be given, since all that CSV knows is text."""
DEEPEST = 8
_LONG = 2**63
_VALUE_BYTES = 64


def json_safe(value: Any, depth: int = 0) -> Json:  # noqa: ANN401, C901  one line a type
    """`value` as JSON: dates in ISO form, numbers of other libraries as plain ones, what has no like as text.

    None stands for what a document can't hold: NaN, infinity, bytes.

    Raises:
        ReadError: It is nested too deeply even for a text.
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
        return json_safe(int(value) if value.is_finite() and value == value.to_integral_value() else float(value))
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if hasattr(value, "tolist"):  # numpy, without importing it
        return json_safe(value.tolist(), depth)
    if depth >= DEEPEST:
        return _as_text(value)
    if isinstance(value, Mapping):
        return {str(key): safe for key, each in value.items() if (safe := json_safe(each, depth + 1)) is not None}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [safe for each in value if (safe := json_safe(each, depth + 1)) is not None]
    return str(value)


def _as_text(value: object) -> str:
    """What is nested too deeply for a field, as JSON. Not `str`: its recursion ends with an exception."""
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError as error:
        raise ReadError(f"a field is nested too deeply: {error}") from None


def chosen(row: Mapping[str, Any], columns: Mapping[str, str], image_column: str | None) -> dict[str, Json]:
    """Document field -> value, as `SourceOptions.columns` says; empty ones are left out.

    Raises:
        ReadError: They are more than a document should hold, or what was asked for as a number is none.
    """
    if not columns:
        caption = next((name for name in ("caption", "text", "txt") if isinstance(row.get(name), str) and row[name]), None)
        columns = {"caption": caption} if caption else {}
    wanted = {field: column for field, column in columns.items() if column != "*"}
    if "*" in columns.values():
        taken = {image_column, *wanted.values(), *(split_type(field)[0] for field in wanted)}
        wanted |= {name: name for name in row if name not in taken}
    made = (_made(field, column, row.get(column)) for field, column in wanted.items())
    fields: dict[str, Json] = {field: value for field, value in made if value is not None and value != ""}
    check_fields_size(fields)
    return fields


def split_type(field: str) -> tuple[str, str]:
    """Name and type of a field as `SourceOptions.columns` has it: `price:float`. The type is empty where none is asked for."""
    name, _, kind = field.partition(":")
    return (name, kind) if kind in NUMBERS else (field, "")


def _made(field: str, column: str, value: Any) -> tuple[str, Json]:  # noqa: ANN401
    name, kind = split_type(field)
    if not kind or value is None or value == "":
        return name, json_safe(value)
    try:
        return name, json_safe(NUMBERS[kind](value))
    except (TypeError, ValueError, OverflowError):
        raise ReadError(f"column {column!r} isn't of type {kind}: {str(value)[:80]!r}") from None


def check_fields_size(fields: Mapping[str, Json]) -> None:
    """Nothing, if a document may hold these fields.

    Raises:
        ReadError: They are more than `FIELDS_BYTES`.
    """
    if (weight := weigh(fields)) > FIELDS_BYTES:
        heaviest = max(fields, key=lambda name: weigh(fields[name]))
        raise ReadError(f"its fields take {weight:,} bytes, the limit is {FIELDS_BYTES:,}; the largest is {heaviest[:100]!r}")


def weigh(value: Json | Mapping[str, Json]) -> int:
    """Return about how many bytes of memory JSON takes: the letters of its texts, and 64 for each value."""
    weight, waiting = 0, [value]
    while waiting:
        each = waiting.pop()
        weight += _VALUE_BYTES
        if isinstance(each, str):
            weight += len(each)
        elif isinstance(each, Mapping):
            weight += sum(map(len, each))
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)
    return weight


def explain(error: Exception) -> str:
    """Return why a row or a sample couldn't be taken, for the report."""
    return error.message if isinstance(error, StairError) else f"can't be taken: {type(error).__name__}: {error}"[:300]
