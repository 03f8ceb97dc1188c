"""The sort order of hits, and the cursor for pagination. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from stair_es.errors import QueryError
from stair_es.search.dsl.mapped_fields import MappedField, get_mapped_field, is_scalar, suggest_fields
from stair_es.search.dsl.weights import HEAVY_SCORE
from stair_es.types import is_utf8

Cursor: TypeAlias = "Sequence[str | float | None]"
"""The cursor of a page: the sort values of its last hit (`search_after`)."""

SORT_ORDER: list[dict[str, Any]] = [
    {"_score": {"order": "desc"}},
    {"uri": {"order": "asc", "unmapped_type": "keyword"}},
    {"sha256": {"order": "asc", "unmapped_type": "keyword"}},
    {"_index": {"order": "asc"}},
]
"""A total order: equal scores have the same order on every replica, and pages neither repeat nor skip hits.

`_id` would be the natural key, but Elasticsearch 9 doesn't sort by it. Documents without `uri` and `sha256`, which ingest never
writes, have no defined order: see `validate_cursor`.
"""

NEWEST_ORDER: list[dict[str, Any]] = [
    {"ingested_at": {"order": "desc", "unmapped_type": "date", "missing": 0}},
    *SORT_ORDER[1:],
]
"""A total order without scores: what was ingested last comes first."""

_MAX_EXACT = 2**53
"""Readers of JSON with numbers of 64 bits, such as browsers, round larger integers."""
_MAX_LONG = 2**63
_LONG_TEXT = re.compile(r"-?\d{16,19}", re.ASCII)
_FLOATS = ("half_float", "float", "double")
_INFINITIES = ("Infinity", "-Infinity")
"""What engines have for documents without the field if its numbers have fractions, instead of the largest or smallest integer."""


def build_field_order(sort: str, fields: Mapping[str, MappedField]) -> list[dict[str, Any]]:
    """Build the total order by a field, such as `price:asc`. Documents without the field come last.

    Raises:
        QueryError: If there is no such field, or its values are neither numbers nor dates.
    """
    name, _, direction = sort.rpartition(":")
    if not name or direction not in ("asc", "desc"):
        raise QueryError(f"not an order: {sort[:80]!r}", "Write it like price:asc or price:desc.", code="invalid-sort")
    mapped = get_mapped_field(fields, name, "the order")
    if not is_scalar(mapped):
        raise QueryError(
            f"the order refers to the field {name!r}, which is {mapped.type}: neither a number nor a date",
            suggest_fields(name, [other.name for other in fields.values() if other.path and is_scalar(other)]),
            code="field-not-sortable",
        )
    # of an index without the field; scaled_float needs a parameter, and is sorted as double
    type_ = "double" if mapped.type == "scaled_float" else mapped.type
    return [{mapped.path: {"order": direction, "missing": "_last", "unmapped_type": type_}}, *SORT_ORDER[1:]]


def build_cursor(sort_values: Sequence[Any]) -> Cursor:
    """Build a cursor from the sort values of a hit. Integers that not every reader of JSON has exactly become strings."""
    return [str(value) if isinstance(value, int) and abs(value) > _MAX_EXACT else value for value in sort_values]


def build_random_query(query: Mapping[str, Any], **random_options: Any) -> dict[str, Any]:  # noqa: ANN401  JSON
    """Build a query with random scores: its best hits are a sample, whatever the cluster adds to scores.

    `random_options` are those of `random_score`, such as `seed`.
    """
    function = {"random_score": random_options, "weight": HEAVY_SCORE}
    return {"function_score": {"query": query, "functions": [function], "boost_mode": "replace"}}


def validate_cursor(after: Cursor, type_: str = "") -> list[str | float | None]:
    """Return the values of a cursor: a score, or a number of the type of the field that hits are sorted by, then strings.

    Raises:
        QueryError: If it is not a cursor, or its document can't be distinguished from others with the same score.
    """
    values = list(after)
    if values and type_:
        values[0] = _parse_field_value(values[0], type_)
    is_value = bool(values) and (_is_number(values[0]) or (type_ in _FLOATS and values[0] in _INFINITIES))
    if len(values) != len(SORT_ORDER) or not is_value or not all(map(_is_name, values[1:])):
        raise QueryError(f"not a cursor: {str(values)[:80]}", "Use `after` of the previous page.", code="invalid-cursor")
    if values[1] is None and values[2] is None:
        raise QueryError(
            "the documents have neither `uri` nor `sha256`, so documents with the same score have no order across pages",
            "Use a larger k instead.",
            code="no-order-across-pages",
        )
    return values


def _parse_field_value(value: str | float | None, type_: str) -> str | float | None:
    """Return the integer that `build_cursor` wrote as a string, or that a reader of JSON has rounded up; others as they are."""
    if type_ in _FLOATS:
        return value
    if isinstance(value, str) and _LONG_TEXT.fullmatch(value) and -_MAX_LONG <= int(value) < _MAX_LONG:
        return int(value)
    is_rounded = _is_number(value) and abs(value) >= _MAX_EXACT  # type: ignore[arg-type]  # checked
    return max(-_MAX_LONG, min(int(value), _MAX_LONG - 1)) if is_rounded else value  # type: ignore[arg-type]  # checked


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _MAX_LONG * 2 if isinstance(value, int) else math.isfinite(value)


def _is_name(value: object) -> bool:
    return value is None or (isinstance(value, str) and is_utf8(value))
