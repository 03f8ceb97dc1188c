"""The sort order of hits, and the cursor for pagination. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from stair_es.errors import QueryError
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


def build_random_query(query: Mapping[str, Any], **random_options: Any) -> dict[str, Any]:  # noqa: ANN401  JSON
    """Build a query with random scores: its best hits are a sample, whatever the cluster adds to scores.

    `random_options` are those of `random_score`, such as `seed`.
    """
    function = {"random_score": random_options, "weight": HEAVY_SCORE}
    return {"function_score": {"query": query, "functions": [function], "boost_mode": "replace"}}


def validate_cursor(after: Cursor) -> list[str | float | None]:
    """Return the values of a cursor: a score or a date in milliseconds, then strings.

    Raises:
        QueryError: If it is not a cursor, or its document can't be distinguished from others with the same score.
    """
    values = list(after)
    if len(values) != len(SORT_ORDER) or not _is_number(values[0]) or not all(map(_is_name, values[1:])):
        raise QueryError(f"not a cursor: {str(values)[:80]}", "Use `after` of the previous page.", code="invalid-cursor")
    if values[1] is None and values[2] is None:
        raise QueryError(
            "the documents have neither `uri` nor `sha256`, so documents with the same score have no order across pages",
            "Use a larger k instead.",
            code="no-order-across-pages",
        )
    return values


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_name(value: object) -> bool:
    return value is None or (isinstance(value, str) and is_utf8(value))
