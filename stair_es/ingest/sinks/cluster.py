"""The built-in sink: an index with an alias, in OpenSearch or Elasticsearch.

Options: `retain_indices` (number of retired indices to retain, 1), `swap` (auto, always, never),
`no_replicas_while_building` (yes or no), `mapping` (file with a custom index body), `token_index` (yes or no; by default what
the index has).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from stair_es._itertools import batched
from stair_es.cluster.bulk.writer import BulkWriter
from stair_es.cluster.client.capabilities import ClusterInfo, get_cluster_info
from stair_es.cluster.client.cluster import Cluster, open_shared_cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents import read
from stair_es.cluster.documents.read import WriteVersion
from stair_es.cluster.index.aliases import check_alias_target, check_identities, delete_retired_indices, swap_alias
from stair_es.cluster.index.labels import copy_labels
from stair_es.cluster.index.lifecycle import find_index, open_index
from stair_es.cluster.index.load_settings import relax_index_settings
from stair_es.cluster.index.mappings import build_index_body
from stair_es.cluster.metadata.index_metadata import WriteTarget
from stair_es.cluster.metadata.names import check_alias_name
from stair_es.cluster.metadata.policy_state import LABELS_POLICY, fetch_index_policy, select_policy
from stair_es.cluster.token_index.sync import reconcile_token_index
from stair_es.config.defaults import DEFAULT_SINK
from stair_es.config.settings import resolve_settings
from stair_es.errors import StairError, UsageError
from stair_es.ingest.sinks.base import RunCoverage, SinkKind, SinkPlan, SinkResult, SinkSession, TokenIndexPlan
from stair_es.ingest.sinks.cluster_options import (
    ClusterPlan,
    ClusterSinkOptions,
    TokenIndexRequest,
    prepare_token_index,
    resolve_token_index,
)
from stair_es.ingest.sinks.forgotten import ForgottenList, purge_index
from stair_es.model.used_folders import record_model_folder
from stair_es.retry import RetryPolicy
from stair_es.store import BulkResult, IndexedDocument, StoredVersion
from stair_es.token_policy import TokenPolicy

logger = logging.getLogger(__name__)

_BATCH_SIZE = 256


class ClusterSinkWriter(BulkWriter):
    """The `SinkWriter` of one index."""

    def find_by_id(self, ids: Sequence[str]) -> dict[str, StoredVersion]:
        """Look up documents by `_id`."""
        return read.get_stored_by_id(self.cluster, self.index, ids)

    def find_by_uri(self, uris: Sequence[str]) -> dict[str, StoredVersion]:
        """Look up documents by the URI of their image."""
        return read.get_stored_by_uri(self.cluster, self.index, uris)


@dataclass(frozen=True)
class ClusterGuard:
    """The `ForgottenGuard` of one index."""

    images: ForgottenList
    writer: BulkWriter
    """Of the index of the run."""
    restores: bool
    """Whether images are taken off the list instead."""

    def find_listed(self, keys: Sequence[Sequence[str]]) -> list[bool]:
        """Look them up in the list, or take them off it."""
        found = self.images.find_ids(id_ for each in keys for id_ in each)
        if self.restores:
            self.images.remove(found)
            found.clear()
        return [not found.isdisjoint(each) for each in keys]

    def delete_documents(self, ids: Sequence[str]) -> Mapping[str, str | None]:
        """Delete documents by `_id`."""
        return self.writer.delete(ids).outcomes if ids else {}


@dataclass(kw_only=True)
class ClusterSinkSession(SinkSession):
    """The `SinkSession` of one run into an index."""

    writer: ClusterSinkWriter
    index: str
    is_empty: bool
    label: str
    alias: str
    write_target: WriteTarget
    options: ClusterSinkOptions
    last_writes: Sequence[WriteVersion | None]
    """Last write of each shard before the session was opened; empty for a session that was opened to write."""
    policy: TokenPolicy | None
    """Token policy of the index at the start of the run."""
    has_token_index: bool
    model_id: str
    forgotten: ClusterGuard | None = None
    forgotten_state: object = None
    """State of the list of forgotten images at the start of the run."""

    @property
    def _cluster(self) -> Cluster:
        return self.writer.cluster

    def choose_policy(self, requested: TokenPolicy | None) -> TokenPolicy | None:
        """Return the policy of the index, if it has one; the requested one is that of a new index."""
        return self.policy

    @contextmanager
    def load(self) -> Iterator[None]:
        """Relax refreshes, and replicas if requested, during the load. A failed load also does what depends on other commands."""
        with relax_index_settings(self._cluster, self.write_target, replicas=self.options.no_replicas_while_building):
            try:
                yield
            except BaseException:
                for finish in (self._purge_forgotten, self._warn_policy_changed):
                    with suppress(StairError):  # the first error is more informative
                        finish()
                raise

    def iterate_documents(self, sources: Sequence[str]) -> Iterator[IndexedDocument]:
        """Iterate over the documents of these sources whose last write is older than the session."""
        return read.scan_older_documents(self._cluster, self.index, self.last_writes, sources)

    def delete_documents(self, documents: Sequence[IndexedDocument]) -> BulkResult:
        """Delete documents in the version that was read.

        The numbers of writes mean nothing in another index of the same name, so its identity is checked after they were read.
        """
        check_identities(self._cluster, self.write_target.identities)
        options = {document.id: document.delete_options for document in documents}
        return self.writer.delete(list(options), options)

    def complete(self, coverage: RunCoverage) -> SinkResult:
        """Swap the alias if the new index has every image of the old one that still exists.

        The token index is reconciled first, so that both aliases move at once.

        Raises:
            IndexMismatch: If the alias points to another index by now, of another run or another program; or if the index or
                its token index was created again or restored.
        """
        self._cluster.refresh(self.index)
        self._purge_forgotten()
        self._warn_policy_changed()
        token_index = None
        if self.has_token_index:
            token_index = reconcile_token_index(self._cluster, self.alias, self.index, self.writer.policy)
        if token_index:
            identities = {**self.write_target.identities, token_index.index: token_index.identity}
            self.write_target = replace(self.write_target, identities=identities)
        result = self._swap_alias(coverage)
        self._check_alias(self.write_target.replaces if result.not_swapped_reason else None)
        if result.swapped:
            retained, replaced = self.options.retain_indices, self.write_target.replaces
            deleted = delete_retired_indices(self._cluster, self.alias, retained, replaced)
            result = replace(result, deleted_indices=tuple(deleted))
        return replace(result, token_index=token_index)

    def _swap_alias(self, coverage: RunCoverage) -> SinkResult:
        live = self.write_target.replaces
        if live is None:
            return SinkResult()
        alias_target = self._check_alias(live)
        if alias_target == self.index:
            return SinkResult()  # swapped by a concurrent run
        if reason := self._explain_not_swapped(coverage, alias_target):
            return SinkResult(not_swapped_reason=reason)
        if copied := copy_labels(self._cluster, live, self.index):
            logger.info("%s images keep their labels", f"{copied:,}")
            self._cluster.refresh(self.index)
        swap_alias(self._cluster, self.alias, self.write_target)
        return SinkResult(swapped=True)

    def _explain_not_swapped(self, coverage: RunCoverage, alias_target: str) -> str:
        """Return why the alias must not be swapped to the new index; "" if it may be, as without a target."""
        swap = self.options.swap
        if not alias_target:
            hint = f"To point it to this one: PUT /{self.index}/_alias/{self.alias}"
            return f"--no-swap: alias {self.alias} no longer points to an index. {hint}" if swap == "never" else ""
        reason = self._explain_policy_difference(alias_target)
        if reason or swap == "always":
            return reason
        if swap == "never":
            return f"--no-swap: alias {self.alias} still points to {alias_target}"
        return self._explain_missing(alias_target, coverage)

    def _check_alias(self, live: str | None) -> str:
        return check_alias_target(self._cluster, self.alias, self.write_target, live)

    def _purge_forgotten(self) -> None:
        """Delete what was forgotten during this run, which may have written it afterwards."""
        images = ForgottenList(self._cluster, self.alias)
        if images.get_state() == self.forgotten_state:
            return
        self._cluster.refresh(self.index)
        if deleted := purge_index(images, self.index):
            logger.warning("%s images were forgotten during this run: their documents are deleted again", f"{deleted:,}")

    def _warn_policy_changed(self) -> None:
        policy = fetch_index_policy(self._cluster, self.index)
        if (policy and policy.digest) != (self.policy and self.policy.digest):
            logger.warning(
                "the token policy of the index changed during this run: to update the documents that it wrote, run"
                " stair-es policy %s --index %s",
                "apply" if policy else "rollback",
                self.alias,
            )

    def _explain_policy_difference(self, live: str) -> str:
        """Return why the policies forbid the swap: the searchable index has another token policy than the new one."""
        live_policy, new_policy = (fetch_index_policy(self._cluster, name) for name in (live, self.index))
        inherited = select_policy(live_policy, self.model_id)
        if (inherited and inherited.digest) == (new_policy and new_policy.digest):
            return ""
        has = f"has the token policy {live_policy.label}" if live_policy else "has no token policy"
        return (
            f"alias {self.alias} still points to {live}: it {has}, this build {new_policy.label if new_policy else 'none'}."
            f" Run stair-es policy {'apply' if live_policy else 'rollback'} --index {self.alias}, and ingest again"
        )

    def _explain_missing(self, live: str, coverage: RunCoverage) -> str:
        unseen, failed = self._count_missing(live, coverage)
        if unseen:
            some = ", ".join(f"{source} ({count:,})" for source, count in unseen.most_common(3))
            return (
                f"alias {self.alias} still points to {live}: it has {unseen.total():,} images of sources that this build has not"
                f" seen, among them {some}. Ingest them with the same settings (it resumes), or use --force-swap"
            )
        if failed:
            return (
                f"alias {self.alias} still points to {live}: {failed:,} of its images failed in this build. Fix them and"
                " ingest again (the build resumes; see the dead letters), or use --force-swap"
            )
        return ""

    def _count_missing(self, live: str, coverage: RunCoverage) -> tuple[Counter[str], int]:
        """Count the images of the old index that the new one lacks: those of unseen sources, and those that failed now."""
        unseen, failed = Counter[str](), 0
        self._cluster.refresh(live)  # another program may have written it just now
        for batch in batched(read.scan_documents(self._cluster, live), _BATCH_SIZE):
            stored = read.get_stored_by_uri(self._cluster, self.index, [document.uri for document in batch])
            for document in batch:
                status = coverage.get_status(document.uri)
                if document.uri in stored or status == "stored":
                    continue
                if status == "failed":
                    failed += 1
                elif document.source not in coverage.sources:
                    unseen[document.source] += 1
        return unseen, failed


class ClusterSinkKind(SinkKind):
    """The sink kind `cluster`."""

    name = DEFAULT_SINK
    description = "an index with an alias in OpenSearch or Elasticsearch"

    def open(self, plan: SinkPlan) -> ClusterSinkSession:
        """Prepare an index for a run: create it, or resume the one that fits the plan."""
        resolved = _resolve_plan(plan)
        write_target = open_index(resolved.cluster, plan.alias, resolved.body, resolved.plan.index_spec, plan.policy)
        prepare_token_index(resolved.cluster, write_target.name, resolved.token_index)
        if resolved.plan.document.id == "content-hash" and not write_target.created:
            resolved.cluster.refresh(write_target.name)  # lookups by URI only see refreshed documents
        if write_target.pending_operation:
            logger.warning(
                "%s: a policy %s is in progress there, or was interrupted: "
                "unless it still runs, run stair-es policy %s --index %s",
                write_target.name,
                write_target.pending_operation,
                write_target.pending_operation,
                plan.alias,
            )
        # Searches of this index find the model without --model.
        record_model_folder(resolved.plan.index_spec.model_name, resolve_settings(resolved.plan.settings).home)
        session = resolved.build_session(write_target)
        names = filter(None, (write_target.name, write_target.replaces))  # a new index gets it with the labels of the old one
        policies = (fetch_index_policy(resolved.cluster, name, LABELS_POLICY) for name in names)
        session.labels_policy = next(filter(None, policies), None)
        images = ForgottenList(resolved.cluster, plan.alias)
        session.forgotten_state = images.get_state()
        if session.forgotten_state is not None:
            session.forgotten = ClusterGuard(images, session.writer, restores=plan.include_forgotten)
        return session

    def open_readonly(self, plan: SinkPlan) -> ClusterSinkSession | None:
        """Return a session on the index that a run would write into, without changing it; None if the run would create one."""
        resolved = _resolve_plan(plan)
        write_target = resolved.find_index()
        if write_target is None or not plan.resync:
            return resolved.build_session(write_target) if write_target else None
        resolved.cluster.refresh(write_target.name)
        last_writes = read.find_last_writes(resolved.cluster, write_target.name)
        return resolved.build_session(write_target, last_writes)

    def find_forgotten(self, plan: SinkPlan) -> ForgottenList | None:
        """Return the list of forgotten images that a run would leave out, if there is one."""
        images = ForgottenList(_resolve_plan(plan).cluster, plan.alias)
        return None if plan.include_forgotten or images.get_state() is None else images

    def plan_token_index(self, plan: SinkPlan) -> TokenIndexPlan | None:
        """Return what a run would do to the token index; None if nothing."""
        resolved = _resolve_plan(plan)
        write_target = resolved.find_index()
        return resolved.token_index.plan_changes(write_target.name if write_target else None)


@dataclass(frozen=True, kw_only=True)
class _ResolvedPlan:
    plan: ClusterPlan
    cluster: Cluster
    cluster_info: ClusterInfo
    body: Mapping[str, Any]
    token_index: TokenIndexRequest

    def find_index(self) -> WriteTarget | None:
        return find_index(self.cluster, self.plan.alias, self.body, self.plan.index_spec, self.plan.policy)

    def build_session(self, write_target: WriteTarget, last_writes: Sequence[WriteVersion | None] = ()) -> ClusterSinkSession:
        return ClusterSinkSession(
            writer=ClusterSinkWriter(cluster=self.cluster, index=write_target.name, policy=self.plan.bulk),
            index=write_target.name,
            is_empty=write_target.created,
            label=self.cluster_info.label,
            alias=self.plan.alias,
            write_target=write_target,
            options=self.plan.options,
            last_writes=last_writes,
            policy=write_target.policy,
            has_token_index=self.token_index.is_enabled,
            model_id=self.plan.index_spec.model_id,
        )


def _resolve_plan(plan: SinkPlan) -> _ResolvedPlan:
    """Check everything that can be checked before the index is created or changed."""
    if not (isinstance(plan, ClusterPlan) and isinstance(plan.connection, Connection)):
        raise UsageError("the sink 'cluster' needs a connection", "Give --url.", code="sink-without-connection")
    cluster = open_shared_cluster(plan.connection)
    cluster_info = get_cluster_info(cluster, RetryPolicy())
    check_alias_name(plan.alias)
    body = build_index_body(cluster_info, plan.document, plan.field_types, override=plan.options.mapping)
    fields = body.get("mappings", {}).get("properties", {})
    token_index = resolve_token_index(cluster, plan.alias, plan.options.token_index, fields)
    return _ResolvedPlan(plan=plan, cluster=cluster, cluster_info=cluster_info, body=body, token_index=token_index)


KIND = ClusterSinkKind()
