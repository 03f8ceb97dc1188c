"""Estimate how many clauses parts of a query need, and check filters. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stair_es.errors import QueryError

if TYPE_CHECKING:
    from stair_es.types import Json

MAX_DEPTH = 100
"""Nesting depth that every engine rejects: they allow 20 or 30 nested `bool` queries."""
_SINGLE_CHARACTERS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TERM = re.compile(rf"[{_SINGLE_CHARACTERS}]|[^\W{_SINGLE_CHARACTERS}]{{1,255}}|[^\w\s\x00-\x7f]")
"""A term of an analyzer: a single ideograph or kana, a run of letters and digits, or a symbol such as an emoji."""
_SETS = ("terms", "ids")
_SET_CLAUSES = 16
"""Larger sets become one clause; for smaller ones the engine may create one per value."""


def count_terms(text: str) -> int:
    """Estimate the number of terms that a standard analyzer finds in a text; at most slightly too high."""
    return len(_TERM.findall(text))


def count_clauses(clause: Json | Mapping[str, Json]) -> int:
    """Estimate the number of clauses of a filter: one per object, and one per term of each text."""
    count, pending = 0, [clause]
    while pending:
        part = pending.pop()
        if isinstance(part, str):
            count += count_terms(part)
        elif isinstance(part, list):
            pending += part
        elif isinstance(part, Mapping):
            count += 1 + sum(_SET_CLAUSES for name in _SETS if name in part)
            pending += [value for name, value in part.items() if name not in _SETS]
    return count


def is_valid_unicode(text: str) -> bool:
    """Check whether a text is valid Unicode: with an unpaired surrogate some engines reject it, others search for `?`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_unicode(text: str) -> None:
    """Check that a text is valid Unicode.

    Raises:
        QueryError: If it contains an unpaired surrogate.
    """
    if not is_valid_unicode(text):
        raise QueryError(f"{text[:80]!r} contains an unpaired surrogate and is not valid Unicode", "Re-enter the text.")


def check_filters(filters: Sequence[Mapping[str, Any]]) -> None:
    """Check that filters can be sent; the engine checks their meaning.

    Raises:
        QueryError: If one is nested too deeply, or can't be written as JSON.
    """
    for clause in filters:
        if _measure_depth(clause) > MAX_DEPTH:
            raise QueryError(f"the filter is nested more than {MAX_DEPTH} levels deep, which no engine accepts", "Flatten it.")
        try:
            json.dumps(clause, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:  # a set, NaN, an unpaired surrogate
            raise QueryError(
                f"the filter can't be sent as JSON: {error}", "Use plain JSON values, finite numbers and valid Unicode."
            ) from None


def _measure_depth(clause: object) -> int:
    """Return the nesting depth, at most `MAX_DEPTH + 1`, so that a value that contains itself terminates."""
    level: list[object] = [clause]
    for depth in range(MAX_DEPTH + 1):
        level = [inner for part in level for inner in _list_children(part)]
        if not level:
            return depth
    return MAX_DEPTH + 1


def _list_children(part: object) -> Sequence[object]:
    if isinstance(part, Mapping):
        return list(part.values())
    return part if isinstance(part, list) else ()
