"""Update the documents that a policy affects: as a task of the cluster, or from here where a product has no such tasks."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

from stair_es.cluster.bulk.actions import WRITTEN_AGAIN
from stair_es.cluster.client.capabilities import get_product
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.client.exceptions import choose_grant_remedy, get_error_reason
from stair_es.cluster.client.opensearch import exceptions
from stair_es.cluster.documents.document import (
    DocumentSettings,
    build_vector_fields,
    parse_policy_undo,
    parse_token_weights,
)
from stair_es.cluster.documents.edit import CHANGED, DELETED_MEANWHILE, UNCHANGED, edit_documents
from stair_es.cluster.documents.read import count_matches, paginate_hits
from stair_es.cluster.metadata.names import ensure_write_alias
from stair_es.cluster.policy.script import TokenFieldLayout, build_affected_query, build_policy_script
from stair_es.errors import AuthenticationFailed, ClusterError, UnsupportedTarget
from stair_es.retry import RetryPolicy, sleep_unless_cancelled
from stair_es.token_policy import TokenPolicy
from stair_es.types import SparseVector

logger = logging.getLogger(__name__)

_MIN_POLL_S, _MAX_POLL_S = 0.05, 2.0
_BATCH = 1000
_FILTER = "completed,task.status,response"  # `NodeConnection` adds `error`
"""Without it each response repeats the script and the policy."""
_UNSUPPORTED_STATUSES = (400, 404, 405, 410, 501)
"""Status of a request that a cluster doesn't support."""
_AFTER_FAILURE = RetryPolicy(attempts=2)
_NO_FAILURES = (CHANGED, UNCHANGED, DELETED_MEANWHILE, WRITTEN_AGAIN)
_POLICY_FIELDS = ("tokens", "top_tokens", "impacts", "policy", "policy_undo")
_FORMS: Mapping[str, tuple[type, ...]] = {"top_tokens": (list, str), "impacts": (str,)}
"""Fields that only follow if a document has them in one of these forms: other programs may have put something else there."""


@dataclass(frozen=True, kw_only=True)
class UpdateLimits:
    """Limits of the load that a task causes."""

    requests_per_second: float = -1.0
    """Documents per second, -1 for no limit."""
    slices: int = 0
    """Number of parallel slices, 0 for one per shard."""

    @property
    def batch_size(self) -> int:
        """Documents per batch: about one second's worth, since the cluster only waits between batches."""
        return _BATCH if self.requests_per_second < 0 else max(1, min(_BATCH, round(self.requests_per_second)))


@dataclass(frozen=True, kw_only=True)
class UpdateProgress:
    """Result of one task, or its progress so far."""

    total: int = 0
    changed: int = 0
    unchanged: int = 0
    conflicts: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    """Id and reason of documents that the cluster rejected; the task ended there."""
    complete: bool = False
    """It finished, and all matching documents are changed, unchanged or in conflict."""

    @property
    def processed(self) -> int:
        """Number of documents processed so far."""
        return self.changed + self.unchanged + self.conflicts + len(self.failed)


@dataclass(frozen=True, kw_only=True)
class _DocumentUpdate:
    cluster: Cluster
    index: str
    layout: TokenFieldLayout
    limits: UpdateLimits
    progress: Callable[[UpdateProgress], None]
    """Called with the progress of each pass."""


