"""Bulk writer: stores documents and reports one outcome for each.

The clients' helpers don't fit: opensearch-py's `streaming_bulk` retries 429 only, and zero times by default, `parallel_bulk`
never retries, and neither splits on 413. Every action names its `_id`, so sending it twice stores it once: a request whose
effect is unknown (a lost response, a timeout, a gateway's page) is sent again.

A document fails only because of the document itself; a problem of the cluster stops the run, which can be resumed.

=========================================  =====================================================================================
Response                                   Reaction
=========================================  =====================================================================================
stored; deleted or missing (`delete`)      done
stored in another index                    the run stops: the alias that the index is written through was moved
4xx for one document                       the document fails; but 404, a closed index, a missing pipeline, 401 and 403 stop the
                                           run
429, 409, 5xx, a block, item missing       the document is retried after a wait, independently of the others
429, 5xx, lost, timeout, no JSON           the whole request is retried after a wait: on another node if there are several; in
                                           smaller requests after 429 and timeouts
413                                        the rest is sent in smaller requests; a document that is rejected on its own fails
400 for the whole request                  bisected until the bad document fails; if a request without documents is rejected
                                           too, the run stops
401, 403, 404 ...                          the run stops
=========================================  =====================================================================================

A block is what an index gets on a full disk (403 or 429, `cluster_block_exception`): it applies to all documents and is
temporary.

Retries end after `attempts` consecutive failures, or `give_up_after_s` seconds, without a single outcome. Then the run stops,
unless only a few documents are left that are rejected one by one. Each of these is sent once more, together with the deletion
of a document that doesn't exist, routed to the same shard. If the deletion succeeds and the document is rejected in the same
request, the document itself is the cause (it breaks a script or a mapper, for example) and fails.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from stair_es.cluster.bulk.actions import (
    BLOCKED,
    NOT_MENTIONED,
    ItemResult,
    RequestFailure,
    SerializedAction,
    build_delete_action,
    build_index_action,
    build_noop_action,
    build_update_action,
    chunk_actions,
    classify_request_error,
    count_action_bytes,
    format_cluster_error,
    list_writes,
    parse_bulk_response,
)
from stair_es.cluster.bulk.throttle import BulkPolicy
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.exceptions import choose_grant_remedy, translate_errors
from stair_es.cluster.client.opensearch import exceptions
from stair_es.cluster.client.retry import get_retry_after_s, log_retry
from stair_es.cluster.metadata.names import make_write_alias
from stair_es.errors import AuthenticationFailed, ClusterError, ClusterUnreachable, IndexMismatch
from stair_es.retry import sleep_unless_cancelled
from stair_es.store import BulkRequestStats, BulkResult

_FILTER_PATH = "items.*._id,items.*._index,items.*.status,items.*.result,items.*.error"
_MIN_CHUNK_BYTES = 64 * 1024
_MAX_ISOLATED = 20
_RESUME = "Stored documents are kept. Run the same command again when the cluster is healthy: it resumes where this run stopped."
_RERUN = "Run the same command again: it continues in the present index, or creates a new one."
_UNBLOCK = (
    "Usually a disk is too full: free some space or raise cluster.routing.allocation.disk.watermark.flood_stage, set the index's "
    "index.blocks.read_only_allow_delete to null, and run the same command again: it resumes where this run stopped."
)


@dataclass(frozen=True, kw_only=True)
class BulkWriter:
    """Writes documents into one index. Calls may run in several threads concurrently."""

    cluster: Cluster
    index: str
    """Name of the index. It is written through `make_write_alias`, and each response must name it."""
    policy: BulkPolicy = field(default_factory=BulkPolicy)
    sleep: Callable[[float], None] = sleep_unless_cancelled
    clock: Callable[[], float] = time.monotonic

    def write(self, documents: Sequence[tuple[str, Mapping[str, Any]]], chunk_bytes: int | None = None) -> BulkResult:
        """Store documents, in requests of about `chunk_bytes`. If an `_id` is duplicated, the last document is stored.

        Raises:
            ClusterError: If the cluster as a whole can't be written to (unreachable or busy for too long, login rejected,
                alias missing). What was stored stays stored.
            IndexMismatch: If documents were stored in another index.
        """
        return self._write_actions(build_index_action, documents, chunk_bytes)

    def replace(self, documents: Sequence[tuple[str, Mapping[str, Any]]], options: Mapping[str, Mapping[str, Any]]) -> BulkResult:
        """Replace documents in the version of `if_seq_no` and `if_primary_term`, which `options` has by id.

        One that was written again stays: its reason is `WRITTEN_AGAIN`.
        """
        return self._write_actions(lambda id_, source: build_index_action(id_, source, options[id_]), documents)

    def update(self, documents: Sequence[tuple[str, Mapping[str, Any]]]) -> BulkResult:
        """Update fields of existing documents; a missing document counts as done."""
        return self._write_actions(build_update_action, documents)

    def delete(self, ids: Sequence[str], options: Mapping[str, Mapping[str, Any]] | None = None) -> BulkResult:
        """Delete documents; a missing document counts as deleted.

        `options` are those of the actions by id. With `if_seq_no` and `if_primary_term`, a document that was written again stays:
        its reason is `WRITTEN_AGAIN`.
        """
        return self._write_actions(build_delete_action, [(id_, (options or {}).get(id_, {})) for id_ in ids])

    def _write_actions(
        self,
        build_action: Callable[[str, Mapping[str, Any]], SerializedAction],
        documents: Iterable[tuple[str, Mapping[str, Any]]],
        chunk_bytes: int | None = None,
    ) -> BulkResult:
        result, actions = BulkResult(), []
        for id_, source in dict(documents).items():
            try:
                actions.append(build_action(id_, source))
            except TypeError as error:  # not JSON: a lone surrogate, a number of more than 64 bits, an unsupported type
                result.outcomes[id_] = f"not JSON: {error}"
        _BulkCall(self, result, actions, min(chunk_bytes or self.policy.max_chunk_bytes, self.policy.max_chunk_bytes)).run()
        return result


@dataclass
class _BulkResponse:
    results: Mapping[str, ItemResult] = field(default_factory=dict)
    failure: RequestFailure | None = None
    """Failure of the whole request; then there are no results."""
    error: Exception | None = None

    def get_result(self, action: SerializedAction) -> ItemResult:
        return ItemResult("busy", str(self.error)) if self.failure else self.results.get(action[0], NOT_MENTIONED)


class _BulkCall:
    """One call of the writer: pending actions, and how long there has been no progress."""

    def __init__(self, writer: BulkWriter, result: BulkResult, actions: Sequence[SerializedAction], max_bytes: int) -> None:
        self.writer, self.policy, self.result, self.max_bytes = writer, writer.policy, result, max_bytes
        self.pending: deque[list[SerializedAction]] = deque()
        self.attempt = 0
        self.failing_since_s: float | None = None
        """Start of the first of the consecutive failures."""
        self.is_format_accepted = False
        """Whether the cluster has accepted a request of this format without documents."""
        self._queue_actions(actions)

    def run(self) -> None:
        while self.pending:
            chunk = self.pending.popleft()
            start_s = self.writer.clock()
            response = self._send_chunk(chunk)
            if response.failure == "too large":
                self._shrink_requests(chunk)
            elif response.failure == "malformed":
                self._bisect_chunk(chunk, response)
            elif busy := self._record_outcomes(chunk, response):
                self.failing_since_s = start_s if self.failing_since_s is None else self.failing_since_s
                self._retry_actions(busy, response)

    def _queue_actions(self, actions: Iterable[SerializedAction]) -> None:
        self.pending.extend(chunk_actions(actions, self.max_bytes, self.policy.max_chunk_docs))

    def _send_chunk(self, chunk: Sequence[SerializedAction]) -> _BulkResponse:
        body = b"".join(line for _, line in chunk)
        start_s = self.writer.clock()
        response = self._send_request(body)
        busy = response.failure == "busy" or any(response.get_result(action).status == "busy" for action in chunk)
        if response.failure != "malformed":
            seconds = self.writer.clock() - start_s
            self.result.requests.append(BulkRequestStats(len(body), len(chunk), seconds, busy, response.failure == "too large"))
        return response

    def _send_request(self, body: bytes) -> _BulkResponse:
        cluster, index = self.writer.cluster, self.writer.index
        must_wait = cluster.product == "opensearch-serverless"  # as it can't be refreshed
        params = {"filter_path": _FILTER_PATH + (",items.*._seq_no" if must_wait else ""), "require_alias": "true"}
        try:
            response = cluster.client.bulk(body=body, index=make_write_alias(index), params=params)
            results = parse_bulk_response(response, index)
            for id_, seq_no in list_writes(response).items() if must_wait else ():
                cluster.recent_writes.add(index, id_, seq_no)
            return _BulkResponse(results)
        except exceptions.TransportError as error:
            failure = classify_request_error(error)
            if failure == "fatal":
                with translate_errors(self.writer.cluster.connection):
                    raise
            return _BulkResponse(failure=failure, error=error)
        except (exceptions.SerializationError, AttributeError) as error:
            # A proxy's page, or a truncated response: what was written is unknown. The client raises AttributeError
            # for an error whose JSON is not an object.
            return _BulkResponse(failure="busy", error=exceptions.SerializationError(f"the response is not JSON: {error}"))

    def _record_outcomes(self, chunk: Sequence[SerializedAction], response: _BulkResponse) -> list[SerializedAction]:
        """Record final outcomes, and return the actions to retry."""
        busy = []
        for action in chunk:
            result = response.get_result(action)
            if result.status == "busy":
                busy.append(action)
            elif result.status in ("done", "failed"):
                self._set_outcome(action, None if result.status == "done" else result.reason)
            else:
                raise self._build_stop_error(result)
        return busy

    def _set_outcome(self, action: SerializedAction, reason: str | None) -> None:
        self.result.outcomes[action[0]] = reason
        self.attempt, self.failing_since_s = 0, None

    def _retry_actions(self, busy: list[SerializedAction], response: _BulkResponse) -> None:
        self.attempt += 1
        remaining_s = (self.failing_since_s or 0.0) + self.policy.give_up_after_s - self.writer.clock()
        if self.attempt >= self.policy.attempts or remaining_s <= 0:
            self._isolate_bad_documents(busy, response)
            return
        if isinstance(response.error, exceptions.TransportError) and response.error.status_code in (429, "TIMEOUT"):
            self.max_bytes = max(self.max_bytes // 2, _MIN_CHUNK_BYTES)
        self._queue_actions(busy)
        log_retry(self.writer.cluster.connection, f"{len(busy)} documents: {response.get_result(busy[0]).reason}", self.attempt)
        self.writer.sleep(min(self.policy.compute_delay_s(self.attempt, get_retry_after_s(response.error)), remaining_s))

    def _shrink_requests(self, chunk: list[SerializedAction]) -> None:
        if len(chunk) == 1:
            size = len(chunk[0][1])
            self._set_outcome(chunk[0], f"HTTP 413: the document of {size} bytes is larger than the cluster accepts")
            return
        self.max_bytes = min(self.max_bytes, count_action_bytes(chunk) // 2)
        rest = list(chain(chunk, *self.pending))
        self.pending.clear()
        self._queue_actions(rest)

    def _bisect_chunk(self, chunk: list[SerializedAction], response: _BulkResponse) -> None:
        """Find out whether one document or the format of the request is rejected as malformed, and halve the chunk."""
        if not self.is_format_accepted:
            start_s, noop = self.writer.clock(), build_noop_action(chunk[0][0])
            noop_response = self._send_request(noop[1])
            if noop_response.failure == "busy":
                self.failing_since_s = start_s if self.failing_since_s is None else self.failing_since_s
                self._retry_actions(chunk, noop_response)
                return
            if noop_response.failure:
                raise self._build_request_error(response)
            if noop_response.get_result(noop).status in ("forbidden", "closed", "wrong_index"):
                raise self._build_stop_error(noop_response.get_result(noop))
            self.is_format_accepted = True
        if len(chunk) == 1:
            info = getattr(response.error, "info", None)
            reason = format_cluster_error(info.get("error")) if isinstance(info, dict) else str(response.error)
            self._set_outcome(chunk[0], f"HTTP 400: the cluster can't read it: {reason}")
        else:
            half = len(chunk) // 2
            self.pending.extendleft([chunk[half:], chunk[:half]])

    def _isolate_bad_documents(self, busy: list[SerializedAction], response: _BulkResponse) -> None:
        """Record as failed the documents that are rejected for themselves when retries are exhausted, or stop the run."""
        if response.failure:
            raise self._build_request_error(response)
        if len(busy) > _MAX_ISOLATED:
            raise self._build_timeout_error(busy, response)
        noops = [build_noop_action(id_) for id_, _ in busy]
        last_response = self._send_chunk([*busy, *noops])
        for action, noop in zip(busy, noops, strict=True):
            if last_response.get_result(action).status == "busy" and last_response.get_result(noop).status != "done":
                raise self._build_timeout_error(busy, response)
        for action in self._record_outcomes(busy, last_response):
            reason = last_response.get_result(action).reason
            self._set_outcome(action, f"{reason} (in all retries, while the cluster accepts others)")

    # --- errors that stop a run ---

    def _build_request_error(self, response: _BulkResponse) -> ClusterError:
        try:
            with translate_errors(self.writer.cluster.connection):
                raise response.error or exceptions.SerializationError("no response")
        except ClusterError as translated:
            attempts = f" (tried {self.attempt} times)" if self.attempt else ""
            busy = response.failure == "busy" and not isinstance(translated, ClusterUnreachable)
            remedy = _RESUME if busy else translated.remedy or _RESUME
            if BLOCKED in str(response.error):
                remedy = _UNBLOCK
            error = type(translated)(f"{translated.message}{attempts}", remedy, code=translated.code)
            error.status = translated.status
            return error

    def _build_timeout_error(self, busy: list[SerializedAction], response: _BulkResponse) -> ClusterError:
        reason = response.get_result(busy[0]).reason
        url = self.writer.cluster.connection.safe_url
        return ClusterError(
            f"{url} does not accept {len(busy)} documents (tried {self.attempt} times): {reason}",
            _UNBLOCK if BLOCKED in reason else _RESUME,
            code="index-blocked" if BLOCKED in reason else "cluster-overloaded",
        )

    def _build_stop_error(self, result: ItemResult) -> ClusterError:
        url, index = self.writer.cluster.connection.safe_url, self.writer.index
        if result.status == "wrong_index":
            alias = make_write_alias(index)
            return IndexMismatch(
                f"{url}: documents for {index!r} were stored in {result.reason!r}: the alias {alias!r} was moved",
                f"Remove the alias from {result.reason!r} and delete what this run wrote there. Then run the command again.",
                code="write-alias-moved",
            )
        if result.status == "forbidden":
            grant = choose_grant_remedy(self.writer.cluster.connection)
            return AuthenticationFailed(f"{url} forbids writing into {index!r}: {result.reason}", grant, code="write-forbidden")
        if "not_found" in result.reason:
            return ClusterError(
                f"{url} no longer has the alias {make_write_alias(index)!r}: the index was deleted, or the alias removed",
                _RERUN,
                code="write-alias-lost",
            )
        return ClusterError(
            f"{url} accepts no documents for {index!r}: {result.reason}",
            result.remedy or _RESUME,
            code="cluster-accepts-no-documents",
        )
