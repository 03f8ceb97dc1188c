"""Serialize bulk actions and group them into requests. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

Lines: TypeAlias = tuple[str, bytes]
"""`_id`, and the serialized lines of one action."""

_PROBE = "stair-es-probe-"


@dataclass(frozen=True)
class Sent:
    """Size, duration and result of one bulk request."""

    bytes: int
    documents: int
    seconds: float
    busy: bool
    """429, 5xx, lost or timed out: for the whole request, or some of its documents."""
    too_large: bool = False
    """Whether the response was 413."""


def operation(id_: str, source: Mapping[str, Any]) -> Lines:
    """Build an `index` action.

    Raises:
        TypeError: If `source` can't be serialized as JSON.
    """
    return id_, orjson.dumps({"index": {"_id": id_}}) + b"\n" + orjson.dumps(source) + b"\n"


def update(id_: str, fields: Mapping[str, Any]) -> Lines:
    """Build an `update` action that merges `fields`.

    Raises:
        TypeError: If `fields` can't be serialized as JSON.
    """
    action = {"update": {"_id": id_, "retry_on_conflict": 3}}
    return id_, orjson.dumps(action) + b"\n" + orjson.dumps({"doc": fields}) + b"\n"


def deletion(id_: str, _: Mapping[str, Any]) -> Lines:
    """Build a `delete` action.

    Raises:
        TypeError: If `id_` can't be serialized as JSON.
    """
    return id_, orjson.dumps({"delete": {"_id": id_}}) + b"\n"


def probe(id_: str) -> Lines:
    """Build a harmless action: delete a document that doesn't exist, on the shard of the document `id_`."""
    absent = _PROBE + id_[:200]
    return absent, orjson.dumps({"delete": {"_id": absent, "routing": id_[:512]}}) + b"\n"


def size_of(lines: Iterable[Lines]) -> int:
    """Count the bytes of a request with these actions."""
    return sum(len(line) for _, line in lines)


def chunks(operations: Iterable[Lines], max_bytes: int, max_docs: int) -> Iterator[list[Lines]]:
    """Chunk actions in order, within the limits; a document above the limit is sent alone."""
    chunk: list[Lines] = []
    size = 0
    for lines in operations:
        if chunk and (size + len(lines[1]) > max_bytes or len(chunk) >= max_docs):
            yield chunk
            chunk, size = [], 0
        chunk.append(lines)
        size += len(lines[1])
    if chunk:
        yield chunk