@dataclass(frozen=True, kw_only=True)
class UpdateByQueryTask(_DocumentUpdate):
    """Runs passes over one index, one at a time: a new one cancels what an earlier run left behind."""

    def prepare(self, policy: TokenPolicy | None) -> None:
        """Cancel what an earlier run left behind, after trying an update that matches no document.

        Raises:
            UnsupportedTarget: If the cluster rejects such an update.
        """
        error = self.cluster.call(self._try_script, build_policy_script(policy, self.layout))
        if error is not None:
            raise build_no_scripts_error(self.cluster.connection, get_error_reason(error, self.cluster.connection))
        self.cancel_running()

    def run_pass(self, policy: TokenPolicy | None, skip: Collection[str]) -> UpdateProgress:
        """Run one pass to its end, without the documents with the ids `skip`; it is cancelled if the caller is interrupted.

        Raises:
            ClusterError: If the cluster fails it as a whole, or it was cancelled.
            UnsupportedTarget: If the cluster can't run such scripts.
        """
        body = {
            "query": build_affected_query(policy, self.layout, skip),
            "script": build_policy_script(policy, self.layout),
        }
        self.cancel_running()
        self.cluster.refresh(self.index)
        id_ = None
        try:
            id_ = self.cluster.call(self._start_task, body)
            return self._wait_for_task(id_)
        except BaseException:
            self._cancel_quietly(id_)
            raise

    def _cancel_quietly(self, id_: str | None) -> None:
        """Cancel the task if possible; the error that ended the run is more important than why it can't be cancelled."""
        try:
            self.cancel_running(_AFTER_FAILURE, only_task=id_)
        except ClusterError as error:
            logger.warning(
                "%s: this update may still be running, since it could not be cancelled: %s. "
                "Run apply or rollback again when it has ended, to complete it",
                self.index,
                error.message,
            )

    def cancel_running(self, policy: RetryPolicy | None = None, only_task: str | None = None) -> None:
        """Cancel our tasks on this index, and wait until they have ended: the task of a killed client keeps running.

        With `only_task` it is the only one: the others belong to a run that has cancelled this one.
        """
        wait_s = _MIN_POLL_S
        while running := self.cluster.call(self._list_running, retry=policy):
            if only_task is not None and only_task not in running:
                return
            for id_ in [only_task] if only_task else running:
                self.cluster.call(self.cluster.client.tasks.cancel, task_id=id_, ignore=[404], retry=policy)
            sleep_unless_cancelled(wait_s)
            wait_s = min(_MAX_POLL_S, wait_s * 2)

    def _try_script(self, script: Mapping[str, Any]) -> exceptions.TransportError | None:
        body = {"query": {"match_none": {}}, "script": dict(script)}
        try:
            self.cluster.client.update_by_query(index=self.index, body=body)
        except exceptions.TransportError as error:
            if error.status_code in _UNSUPPORTED_STATUSES:
                return error
            raise
        return None

    @property
    def _opaque_id(self) -> str:
        return f"stair-es-policy {self.index}"

    def _start_task(self, body: Mapping[str, Any]) -> str:
        params = {
            "conflicts": "proceed",
            "wait_for_completion": "false",
            "slices": str(self.limits.slices or "auto"),
            "requests_per_second": str(self.limits.requests_per_second),
            "scroll_size": str(self.limits.batch_size),
        }
        headers = {"X-Opaque-Id": self._opaque_id}
        id_: str = self.cluster.client.update_by_query(index=self.index, body=dict(body), params=params, headers=headers)["task"]
        return id_

    def _list_running(self) -> list[str]:
        params = {"actions": "*update/byquery", "filter_path": "nodes.*.tasks.*.headers"}
        response = self.cluster.client.tasks.list(params=params)
        tasks = [task for node in response.get("nodes", {}).values() for task in node["tasks"].items()]
        return [id_ for id_, task in tasks if task.get("headers", {}).get("X-Opaque-Id") == self._opaque_id]

    def _wait_for_task(self, id_: str) -> UpdateProgress:
        wait_s, progress = _MIN_POLL_S, UpdateProgress()
        while True:
            response = self.cluster.call(self._get_task, id_)
            if response is None:
                return progress  # the task was lost with its node
            if response.get("completed"):
                result = _parse_finished_task(response, self.cluster.connection)
                self.progress(result)
                return result
            progress = _parse_status(response.get("task", {}).get("status", {}))
            self.progress(progress)
            sleep_unless_cancelled(wait_s)
            wait_s = min(_MAX_POLL_S, wait_s * 1.5)

    def _get_task(self, id_: str) -> dict[str, Any] | None:
        try:
            response: dict[str, Any] = self.cluster.client.tasks.get(task_id=id_, params={"filter_path": _FILTER})
        except exceptions.NotFoundError:
            return None
        return response


@dataclass(frozen=True, kw_only=True)
class ClientUpdate(_DocumentUpdate):
    """Runs passes over one index from here, which needs neither scripts nor tasks: serverless products lack them."""

    def prepare(self, policy: TokenPolicy | None) -> None:
        """Give the index its write alias, if it is missing."""
        ensure_write_alias(self.cluster, self.index)

    def run_pass(self, policy: TokenPolicy | None, skip: Collection[str]) -> UpdateProgress:
        """Run one pass to its end, without the documents with the ids `skip`.

        Raises:
            ClusterError: If the cluster fails.
        """
        self.cluster.refresh(self.index)
        query = build_affected_query(policy, self.layout, skip)
        done = UpdateProgress(total=count_matches(self.cluster, self.index, query))
        edit, body = partial(_build_policy_fields, policy, self.layout), {"query": query, "_source": False}
        for hits in paginate_hits(self.cluster, self.index, body, size=self.limits.batch_size):
            edits = {hit["_id"]: edit for hit in hits}
            outcomes = edit_documents(self.cluster, self.index, edits, _POLICY_FIELDS)
            counts = Counter(outcomes.values())
            done = replace(
                done,
                changed=done.changed + counts[CHANGED],
                unchanged=done.unchanged + counts[UNCHANGED] + counts[DELETED_MEANWHILE],
                conflicts=done.conflicts + counts[WRITTEN_AGAIN],
                failed={**done.failed, **{id_: reason for id_, reason in outcomes.items() if reason not in _NO_FAILURES}},
            )
            self.progress(done)
            if self.limits.requests_per_second > 0:
                sleep_unless_cancelled(len(hits) / self.limits.requests_per_second)
        return replace(done, complete=not done.failed and done.processed >= done.total)


