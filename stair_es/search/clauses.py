"""How much of the cluster's clause limit the parts of a question take, and which filters can be sent at all. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stair_es.errors import QueryError

if TYPE_CHECKING:
    from stair_es.types import Json

MAX_DEPTH = 100
"""No engine takes so many objects and lists in one another: they allow 20 or 30 `bool` in a `bool`."""
_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TERM = re.compile(rf"[{_ALONE}]|[^\W{_ALONE}]{{1,255}}|[^\w\s\x00-\x7f]")
"""What an analyzer may make a term of: an ideograph or kana alone, a run of letters and digits, a symbol such as an emoji."""
_SETS = ("terms", "ids")
_SET_CLAUSES = 16
"""A set of more values than this is one clause; of fewer the engine may make one each."""


def terms_in(text: str) -> int:
    """How many terms an ordinary analyzer makes of a text, or a few more."""
    return len(_TERM.findall(text))


def clauses_in(clause: Json | Mapping[str, Json]) -> int:
    """About how many clauses the engine makes of a filter: one for each object, and for each term of each text."""
    count, left = 0, [clause]
    while left:
        part = left.pop()
        if isinstance(part, str):
            count += terms_in(part)
        elif isinstance(part, list):
            left += part
        elif isinstance(part, Mapping):
            count += 1 + sum(_SET_CLAUSES for name in _SETS if name in part)
            left += [value for name, value in part.items() if name not in _SETS]
    return count


def sendable(text: str) -> bool:
    """Whether a text is made of whole characters: with half a surrogate pair some engines refuse it, others search for `?`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_characters(text: str) -> None:
    """Raise QueryError if a text has half a surrogate pair.

    Raises:
        QueryError: If it has.
    """
    if not sendable(text):
        raise QueryError(f"no engine takes {text[:80]!r}: it has half a surrogate pair, which is no character", "Type it anew.")


def check_filters(filters: Sequence[Mapping[str, Any]]) -> None:
    """Nothing, if an engine can read the filters; whether it takes them is its own matter.

    Raises:
        QueryError: They are too deep, or are no JSON.
    """
    for clause in filters:
        if _depth(clause) > MAX_DEPTH:
            raise QueryError(f"the filter is nested more than {MAX_DEPTH} deep: no engine takes it", "Write it flatter.")
        try:
            json.dumps(clause, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:  # a set, NaN, half a surrogate pair
            raise QueryError(f"the filter can't be sent as JSON: {error}", "Write numbers and whole characters.") from None


def _depth(clause: object) -> int:
    """Up to `MAX_DEPTH`, and one if there is more: what contains itself ends, too."""
    level: list[object] = [clause]
    for depth in range(MAX_DEPTH + 1):
        level = [inner for part in level for inner in _within(part)]
        if not level:
            return depth
    return MAX_DEPTH + 1


def _within(part: object) -> Sequence[object]:
    if isinstance(part, Mapping):
        return list(part.values())
    return part if isinstance(part, list) else ()
