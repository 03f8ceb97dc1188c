"""The bulk path: documents in, one outcome each out.

Own code because the clients' helpers can't: opensearch-py's `streaming_bulk` retries 429 only, and zero times by default,
`parallel_bulk` never retries, and neither splits on 413. Every operation names its `_id`, so sending it twice stores it once:
whatever leaves open whether the cluster did the work (a lost answer, a time-out, a gateway's page) is sent again.

The rules. A document is dead only by a fault of its own; what is wrong with the cluster stops the run, which can be continued.

=========================================  =====================================================================================
the cluster says                           then
=========================================  =====================================================================================
stored; deleted or missing (`delete`)      done
stored in another index                    the run stops: somebody moved the alias that the index is written through
4xx for one document                       that one is dead; but 404, a closed index, a missing pipeline, 401 and 403 stop the run
429, 409, 5xx, a block, no word of it      that one is sent again after a wait, the others go on
429, 5xx, lost, time-out, no JSON          all of the request are sent again after a wait: through another node, if there are
                                           several; in smaller requests after 429 and time-outs
413                                        the rest goes in smaller requests; a document that is refused alone is dead
400 for the whole request                  bisected: the culprit is dead; if a request without documents fails too, the run stops
401, 403, 404 ...                          the run stops
=========================================  =====================================================================================

A block is what an index gets on a full disk (403 or 429, `cluster_block_exception`): it holds for all documents, and passes.

Waiting ends after `attempts` failures in a row, or `patience_s` seconds, without a single document settled. Then either the
run stops, or, if only a few documents are left that are refused one by one, they stand trial: each is sent together with the
deletion of a document that doesn't exist, routed to the same shard. Where that is taken and the document isn't, in the same
request, the document is to blame (one that breaks a script or a mapper, say), and dead.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from opensearchpy import exceptions

from stair_es.cluster.bulk_answer import BLOCKED, UNMENTIONED, Failure, Verdict, described, failure, verdicts
from stair_es.cluster.bulk_lines import Lines, Sent, chunks, deletion, operation, probe, size_of, update
from stair_es.cluster.connect import Connection, translated
from stair_es.cluster.failures import choose_grant
from stair_es.cluster.identity import write_alias
from stair_es.cluster.retry import RetryPolicy, tell, wait_s
from stair_es.cluster.stop import pause
from stair_es.errors import AuthenticationFailed, ClusterError, ClusterUnreachable, IndexMismatch

if TYPE_CHECKING:
    from opensearchpy import OpenSearch


__all__ = ["BulkPolicy", "BulkWriter", "Sent", "Written"]

_ANSWER = "items.*._id,items.*._index,items.*.status,items.*.error"
_SMALLEST_BYTES = 64 * 1024
_MOST_ON_TRIAL = 20
_CONTINUE = "What was stored stays. Run the same command again when the cluster is well: it goes on where this run stopped."
_ANEW = "Run the same command again: it goes on in the index that is there now, or makes a new one."
_UNBLOCK = (
    "Usually a disk is too full: free some space or raise cluster.routing.allocation.disk.watermark.flood_stage, set the index's "
    "index.blocks.read_only_allow_delete to null, and run the same command again: it goes on where this run stopped."
)


@dataclass(frozen=True, kw_only=True)
class BulkPolicy(RetryPolicy):
    """How much at once, and how hard to try: by default for five minutes without any progress."""

    attempts: int = 40
    patience_s: float = 300.0
    """Seconds of failures in a row after which the run stops, however few attempts these were."""
    min_chunk_bytes: int = 256 * 1024
    max_chunk_bytes: int = 8 * 1024 * 1024
    max_chunk_docs: int = 1000
    max_concurrency: int = 8
    """Requests under way at the same time, of all workers together; see `pace`."""


@dataclass
class Written:
    """What became of the documents of one call."""

    outcomes: dict[str, str | None] = field(default_factory=dict)
    """`{_id: None}` for each that is stored, `{_id: reason}` for each that the cluster refuses for good."""
    sent: list[Sent] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class BulkWriter:
    """Writes documents into one index, and into no other. Calls may run in several threads at once."""

    client: OpenSearch
    connection: Connection
    index: str
    """Its own name. It is written through `identity.write_alias`, and each answer has to name it."""
    policy: BulkPolicy = BulkPolicy()
    sleep: Callable[[float], None] = pause
    clock: Callable[[], float] = time.monotonic

    def write(self, documents: Sequence[tuple[str, Mapping[str, Any]]], chunk_bytes: int | None = None) -> Written:
        """Store documents, in requests of about `chunk_bytes`. Of several with the same `_id` the last one counts.

        Raises:
            ClusterError: The cluster as a whole can't be written to (unreachable or busy for too long, login refused,
                alias gone). What was stored stays stored.
            IndexMismatch: Documents arrived in another index.
        """
        return self._run(operation, documents, chunk_bytes)

    def update(self, documents: Sequence[tuple[str, Mapping[str, Any]]], chunk_bytes: int | None = None) -> Written:
        """Merge fields into documents that are there; one that isn't counts as done.

        Raises:
            ClusterError: As for `write`.
        """
        return self._run(update, documents, chunk_bytes)

    def delete(self, ids: Sequence[str]) -> Written:
        """Remove documents; a missing one counts as removed.

        Raises:
            ClusterError: As for `write`.
        """
        return self._run(deletion, [(id_, {}) for id_ in ids], None)

    def _run(
        self,
        serialised: Callable[[str, Mapping[str, Any]], Lines],
        documents: Iterable[tuple[str, Mapping[str, Any]]],
        chunk_bytes: int | None,
    ) -> Written:
        written, lines = Written(), []
        for id_, source in dict(documents).items():
            try:
                lines.append(serialised(id_, source))
            except TypeError as error:  # not JSON: a lone surrogate, a number of more than 64 bits, a foreign type
                written.outcomes[id_] = f"not JSON: {error}"
        Load(self, written, lines, min(chunk_bytes or self.policy.max_chunk_bytes, self.policy.max_chunk_bytes)).run()
        return written


@dataclass
class _Answer:
    """What came back for one request."""

    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    failure: Failure | None = None
    """Of the request as a whole; then there are no verdicts."""
    error: Exception | None = None

    def of(self, lines: Lines) -> Verdict:
        return Verdict("busy", str(self.error)) if self.failure else self.verdicts.get(lines[0], UNMENTIONED)


class Load:
    """One call of the writer: what waits, and for how long nothing has gone in."""

    def __init__(self, writer: BulkWriter, written: Written, lines: Sequence[Lines], limit: int) -> None:
        self.writer, self.policy, self.written, self.limit = writer, writer.policy, written, limit
        self.waiting: deque[list[Lines]] = deque()
        self.attempt = 0
        self.since_s: float | None = None
        """When the first of the failures in a row began."""
        self.sound = False
        """A request of this form, but without documents, is understood by the cluster."""
        self._queue(lines)

    def run(self) -> None:
        """Send until every document has its outcome.

        Raises:
            ClusterError: Patience ended, or what doesn't pass by waiting.
        """
        while self.waiting:
            piece = self.waiting.popleft()
            start_s = self.writer.clock()
            answer = self._send(piece)
            if answer.failure == "too large":
                self._shrink(piece)
            elif answer.failure == "poison":
                self._bisect(piece, answer)
            elif busy := self._settle(piece, answer):
                self.since_s = start_s if self.since_s is None else self.since_s
                self._again(busy, answer)

    def _queue(self, lines: Iterable[Lines]) -> None:
        self.waiting.extend(chunks(lines, self.limit, self.policy.max_chunk_docs))

    def _send(self, piece: Sequence[Lines]) -> _Answer:
        body = b"".join(line for _, line in piece)
        start_s = self.writer.clock()
        answer = self._request(body)
        busy = answer.failure == "busy" or any(answer.of(lines).fate == "busy" for lines in piece)
        if answer.failure != "poison":
            seconds = self.writer.clock() - start_s
            self.written.sent.append(Sent(len(body), len(piece), seconds, busy, answer.failure == "too large"))
        return answer

    def _request(self, body: bytes) -> _Answer:
        params, index = {"filter_path": _ANSWER, "require_alias": "true"}, self.writer.index
        try:
            return _Answer(verdicts(self.writer.client.bulk(body=body, index=write_alias(index), params=params), index))
        except exceptions.TransportError as error:
            what = failure(error)
            if what == "fatal":
                with translated(self.writer.connection):
                    raise
            return _Answer(failure=what, error=error)
        except (exceptions.SerializationError, AttributeError) as error:
            # A proxy's page, or half an answer: what was written is not known. The client stumbles over an error
            # whose JSON is not an object (AttributeError).
            return _Answer(failure="busy", error=exceptions.SerializationError(f"the answer is not JSON: {error}"))

    def _settle(self, piece: Sequence[Lines], answer: _Answer) -> list[Lines]:
        """Takes down what is decided; returns what has to be sent again."""
        busy = []
        for lines in piece:
            verdict = answer.of(lines)
            if verdict.fate == "busy":
                busy.append(lines)
            elif verdict.fate in ("done", "dead"):
                self._decide(lines, None if verdict.fate == "done" else verdict.reason)
            else:
                raise self._stopped(verdict)
        return busy

    def _decide(self, lines: Lines, reason: str | None) -> None:
        self.written.outcomes[lines[0]] = reason
        self.attempt, self.since_s = 0, None

    def _again(self, busy: list[Lines], answer: _Answer) -> None:
        self.attempt += 1
        patience_s = (self.since_s or 0.0) + self.policy.patience_s - self.writer.clock()
        if self.attempt >= self.policy.attempts or patience_s <= 0:
            self._try(busy, answer)
            return
        if isinstance(answer.error, exceptions.TransportError) and answer.error.status_code in (429, "TIMEOUT"):
            self.limit = max(self.limit // 2, _SMALLEST_BYTES)
        self._queue(busy)
        tell(self.writer.connection, f"{len(busy)} documents: {answer.of(busy[0]).reason}", self.attempt)
        self.writer.sleep(min(wait_s(self.attempt, self.policy, answer.error), patience_s))

    def _shrink(self, piece: list[Lines]) -> None:
        if len(piece) == 1:
            size = len(piece[0][1])
            self._decide(piece[0], f"HTTP 413: the document of {size} bytes is larger than the cluster takes")
            return
        self.limit = min(self.limit, size_of(piece) // 2)
        rest = list(chain(piece, *self.waiting))
        self.waiting.clear()
        self._queue(rest)

    def _bisect(self, piece: list[Lines], answer: _Answer) -> None:
        """The whole request was refused as malformed: by a fault of one document, or of all requests of this form?"""
        if not self.sound:
            start_s, lines = self.writer.clock(), probe(piece[0][0])
            control = self._request(lines[1])
            if control.failure == "busy":
                self.since_s = start_s if self.since_s is None else self.since_s
                self._again(piece, control)
                return
            if control.failure:
                raise self._failed(answer)
            if control.of(lines).fate in ("forbidden", "closed", "astray"):
                raise self._stopped(control.of(lines))
            self.sound = True
        if len(piece) == 1:
            info = getattr(answer.error, "info", None)
            reason = described(info.get("error")) if isinstance(info, dict) else str(answer.error)
            self._decide(piece[0], f"HTTP 400: the cluster can't read it: {reason}")
        else:
            half = len(piece) // 2
            self.waiting.extendleft([piece[half:], piece[:half]])

    def _try(self, busy: list[Lines], answer: _Answer) -> None:
        """The end of patience: documents that are to blame themselves are dead, else the run stops."""
        if answer.failure:
            raise self._failed(answer)
        if len(busy) > _MOST_ON_TRIAL:
            raise self._too_long(busy, answer)
        controls = [probe(id_) for id_, _ in busy]
        trial = self._send([*busy, *controls])
        for lines, control in zip(busy, controls, strict=True):
            if trial.of(lines).fate == "busy" and trial.of(control).fate != "done":
                raise self._too_long(busy, answer)
        for lines in self._settle(busy, trial):
            self._decide(lines, f"{trial.of(lines).reason} (to the end of patience, while the cluster takes others)")

    # --- what stops a run ---

    def _failed(self, answer: _Answer) -> ClusterError:
        """The failure of a whole request, in our words."""
        try:
            with translated(self.writer.connection):
                raise answer.error or exceptions.SerializationError("no answer")
        except ClusterError as ours:
            tried = f" (tried {self.attempt} times)" if self.attempt else ""
            busy = answer.failure == "busy" and not isinstance(ours, ClusterUnreachable)
            remedy = _UNBLOCK if BLOCKED in str(answer.error) else _CONTINUE if busy else ours.remedy or _CONTINUE
            return type(ours)(f"{ours.message}{tried}", remedy)

    def _too_long(self, busy: list[Lines], answer: _Answer) -> ClusterError:
        reason = answer.of(busy[0]).reason
        return ClusterError(
            f"{self.writer.connection.safe_url} does not take {len(busy)} documents (tried {self.attempt} times): {reason}",
            _UNBLOCK if BLOCKED in reason else _CONTINUE,
        )

    def _stopped(self, verdict: Verdict) -> ClusterError:
        url, index = self.writer.connection.safe_url, self.writer.index
        if verdict.fate == "astray":
            return IndexMismatch(
                f"{url}: what was meant for {index!r} arrived in {verdict.reason!r}: the alias {write_alias(index)!r} was moved",
                f"Remove the alias from {verdict.reason!r}, and what this run wrote there. Then run the same command again.",
            )
        if verdict.fate == "forbidden":
            grant = choose_grant(self.writer.connection)
            return AuthenticationFailed(f"{url} forbids writing into {index!r}: {verdict.reason}", grant)
        if "not_found" in verdict.reason:
            return ClusterError(
                f"{url} has no alias {write_alias(index)!r} any more: the index was deleted, or the alias taken away", _ANEW
            )
        return ClusterError(f"{url} takes no documents for {index!r}: {verdict.reason}", _CONTINUE)
