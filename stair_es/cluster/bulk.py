"""The bulk path: documents in, one outcome each out.

Own code because the clients' helpers can't: opensearch-py's `streaming_bulk` retries 429 only, and zero times by default,
`parallel_bulk` never retries, and neither splits on 413. Writes are `index` operations with an `_id`, so sending a document
twice (after a lost answer) stores it once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson
from opensearchpy import exceptions

from stair_es.cluster.connect import Connection, translated

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

BUSY = frozenset({429, 502, 503, 504})
TOO_LARGE = 413
_ANSWER = "items.index._id,items.index.status,items.index.error"

Lines: TypeAlias = tuple[str, bytes]
"""`_id`, and the two serialised lines of one operation."""


class _TooLarge(Exception):
    """The cluster answered 413 to a request."""


@dataclass(frozen=True, kw_only=True)
class BulkPolicy:
    """How hard to try."""

    max_chunk_bytes: int = 8 * 1024 * 1024
    max_chunk_docs: int = 1000
    attempts: int = 8
    backoff_s: float = 0.5
    """Before the second attempt; doubles up to `max_backoff_s`, each time with jitter (half to full)."""
    max_backoff_s: float = 15.0


@dataclass(frozen=True, kw_only=True)
class BulkWriter:
    """Writes documents into one index."""

    client: OpenSearch
    connection: Connection
    index: str
    policy: BulkPolicy = BulkPolicy()
    sleep: Callable[[float], None] = time.sleep

    def write(self, documents: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, str | None]:
        """`{_id: None}` for each document that is stored, `{_id: reason}` for each that the cluster refuses for good.

        Raises:
            ClusterError: The cluster as a whole can't be written to (unreachable or busy to the last attempt, login refused).
                What was stored stays stored.
        """
        outcomes: dict[str, str | None] = {}
        for chunk in chunks([operation(id_, doc) for id_, doc in documents], self.policy):
            outcomes.update(self._write_chunk(chunk))
        return outcomes

    def _write_chunk(self, chunk: Sequence[Lines]) -> dict[str, str | None]:
        outcomes: dict[str, str | None] = {}
        waiting = list(chunk)
        for attempt in range(1, self.policy.attempts + 1):
            last = attempt == self.policy.attempts
            try:
                answers = self._send(waiting, final=last)
            except _TooLarge:
                return {**outcomes, **self._split(waiting)}
            again = []
            for lines in waiting:
                status, reason = answers.get(lines[0], (503, "the answer doesn't mention it"))
                if status in BUSY and not last:
                    again.append(lines)
                else:
                    outcomes[lines[0]] = None if status < 300 else f"HTTP {status}: {reason}"
            waiting = again
            if not waiting:
                break
            self.sleep(backoff_s(attempt, self.policy))
        return outcomes

    def _send(self, lines: Sequence[Lines], *, final: bool) -> dict[str, tuple[int, str]]:
        """`{_id: (status, reason)}`; a request that failed as a whole and may be repeated counts as busy for all."""
        body = b"".join(line for _, line in lines)
        try:
            answer = self.client.bulk(body=body, index=self.index, params={"filter_path": _ANSWER})
        except exceptions.TransportError as error:
            if error.status_code == TOO_LARGE:
                raise _TooLarge from error
            passing = isinstance(error, exceptions.ConnectionError) or error.status_code in BUSY
            if final or not passing:
                with translated(self.connection):
                    raise
            return {id_: (503, str(error)) for id_, _ in lines}
        items = (item["index"] for item in answer.get("items", ()))
        return {item["_id"]: (item["status"], _reason(item.get("error"))) for item in items}

    def _split(self, lines: list[Lines]) -> dict[str, str | None]:
        if len(lines) == 1:
            return {lines[0][0]: f"HTTP 413: the document of {len(lines[0][1])} bytes is larger than the cluster takes"}
        half = len(lines) // 2
        return {**self._write_chunk(lines[:half]), **self._write_chunk(lines[half:])}


def operation(id_: str, source: Mapping[str, Any]) -> Lines:
    """One `index` operation, serialised."""
    return id_, orjson.dumps({"index": {"_id": id_}}) + b"\n" + orjson.dumps(source) + b"\n"


def chunks(operations: Sequence[Lines], policy: BulkPolicy) -> Iterator[list[Lines]]:
    """`operations` in order, in chunks within the policy's limits; a document above the limit goes alone."""
    chunk: list[Lines] = []
    size = 0
    for lines in operations:
        if chunk and (size + len(lines[1]) > policy.max_chunk_bytes or len(chunk) >= policy.max_chunk_docs):
            yield chunk
            chunk, size = [], 0
        chunk.append(lines)
        size += len(lines[1])
    if chunk:
        yield chunk


def backoff_s(attempt: int, policy: BulkPolicy) -> float:
    """Seconds to wait after attempt number `attempt` (from 1) failed."""
    full: float = min(policy.max_backoff_s, policy.backoff_s * 2 ** (attempt - 1))
    return full * random.uniform(0.5, 1.0)


def _reason(error: object) -> str:
    if not isinstance(error, dict):
        return str(error or "")
    cause = error.get("caused_by")
    below = f" ({cause.get('reason')})" if isinstance(cause, dict) else ""
    return f"{error.get('type')}: {error.get('reason')}{below}"
