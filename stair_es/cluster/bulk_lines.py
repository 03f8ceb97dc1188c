"""Bulk operations as bytes, and requests made of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

Lines: TypeAlias = tuple[str, bytes]
"""`_id`, and the serialised lines of one operation."""

_PROBE = "stair-es-probe-"


@dataclass(frozen=True)
class Sent:
    """One bulk request, as seen from here."""

    bytes: int
    documents: int
    seconds: float
    busy: bool
    """429, 5xx, lost or timed out: the whole request, or some of its documents."""
    too_large: bool = False
    """413."""


def operation(id_: str, source: Mapping[str, Any]) -> Lines:
    """One `index` operation.

    Raises:
        TypeError: `source` can't be written as JSON.
    """
    return id_, orjson.dumps({"index": {"_id": id_}}) + b"\n" + orjson.dumps(source) + b"\n"


def update(id_: str, fields: Mapping[str, Any]) -> Lines:
    """One `update` operation that merges `fields`.

    Raises:
        TypeError: `fields` can't be written as JSON.
    """
    action = {"update": {"_id": id_, "retry_on_conflict": 3}}
    return id_, orjson.dumps(action) + b"\n" + orjson.dumps({"doc": fields}) + b"\n"


def deletion(id_: str, _: Mapping[str, Any]) -> Lines:
    """One `delete` operation.

    Raises:
        TypeError: `id_` can't be written as JSON.
    """
    return id_, orjson.dumps({"delete": {"_id": id_}}) + b"\n"


def probe(id_: str) -> Lines:
    """The deletion of a document that doesn't exist, on the shard where the document `id_` is: harmless."""
    absent = _PROBE + id_[:200]
    return absent, orjson.dumps({"delete": {"_id": absent, "routing": id_[:512]}}) + b"\n"


def size_of(lines: Iterable[Lines]) -> int:
    """Bytes of a request made of these operations."""
    return sum(len(line) for _, line in lines)


def chunks(operations: Iterable[Lines], max_bytes: int, max_docs: int) -> Iterator[list[Lines]]:
    """`operations` in order, in chunks within the limits; a document above the limit goes alone."""
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
