"""Values of tables as JSON that every engine takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stair_es.types import Json

DEEPEST = 8
_LONG = 2**63


def json_safe(value: Any, depth: int = 0) -> Json:  # noqa: ANN401, C901  one line a type
    """`value` as JSON: dates in ISO form, numbers of other libraries as plain ones, what has no like as text.

    None stands for what a document can't hold: NaN, infinity, bytes.
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
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): safe for key, each in value.items() if (safe := json_safe(each, depth + 1)) is not None}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [safe for each in value if (safe := json_safe(each, depth + 1)) is not None]
    return str(value)


def chosen(row: Mapping[str, Any], columns: Mapping[str, str], image_column: str | None) -> dict[str, Json]:
    """Document field -> value, as `SourceOptions.columns` says; empty ones are left out."""
    if not columns:
        caption = next((name for name in ("caption", "text", "txt") if isinstance(row.get(name), str) and row[name]), None)
        columns = {"caption": caption} if caption else {}
    wanted = {field: column for field, column in columns.items() if column != "*"}
    if "*" in columns.values():
        taken = set(wanted.values())
        wanted |= {name: name for name in row if name != image_column and name not in taken and name not in wanted}
    fields = ((field, json_safe(row.get(column))) for field, column in wanted.items())
    return {field: value for field, value in fields if value is not None and value != ""}
