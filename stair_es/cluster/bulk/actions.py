"""Serialize bulk actions and group them into requests. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import orjson

SerializedAction: TypeAlias = tuple[str, bytes]
"""`_id`, and the serialized lines of one action."""

_PROBE = "stair-es-probe-"


def build_index_action(id_: str, source: Mapping[str, Any]) -> SerializedAction:
    """Build an `index` action.

    Raises:
        TypeError: If `source` can't be serialized as JSON.
    """
    return id_, orjson.dumps({"index": {"_id": id_}}) + b"\n" + orjson.dumps(source) + b"\n"


def build_update_action(id_: str, fields: Mapping[str, Any]) -> SerializedAction:
    """Build an `update` action that merges `fields`.

    Raises:
        TypeError: If `fields` can't be serialized as JSON.
    """
    action = {"update": {"_id": id_, "retry_on_conflict": 3}}
    return id_, orjson.dumps(action) + b"\n" + orjson.dumps({"doc": fields}) + b"\n"


def build_delete_action(id_: str, options: Mapping[str, Any]) -> SerializedAction:
    """Build a `delete` action, with options such as `if_seq_no`.

    Raises:
        TypeError: If `id_` can't be serialized as JSON.
    """
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
