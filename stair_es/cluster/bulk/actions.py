"""Actions of a bulk request, grouped into requests, and the outcome of each in the response. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import orjson

from stair_es.cluster.client.exceptions import explain_reason
from stair_es.cluster.client.opensearch import exceptions
from stair_es.cluster.client.retry import is_retryable_error
from stair_es.cluster.metadata.names import make_write_alias
from stair_es.retry import BUSY_STATUSES

SerializedAction: TypeAlias = tuple[str, bytes]
"""`_id`, and the serialized lines of one action."""

_PROBE = "stair-es-probe-"


def build_index_action(
    id_: str, source: Mapping[str, Any], options: Mapping[str, Any] = MappingProxyType({})
) -> SerializedAction:
    """Build an `index` action, with options such as `if_seq_no`.

    Raises:
        TypeError: If `source` can't be serialized as JSON.
    """
    return id_, orjson.dumps({"index": {"_id": id_, **options}}) + b"\n" + orjson.dumps(source) + b"\n"


def build_update_action(id_: str, fields: Mapping[str, Any]) -> SerializedAction:
    """Build an `update` action that merges `fields`."""
    action = {"update": {"_id": id_, "retry_on_conflict": 3}}
    return id_, orjson.dumps(action) + b"\n" + orjson.dumps({"doc": fields}) + b"\n"


def build_delete_action(id_: str, options: Mapping[str, Any]) -> SerializedAction:
    """Build a `delete` action, with options such as `if_seq_no`."""
    return id_, orjson.dumps({"delete": {"_id": id_, **options}}) + b"\n"


def build_noop_action(id_: str) -> SerializedAction:
    """Build a harmless action: delete a document that doesn't exist, on the shard of the document `id_`."""
    absent = _PROBE + id_[:200]
    return absent, orjson.dumps({"delete": {"_id": absent, "routing": id_[:512]}}) + b"\n"


def count_action_bytes(actions: Iterable[SerializedAction]) -> int:
    """Count the bytes of a request with these actions."""
    return sum(len(line) for _, line in actions)


def chunk_actions(actions: Iterable[SerializedAction], max_bytes: int, max_docs: int) -> Iterator[list[SerializedAction]]:
    """Chunk actions in order, within the limits; a document above the limit is sent alone."""
    chunk: list[SerializedAction] = []
    size = 0
    for action in actions:
        if chunk and (size + len(action[1]) > max_bytes or len(chunk) >= max_docs):
            yield chunk
            chunk, size = [], 0
        chunk.append(action)
        size += len(action[1])
    if chunk:
        yield chunk


ItemStatus: TypeAlias = Literal["done", "failed", "busy", "forbidden", "closed", "wrong_index"]
"""`forbidden`, `closed` and `wrong_index` are not caused by the document, and retrying doesn't help."""

RequestFailure: TypeAlias = Literal["busy", "too large", "malformed", "fatal"]
"""Failure of a whole request. `malformed`: the cluster can't parse it, perhaps because of one document."""

TOO_LARGE = 413
BLOCKED = "cluster_block_exception"
_CLOSED_TYPES = frozenset({"index_not_found_exception", "index_closed_exception", "alias_not_found_exception"})
_CLOSED_REASON = re.compile(r"no write index is defined for alias|pipeline with id \[.*\] does not exist")


@dataclass(frozen=True)
class ItemResult:
    """Outcome of one document, with the reason."""

    status: ItemStatus
    reason: str = ""
    """For `wrong_index`, the index where the document was stored."""
    remedy: str = ""


WRITTEN_AGAIN = "it was written again after it was read"
"""Reason why a document was not deleted or replaced: it no longer has the version that was to be."""
NOT_MENTIONED = ItemResult("busy", "the response doesn't mention it")
INDEX_NOT_MENTIONED = ItemResult("busy", "the response doesn't name its index")


def parse_bulk_response(response: object, index: str) -> dict[str, ItemResult]:
    """Parse the response to a request for `index` into `{_id: ItemResult}`; empty if it is not a bulk response."""
    items = response.get("items") if isinstance(response, dict) else None
    results = {}
    for item in items if isinstance(items, list) else ():
        for kind, outcome in item.items() if isinstance(item, dict) else ():
            if isinstance(outcome, dict) and isinstance(outcome.get("status"), int) and "_id" in outcome:
                results[str(outcome["_id"])] = classify_item(kind, outcome, index)
    return results


def list_writes(response: Mapping[str, Any]) -> dict[str, int | None]:
    """List the writes in a bulk response with `_seq_no`: `_id` -> sequence number, None for a deletion."""
    items = [item for each in response.get("items", ()) for item in each.items()]
    return {
        str(outcome["_id"]): None if kind == "delete" else int(outcome.get("_seq_no", 0))
        for kind, outcome in items
        if outcome["status"] < 300
    }


def classify_item(kind: str, outcome: Mapping[str, Any], index: str) -> ItemResult:
    """Classify one item of the response to a bulk request for `index`; `kind` is its action: `index`, `update` or `delete`."""
    status: int = outcome["status"]
    error, stored_in = outcome.get("error"), outcome.get("_index")
    if stored_in not in (None, index, make_write_alias(index)):  # an action that fails early has the name of the alias
        return ItemResult("wrong_index", str(stored_in))
    if kind == "index" and status < 300 and outcome.get("result") == "noop":  # an update may change nothing
        return ItemResult("failed", "an ingest pipeline of the index dropped it (result: noop)")
    type_ = str(error.get("type")) if isinstance(error, dict) else ""
    missing = (kind == "delete" and not error) or (kind == "update" and type_ == "document_missing_exception")
    if status < 300 or (status == 404 and missing):
        return ItemResult("done") if stored_in == index else INDEX_NOT_MENTIONED
    reason = f"HTTP {status}: {format_cluster_error(error)}"
    if kind == "delete" and status == 409:
        return ItemResult("done") if "no document was found" in reason else ItemResult("failed", WRITTEN_AGAIN)
    if kind == "index" and type_ == "version_conflict_engine_exception":  # only with `if_seq_no`
        return ItemResult("failed", WRITTEN_AGAIN)
    if type_ == BLOCKED or status in BUSY_STATUSES or status >= 500 or status == 409:
        return ItemResult("busy", reason)
    if status in (401, 403):
        return ItemResult("forbidden", reason)
    if status == 404 or type_ in _CLOSED_TYPES or _CLOSED_REASON.search(reason):
        return ItemResult("closed", reason)
    _, remedy = explain_reason(error)
    return ItemResult("closed", reason, remedy) if remedy else ItemResult("failed", reason)


def classify_request_error(error: exceptions.TransportError) -> RequestFailure:
    """Classify the failure of a whole request."""
    if error.status_code == TOO_LARGE:
        return "too large"
    if is_retryable_error(error) or error.status_code == 500 or BLOCKED in str(error.error):
        return "busy"
    return "malformed" if error.status_code == 400 else "fatal"


def format_cluster_error(error: object) -> str:
    """Format an error of the cluster for messages: its type, its reason and the cause."""
    if not isinstance(error, dict):
        return str(error or "")
    cause = error.get("caused_by")
    cause_reason = f" ({cause.get('reason')})" if isinstance(cause, dict) else ""
    return f"{error.get('type')}: {error.get('reason')}{cause_reason}"
