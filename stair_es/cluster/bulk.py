"""The bulk path: documents in, one outcome each out.

Own code because the clients' helpers can't: opensearch-py's `streaming_bulk` retries 429 only, and zero times by default,
`parallel_bulk` never retries, and neither splits on 413. Writes are `index` operations with an `_id`, so sending a document
twice (after a lost answer) stores it once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson
from opensearchpy import exceptions

from stair_es.cluster.connect import Connection, translated
from stair_es.cluster.retry import BUSY, RetryPolicy, backoff_s, passes, tell
from stair_es.errors import ClusterError

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

TOO_LARGE = 413
_UNMENTIONED = (503, "the answer doesn't mention it")
_ANSWER = "items.index._id,items.index.status,items.index.error"

Lines: TypeAlias = tuple[str, bytes]
"""`_id`, and the two serialised lines of one operation."""


class _TooLarge(Exception):
    """The cluster answered 413 to a request."""


@dataclass(frozen=True, kw_only=True)
class BulkPolicy(RetryPolicy):
    """How much at once, and how hard to try."""

    max_chunk_bytes: int = 8 * 1024 * 1024
    max_chunk_docs: int = 1000


@dataclass(frozen=True, kw_only=True)
class BulkWriter:
    """Writes documents into the index behind one alias."""

    client: OpenSearch
    connection: Connection
    alias: str
    """Must be an alias: a name that somebody deleted must not come to life again as an index of guessed types."""
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
                status, reason = answers.get(lines[0], _UNMENTIONED)
                if status in BUSY and not last:
                    again.append(lines)
                else:
                    outcomes[lines[0]] = None if status < 300 else f"HTTP {status}: {reason}"
            waiting = again
            if not waiting:
                break
            tell(self.connection, f"{len(waiting)} documents: {answers.get(waiting[0][0], _UNMENTIONED)[1]}", attempt)
            self.sleep(backoff_s(attempt, self.policy))
        return outcomes

    def _send(self, lines: Sequence[Lines], *, final: bool) -> dict[str, tuple[int, str]]:
        """`{_id: (status, reason)}`; a request that failed as a whole and may be repeated counts as busy for all."""
        body = b"".join(line for _, line in lines)
        params = {"filter_path": _ANSWER, "require_alias": "true"}
        try:
            answer = self.client.bulk(body=body, index=self.alias, params=params)
        except exceptions.TransportError as error:
            if error.status_code == TOO_LARGE:
                raise _TooLarge from error
            if final or not passes(error):
                with translated(self.connection):
                    raise
            return {id_: (503, str(error)) for id_, _ in lines}
        except exceptions.SerializationError as error:  # a proxy's page, or half an answer: what was written is not known
            return {id_: (503, f"the answer is not JSON: {error}") for id_, _ in lines}
        items = [item["index"] for item in answer.get("items", ())] if isinstance(answer, dict) else []
        if any(item["status"] == 404 for item in items):
            raise ClusterError(
                f"{self.connection.safe_url} has no alias {self.alias!r} any more: somebody deleted it or its index"
            )
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


def _reason(error: object) -> str:
    if not isinstance(error, dict):
        return str(error or "")
    cause = error.get("caused_by")
    below = f" ({cause.get('reason')})" if isinstance(cause, dict) else ""
    return f"{error.get('type')}: {error.get('reason')}{below}"
