"""What the cluster's answer to a bulk request means: for each document, and for a request that failed as a whole. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from opensearchpy import exceptions

from stair_es.cluster.failures import BUSY
from stair_es.cluster.identity import write_alias
from stair_es.cluster.retry import passes

Fate: TypeAlias = Literal["done", "dead", "busy", "forbidden", "closed", "astray"]
"""`forbidden`, `closed` and `astray` are no fault of the document and don't pass by waiting."""

Failure: TypeAlias = Literal["busy", "too large", "poison", "fatal"]
"""Of a whole request. `poison`: something in it can't be read, perhaps one document."""

TOO_LARGE = 413
BLOCKED = "cluster_block_exception"
_CLOSED_TYPES = frozenset({"index_not_found_exception", "index_closed_exception", "alias_not_found_exception"})
_CLOSED_REASON = re.compile(r"no write index is defined for alias|pipeline with id \[.*\] does not exist")


@dataclass(frozen=True)
class Verdict:
    """What became of one document, and why."""

    fate: Fate
    reason: str = ""
    """Of `astray`: the index that it went to."""


UNMENTIONED = Verdict("busy", "the answer doesn't mention it")
UNPLACED = Verdict("busy", "the answer doesn't say in which index it is")


def verdicts(answer: object, index: str) -> dict[str, Verdict]:
    """`{_id: Verdict}` of all that an answer mentions; nothing if it is no answer of a bulk request to `index`."""
    items = answer.get("items") if isinstance(answer, dict) else None
    result = {}
    for item in items if isinstance(items, list) else ():
        for kind, outcome in item.items() if isinstance(item, dict) else ():
            if isinstance(outcome, dict) and isinstance(outcome.get("status"), int) and "_id" in outcome:
                result[str(outcome["_id"])] = judge(kind, outcome, index)
    return result


def judge(kind: str, outcome: Mapping[str, Any], index: str) -> Verdict:
    """What one item of the answer to an `index`, `update` or `delete` says, if it was meant for `index`."""
    status: int = outcome["status"]
    error, place = outcome.get("error"), outcome.get("_index")
    if place not in (None, index, write_alias(index)):  # an operation that fails early is told with the name of the alias
        return Verdict("astray", str(place))
    type_ = str(error.get("type")) if isinstance(error, dict) else ""
    missing = (kind == "delete" and not error) or (kind == "update" and type_ == "document_missing_exception")
    if status < 300 or (status == 404 and missing):
        return Verdict("done") if place == index else UNPLACED
    reason = f"HTTP {status}: {described(error)}"
    if type_ == BLOCKED or status in BUSY or status >= 500 or status == 409:
        return Verdict("busy", reason)
    if status in (401, 403):
        return Verdict("forbidden", reason)
    if status == 404 or type_ in _CLOSED_TYPES or _CLOSED_REASON.search(reason):
        return Verdict("closed", reason)
    return Verdict("dead", reason)


def failure(error: exceptions.TransportError) -> Failure:
    """What the failure of a whole request means."""
    if error.status_code == TOO_LARGE:
        return "too large"
    if passes(error) or error.status_code == 500 or BLOCKED in str(error.error):
        return "busy"
    return "poison" if error.status_code == 400 else "fatal"


def described(error: object) -> str:
    """An error of the cluster for people: its type, its reason and the cause below."""
    if not isinstance(error, dict):
        return str(error or "")
    cause = error.get("caused_by")
    below = f" ({cause.get('reason')})" if isinstance(cause, dict) else ""
    return f"{error.get('type')}: {error.get('reason')}{below}"
