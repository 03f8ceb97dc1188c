"""The order of hits, and the cursor of a page in it. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from stair_es.errors import QueryError
from stair_es.search.clauses import sendable

After: TypeAlias = "Sequence[str | float | None]"
"""The cursor of a page: the sort values of its last hit."""

ORDER: list[dict[str, Any]] = [
    {"_score": {"order": "desc"}},
    {"uri": {"order": "asc", "unmapped_type": "keyword"}},
    {"sha256": {"order": "asc", "unmapped_type": "keyword"}},
    {"_index": {"order": "asc"}},
]
"""A total order, so that equal scores come in the same order on every replica and no page repeats or skips one.

`_id` would be the natural key, but Elasticsearch 9 refuses to sort by it. Documents without `uri` and `sha256`, which ingest
never writes, have no order of their own: see `checked`.
"""


def checked(after: After) -> list[str | float | None]:
    """The cursor, if it is one: a score, then names.

    Raises:
        QueryError: It isn't, or its document has nothing that would tell it from others of the same score.
    """
    values = list(after)
    if len(values) != len(ORDER) or not _is_number(values[0]) or not all(map(_is_name, values[1:])):
        raise QueryError(f"not a cursor: {str(values)[:80]}", "Take `after` of the page before.")
    if values[1] is None and values[2] is None:
        raise QueryError(
            "the documents have neither `uri` nor `sha256`: nothing tells those of the same score apart on the next page",
            "Ask for a larger k instead.",
        )
    return values


def sort_hits(hits: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return hits of an answer that the engine didn't sort in `ORDER`."""

    def key(hit: Mapping[str, Any]) -> tuple[Any, ...]:
        values = [hit["_source"].get(name) for name in ("uri", "sha256")]
        return (-hit["_score"], *((value is None, value or "") for value in values), hit["_index"])

    return sorted(hits, key=key)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_name(value: object) -> bool:
    return value is None or (isinstance(value, str) and sendable(value))