PolicyUpdate: TypeAlias = UpdateByQueryTask | ClientUpdate


def _build_policy_fields(
    policy: TokenPolicy | None, layout: TokenFieldLayout, source: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """Build the fields that the script of a policy gives a document; None for no change."""
    tokens = source.get("tokens")
    if not isinstance(tokens, dict) or (policy and source.get("policy") == policy.digest):
        return None
    original = parse_policy_undo(source).restore(SparseVector.from_mapping(parse_token_weights(tokens)))
    settings = DocumentSettings(top_token_count=layout.top_token_count, impacts=isinstance(source.get("impacts"), str))
    fields = build_vector_fields(original, settings, policy)
    if "policy" not in fields and source.get("policy") is None and source.get("policy_undo") is None:
        return None
    others = {name: source.get(name) for name, form in _FORMS.items() if not isinstance(source.get(name), form)}
    return {name: value for name, value in {**fields, **others}.items() if value is not None}


def _parse_status(status: Mapping[str, Any]) -> UpdateProgress:
    """Parse the counts of a task, summed over its slices."""
    parts = [part for part in status.get("slices") or [status] if part]

    def sum_field(name: str) -> int:
        return sum(int(part.get(name, 0)) for part in parts)

    return UpdateProgress(
        total=sum_field("total"),
        changed=sum_field("updated"),
        unchanged=sum_field("noops"),
        conflicts=sum_field("version_conflicts"),
    )


def _parse_finished_task(task_info: Mapping[str, Any], connection: Connection) -> UpdateProgress:
    if task_info.get("error"):
        raise _build_update_error(task_info["error"], connection)
    response = task_info["response"]
    if response.get("canceled"):
        raise ClusterError(
            f"the update was cancelled: {response['canceled']}", "Run it again: it resumes from there.", code="update-cancelled"
        )
    failed: dict[str, str] = {}
    for failure in response.get("failures", []):
        cause = failure.get("cause") or failure.get("reason") or {}
        if "id" not in failure:
            raise _build_update_error(cause, connection)
        inner = (cause.get("caused_by") or {}).get("reason")
        failed[failure["id"]] = connection.redact(cause.get("reason", "refused") + (f": {inner}" if inner else ""))
    progress = _parse_status(response)
    return replace(progress, failed=failed, complete=not failed and progress.processed == progress.total)


def _build_update_error(error: Mapping[str, Any], connection: Connection) -> ClusterError:
    reasons = [error.get("reason"), (error.get("caused_by") or {}).get("reason"), *(error.get("script_stack") or [])[:2]]
    reason = connection.redact(": ".join(str(reason) for reason in reasons if reason))
    if error.get("type") == "security_exception":
        return AuthenticationFailed(
            f"{connection.safe_url} forbids the update: {reason}", choose_grant_remedy(connection), code="update-forbidden"
        )
    if "script_lang not supported" in reason or "cannot execute [inline] scripts" in reason:
        return build_no_scripts_error(connection, reason)
    return ClusterError(
        f"the cluster failed the update: {reason}", "The changes so far are kept; run it again to resume.", code="update-failed"
    )


def check_script_support(cluster: Cluster) -> None:
    """Raise UnsupportedTarget if the cluster reports that it runs no inline painless scripts on updates."""
    if get_product(cluster):  # it has them, or needs none, and refuses the question
        return
    try:
        response = cluster.call(cluster.client.get_script_languages, ignore=[404])
    except ClusterError:
        return  # forbidden
    if "language_contexts" not in response:
        return  # too old to report them
    contexts = {entry["language"]: entry["contexts"] for entry in response["language_contexts"]}
    if not {"update", "update_by_query"} & set(contexts.get("painless", [])):
        raise build_no_scripts_error(cluster.connection, "it has no painless")
    if "inline" not in response.get("types_allowed", ["inline"]):
        raise build_no_scripts_error(cluster.connection, "it allows no inline scripts")


def build_no_scripts_error(connection: Connection, reason: str) -> UnsupportedTarget:
    """Build the error for a cluster that can't update documents by script."""
    return UnsupportedTarget(
        f"{connection.safe_url} can't change documents by script: {reason}",
        "Inline painless scripts are required. Or build a new index: stair-es ingest --index NEW (with a policy: --policy FILE)",
        code="no-scripts",
    )
