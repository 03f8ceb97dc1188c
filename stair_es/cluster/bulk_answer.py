"""Parse bulk responses: the outcome of each document, and of a request that failed as a whole. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from opensearchpy import exceptions

from stair_es.cluster.failures import BUSY
from stair_es.cluster.identity import write_alias
from stair_es.cluster.retry import passes

Fate: TypeAlias = Literal["done", "failed", "busy", "forbidden", "closed", "wrong_index"]
"""`forbidden`, `closed` and `wrong_index` are no fault of the document, and retrying doesn't help."""

Failure: TypeAlias = Literal["busy", "too large", "malformed", "fatal"]
"""Failure of a whole request. `malformed`: the cluster can't parse it, perhaps because of one document."""

TOO_LARGE = 413
BLOCKED = "cluster_block_exception"
_CLOSED_TYPES = frozenset({"index_not_found_exception", "index_closed_exception", "alias_not_found_exception"})
_CLOSED_REASON = re.compile(r"no write index is defined for alias|pipeline with id \[.*\] does not exist")


@dataclass(frozen=True)
class Verdict:
    """Outcome of one document, with the reason."""

    fate: Fate
    reason: str = ""
    """For `wrong_index`, the index where the document was stored."""


UNMENTIONED = Verdict("busy", "the response doesn't mention it")
UNPLACED = Verdict("busy", "the response doesn't name its index")


def verdicts(answer: object, index: str) -> dict[str, Verdict]:
    """Parse a bulk response into `{_id: ItemResult}`.

    Args:
        answer: The response; for one that isn't a bulk response the result is empty.
        index: The index that the request was meant for.
    """
    items = answer.get("items") if isinstance(answer, dict) else None
    result = {}
    for item in items if isinstance(items, list) else ():
        for kind, outcome in item.items() if isinstance(item, dict) else ():
            if isinstance(outcome, dict) and isinstance(outcome.get("status"), int) and "_id" in outcome:
                result[str(outcome["_id"])] = judge(kind, outcome, index)
    return result


def judge(kind: str, outcome: Mapping[str, Any], index: str) -> Verdict:
    """Classify one item of a bulk response.

    Args:
        kind: Action of the item: `index`, `update` or `delete`.
        outcome: The item.
        index: The index that the action was meant for.
    """
    status: int = outcome["status"]
    error, place = outcome.get("error"), outcome.get("_index")
    if place not in (None, index, write_alias(index)):  # an action that fails early is reported with the name of the alias
        return Verdict("wrong_index", str(place))
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
    return Verdict("failed", reason)


def failure(error: exceptions.TransportError) -> Failure:
    """Classify the failure of a whole request."""
    if error.status_code == TOO_LARGE:
        return "too large"
    if passes(error) or error.status_code == 500 or BLOCKED in str(error.error):
        return "busy"
    return "malformed" if error.status_code == 400 else "fatal"


def described(error: object) -> str:
    """Format an error of the cluster for messages: its type, its reason and the cause."""
    if not isinstance(error, dict):
        return str(error or "")
    cause = error.get("caused_by")
    below = f" ({cause.get('reason')})" if isinstance(cause, dict) else ""
    return f"{error.get('type')}: {error.get('reason')}{below}"
