"""Apply a token policy to the documents of an existing index, or roll it back. Each step can be repeated.

`_meta` records the operation before the first document changes, and its end after the last one, so that a concurrent ingest or a
second run sees the requested policy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from stair_es.cluster.client.connection import get_cluster_info
from stair_es.cluster.documents.read import count_matches
from stair_es.cluster.index.aliases import get_alias_targets
from stair_es.cluster.metadata.index_metadata import (
    check_alias_name,
    check_index_format,
    get_index_meta,
    make_build_alias_prefix,
)
from stair_es.cluster.metadata.policy_state import (
    PolicyState,
    find_conflicting_field,
    list_missing_policy_fields,
    parse_policy_state,
)
from stair_es.cluster.metadata.token_fields import IDS_FIELD, TokenFieldLayout, build_no_table_error
from stair_es.cluster.policy.script import build_affected_query, build_policy_script
from stair_es.cluster.policy.update_by_query import UpdateByQueryTask, UpdateLimits, UpdateProgress, check_script_support
from stair_es.cluster.token_index.index import get_token_index_state
from stair_es.cluster.token_index.sync import TokenIndexReport, reconcile_token_index
from stair_es.errors import ClusterError, IndexMismatch, UsageError

if TYPE_CHECKING:
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.token_policy import TokenPolicy

logger = logging.getLogger(__name__)

_IN_VAIN = 8
"""Consecutive passes that may change nothing because of concurrent writes to the same documents."""
_MOST_FAILED = 10_000
_META_ATTEMPTS = 5


@dataclass(frozen=True, kw_only=True)
class PolicyRunResult:
    """Result for the documents that a policy could have changed: examined = changed + unchanged + failed."""

    changed: int = 0
    unchanged: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    """Id and reason."""
    token_index: TokenIndexReport | None = None
    """The update of the token index, if there is one."""

    @property
    def examined(self) -> int:
        """Number of all examined documents."""
        return self.changed + self.unchanged + len(self.failed)


@dataclass(frozen=True, kw_only=True)
class PolicyTarget:
    """State of an index when the operation started."""

    name: str
    state: PolicyState
    layout: TokenFieldLayout
    properties: Mapping[str, Any]


class PolicyManager:
    """Applies policies to the target of an alias, and to the builds that are to replace it."""

    def __init__(self, cluster: Cluster, alias: str) -> None:
        """Initialize without a request.

        Args:
            cluster: The cluster.
            alias: The search alias.
        """
        self.cluster, self.alias = cluster, alias

    def list_targets(self) -> list[PolicyTarget]:
        """List the alias target first, then unfinished builds, which are to replace it with the same policy.

        Raises:
            IndexMismatch: If the alias doesn't exist, or points to an index that stair-es didn't make, or made in another format.
        """
        check_alias_name(self.alias)
        target = get_cluster_info(self.cluster)
        live = get_alias_targets(self.cluster, self.alias)
        if len(live) != 1:
            what = f"points to several indices: {', '.join(live)}" if live else "is not an alias on this cluster"
            raise IndexMismatch(f"{self.alias!r} {what}", "Use the alias of an index made by `stair-es ingest --index NAME`.")
        builds = get_alias_targets(self.cluster, make_build_alias_prefix(self.alias) + "*")
        found = self.cluster.call(self.cluster.client.indices.get, index=",".join([*live, *builds]))
        if not get_index_meta(found[live[0]]):
            raise IndexMismatch(
                f"index {live[0]!r} (alias {self.alias!r}) was not made by stair-es", "Use an index made by `stair-es ingest`."
            )
        names = [name for name in [*live, *builds] if get_index_meta(found[name])]
        for name in names:
            check_index_format(name, found[name])
        return [_build_target(name, found[name], target.max_clauses) for name in names]

    def apply_policy(
        self, policy: TokenPolicy | None, speed: UpdateLimits, progress: Callable[[UpdateProgress], None]
    ) -> dict[str, PolicyRunResult]:
        """Apply `policy` to every document, or the policy recorded in the index; returns the result of each index.

        Args:
            policy: The policy; None for the recorded one.
            speed: Limits of the update.
            progress: Called with the progress of each pass.

        Raises:
            UsageError: If no policy is given, and the index has none.
            IndexMismatch: If documents have columns with the names of policy fields. Nothing was changed.
            UnsupportedTarget: If the cluster can't run the script. Nothing was changed.
            ClusterError: If it fails, or documents change faster than they can be updated. It can be repeated.
        """
        places = self.list_targets()
        policy = policy or places[0].state.policy
        if policy is None:
            raise UsageError(f"{self.alias!r} has no policy", "Specify one: stair-es policy apply FILE")
        return self._update_targets(places, policy, speed, progress)

    def rollback_policy(self, speed: UpdateLimits, progress: Callable[[UpdateProgress], None]) -> dict[str, PolicyRunResult]:
        """Restore the original vector of every document exactly; returns the result of each index.

        Args:
            speed: Limits of the update.
            progress: Called with the progress of each pass.

        Raises:
            IndexMismatch: If documents have columns with the names of policy fields. Nothing was changed.
            UnsupportedTarget: If the cluster can't run the script. Nothing was changed.
            ClusterError: If it fails, or documents change faster than they can be updated. It can be repeated.
        """
        return self._update_targets(self.list_targets(), None, speed, progress)

    def count_by_policy(self, place: PolicyTarget) -> dict[str, int]:
        """Count documents by the digest of the policy that changed them."""
        if find_conflicting_field(place.properties):
            return {}
        body = {"size": 0, "aggs": {"policies": {"terms": {"field": "policy", "size": 100}}}}
        answer = self.cluster.search(place.name, body)
        return {bucket["key"]: bucket["doc_count"] for bucket in answer["aggregations"]["policies"]["buckets"]}

    def count_emptied(self, place: PolicyTarget) -> int:
        """Count documents that their policy left without a token."""
        if find_conflicting_field(place.properties):
            return 0
        query = {"bool": {"filter": [{"exists": {"field": "policy"}}], "must_not": [{"exists": {"field": "top_tokens"}}]}}
        return count_matches(self.cluster, place.name, query)

    def _update_targets(
        self,
        places: list[PolicyTarget],
        policy: TokenPolicy | None,
        speed: UpdateLimits,
        progress: Callable[[UpdateProgress], None],
    ) -> dict[str, PolicyRunResult]:
        """Update all targets, and list them again: a build may have started before `_meta` named the policy that it inherits."""
        check_script_support(self.cluster)
        done: dict[str, PolicyRunResult] = {}
        while places:
            for place in places:
                list_missing_policy_fields(place.properties, f"index {place.name!r}")
                if IDS_FIELD in place.properties and place.layout.token_ids is None:
                    raise build_no_table_error(place.name)  # the field would keep what `tokens` no longer contains
            done |= {place.name: self._update_target(place, policy, speed, progress) for place in places}
            places = [place for place in self.list_targets() if place.name not in done]
        return self._sync_token_indices(done)

    def _sync_token_indices(self, done: dict[str, PolicyRunResult]) -> dict[str, PolicyRunResult]:
        """Update the token indices last: if a run ends before, the next run or an ingest finds and repairs the differences."""
        if not get_token_index_state(self.cluster, self.alias).is_enabled:
            return done
        return {
            name: replace(counts, token_index=reconcile_token_index(self.cluster, self.alias, name))
            for name, counts in done.items()
        }

    def _update_target(
        self, place: PolicyTarget, policy: TokenPolicy | None, speed: UpdateLimits, progress: Callable[[UpdateProgress], None]
    ) -> PolicyRunResult:
        if place.state.pending_operation:
            logger.warning("%s: an earlier %s has not finished; this run completes it", place.name, place.state.pending_operation)
        fields = list_missing_policy_fields(place.properties, f"index {place.name!r}") if policy else {}
        task = UpdateByQueryTask(cluster=self.cluster, index=place.name, limits=speed, progress=progress)
        task.cancel_running()
        task.check_supported(build_policy_script(policy, place.layout))
        self._write_policy_state(
            place.name, PolicyState(policy=policy, pending_operation="apply" if policy else "rollback"), fields
        )
        counts = self._repeat_passes(task, policy, place.layout)
        self.cluster.refresh(place.name)
        if not counts.failed:
            self._write_policy_state(place.name, PolicyState(policy=policy), {})
        return counts

    @staticmethod
    def _repeat_passes(task: UpdateByQueryTask, policy: TokenPolicy | None, layout: TokenFieldLayout) -> PolicyRunResult:
        """Repeat passes until one has no conflict: then every document has been updated in its latest version."""
        changed, vain, failed, script = 0, 0, dict[str, str](), build_policy_script(policy, layout)
        while True:
            done = task.run_pass({"query": build_affected_query(policy, layout, failed), "script": script})
            changed += done.changed
            failed.update(done.failed)
            if done.complete and not done.conflicts:
                return PolicyRunResult(changed=changed, unchanged=done.unchanged, failed=failed)
            vain = 0 if done.changed or done.failed else vain + 1
            if vain == _IN_VAIN:
                why = f"{done.conflicts:,} documents of {task.index} are constantly changed by other writers"
                raise ClusterError(
                    why if done.conflicts else f"the cluster stopped the updates of {task.index} before they were complete",
                    "Wait until other writers have finished, and run it again: it resumes from there.",
                )
            if len(failed) > _MOST_FAILED:
                raise ClusterError(
                    f"more than {_MOST_FAILED:,} documents failed, one with: {next(iter(failed.values()))}",
                    "Fix the cause, and run it again: it resumes from there.",
                )
            if vain:
                task.sleep(0.1 * 2**vain)

    def _write_policy_state(self, name: str, state: PolicyState, fields: Mapping[str, Any]) -> None:
        """Write the state to `_meta`, and check it.

        Each update replaces all of `_meta`, so a concurrent one may have reverted it.
        """
        for _ in range(_META_ATTEMPTS):
            found = self.cluster.call(self.cluster.client.indices.get_mapping, index=name)[name]
            if not fields and parse_policy_state(found, name) == state:
                return
            meta = found["mappings"].get("_meta", {})
            about = {key: value for key, value in meta.get("stair_es", {}).items() if key != "policy"}
            about |= {"policy": state.to_json()} if state.to_json() else {}
            body = {"_meta": {**meta, "stair_es": about}, **({"properties": dict(fields)} if fields else {})}
            self.cluster.call(self.cluster.client.indices.put_mapping, index=name, body=body)
            fields = {}
        raise ClusterError(f"another process constantly changes the _meta of {name}", "Run it again.")


def _build_target(name: str, index: Mapping[str, Any], max_clauses: int) -> PolicyTarget:
    return PolicyTarget(
        name=name,
        state=parse_policy_state(index, name),
        layout=TokenFieldLayout.from_index(index, max_clauses),
        properties=index["mappings"].get("properties", {}),
    )
