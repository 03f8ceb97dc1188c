"""Apply a token policy to the documents of an existing index, or roll it back. Each step can be repeated.

`_meta` records the operation before the first document changes, and its end after the last one, so that a concurrent ingest or a
second run sees the requested policy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

from stair_es.cluster.client.capabilities import get_cluster_info, get_product
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.products import SERVERLESS
from stair_es.cluster.documents.read import count_matches
from stair_es.cluster.index.aliases import check_identities, get_alias_targets, get_single_target
from stair_es.cluster.metadata.index_metadata import (
    check_index_format,
    check_index_identities,
    get_index_identity,
    get_index_meta,
    is_ingest_index,
)
from stair_es.cluster.metadata.names import check_alias_name, make_build_alias_prefix
from stair_es.cluster.metadata.policy_state import (
    PolicyState,
    add_to_history,
    check_policy_fields,
    find_conflicting_field,
    list_missing_policy_fields,
    parse_policy_state,
    select_policy,
)
from stair_es.cluster.policy.script import TokenFieldLayout
from stair_es.cluster.policy.update_by_query import (
    ClientUpdate,
    PolicyUpdate,
    UpdateByQueryTask,
    UpdateLimits,
    UpdateProgress,
    check_script_support,
)
from stair_es.cluster.token_index.index import get_token_index_state
from stair_es.cluster.token_index.sync import TokenIndexReport, reconcile_token_index
from stair_es.errors import ClusterError, IndexMismatch, UsageError
from stair_es.retry import sleep_unless_cancelled
from stair_es.taught_words import TaughtWord, check_word_model
from stair_es.token_policy import TokenPolicy

logger = logging.getLogger(__name__)

_MAX_STALLED_PASSES = 8
"""Consecutive passes that may change nothing because of concurrent writes to the same documents."""
_MAX_FAILED = 10_000
_META_ATTEMPTS = 5
NO_FIELDS: Mapping[str, Any] = {}
PolicyChange: TypeAlias = Callable[[TokenPolicy | None], TokenPolicy | None]
"""Returns the policy that an index is to have, from the one that it has; applied twice, it returns the same."""


@dataclass(frozen=True, kw_only=True)
class PolicyRunResult:
    """Result for the documents that a policy could have changed: examined = changed + unchanged + failed."""

    changed: int = 0
    unchanged: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    """Id and reason."""
    token_index: TokenIndexReport | None = None

    @property
    def examined(self) -> int:
        """Number of all examined documents."""
        return self.changed + self.unchanged + len(self.failed)


@dataclass(frozen=True, kw_only=True)
class PolicyTarget:
    """State of an index when the operation started."""

    name: str
    identity: str
    """See `get_index_identity`."""
    model: str
    state: PolicyState
    layout: TokenFieldLayout
    properties: Mapping[str, Any]


class PolicyManager:
    """Applies policies to the target of an alias, and to the builds that are to replace it."""

    def __init__(self, cluster: Cluster, alias: str) -> None:
        """Set the cluster and the search alias. No request is sent."""
        self.cluster, self.alias = cluster, alias

    def list_targets(self) -> list[PolicyTarget]:
        """List the alias target first, then unfinished builds, which are to replace it with the same policy.

        Raises:
            IndexMismatch: If the alias doesn't exist, or points to an index that stair-es didn't make, or made in another format.
        """
        check_alias_name(self.alias)
        info = get_cluster_info(self.cluster)
        live = get_single_target(self.cluster, self.alias)
        builds = get_alias_targets(self.cluster, make_build_alias_prefix(self.alias) + "*")
        found = self.cluster.call(self.cluster.client.indices.get, index=",".join([live, *builds]))
        if not is_ingest_index(found[live]):
            raise IndexMismatch(
                f"index {live!r} (alias {self.alias!r}) was not made by stair-es ingest",
                "Use an index made by `stair-es ingest`.",
                code="foreign-index",
            )
        names = [name for name in [live, *builds] if get_index_meta(found[name])]
        for name in names:
            check_index_format(name, found[name])
        return [_build_target(name, found[name], info.max_clauses) for name in names]

    def apply_policy(
        self, policy: TokenPolicy | None, limits: UpdateLimits, progress: Callable[[UpdateProgress], None]
    ) -> dict[str, PolicyRunResult]:
        """Apply `policy` to every document, or the policy recorded in the index; returns the result of each index.

        The index keeps the taught words that `policy` doesn't have.

        Raises:
            UsageError: If no policy is given, and the index has none; or if a word was taught from vectors of another model.
            IndexMismatch: If documents have columns with the names of policy fields. Nothing was changed.
            UnsupportedTarget: If the cluster can't run the script. Nothing was changed.
            ClusterError: If it fails, or documents change faster than they can be updated. It can be repeated.
        """
        targets = self.list_targets()
        current = targets[0].state.policy
        if policy is None and current is None:
            raise UsageError(f"{self.alias!r} has no policy", "Specify one: stair-es policy apply FILE", code="no-policy")

        def add_policy(current: TokenPolicy | None) -> TokenPolicy | None:
            return policy.keep_words(current) if policy else current

        return self._update_targets(targets, add_policy, limits, progress)

    def change_words(
        self,
        taught: Mapping[str, TaughtWord],
        forgotten: Collection[str],
        limits: UpdateLimits,
        progress: Callable[[UpdateProgress], None],
    ) -> dict[str, PolicyRunResult]:
        """Teach words to the index, or let it forget some; returns the result of each index.

        Raises:
            UsageError: If a word that is to be forgotten isn't taught, unless an earlier change has not finished.
            StairError: As for `apply_policy`.
        """
        targets = self.list_targets()
        current = targets[0].state.policy or TokenPolicy()
        for word in forgotten:
            if word not in current.teach and not targets[0].state.pending_operation:
                raise UsageError(
                    f"{self.alias!r} wasn't taught the word {word!r}",
                    f"Its taught words: {', '.join(current.teach) or 'none'}.",
                    code="not-a-taught-word",
                )

        def change(current: TokenPolicy | None) -> TokenPolicy | None:
            policy = (current or TokenPolicy()).change_words(taught, forgotten)
            return policy if policy.rules else None

        return self._update_targets(targets, change, limits, progress)

    def rollback_policy(
        self, limits: UpdateLimits, progress: Callable[[UpdateProgress], None], *, taught_words: bool = False
    ) -> dict[str, PolicyRunResult]:
        """Restore the original vector of every document exactly; returns the result of each index.

        The tokens of taught words stay, unless they are taken back as well (`taught_words`).

        Raises:
            StairError: As for `apply_policy`.
        """

        def keep_words(current: TokenPolicy | None) -> TokenPolicy | None:
            return TokenPolicy().keep_words(current) if current and current.teach and not taught_words else None

        return self._update_targets(self.list_targets(), keep_words, limits, progress)

    def count_by_policy(self, target: PolicyTarget) -> dict[str, int]:
        """Count documents by the digest of the policy that changed them."""
        if find_conflicting_field(target.properties):
            return {}
        body = {"size": 0, "aggs": {"policies": {"terms": {"field": "policy", "size": 100}}}}
        response = self.cluster.search(target.name, body)
        return {bucket["key"]: bucket["doc_count"] for bucket in response["aggregations"]["policies"]["buckets"]}

    def count_emptied(self, target: PolicyTarget) -> int:
        """Count documents that their policy left without a token."""
        if find_conflicting_field(target.properties):
            return 0
        query = {"bool": {"filter": [{"exists": {"field": "policy"}}], "must_not": [{"exists": {"field": "top_tokens"}}]}}
        return count_matches(self.cluster, target.name, query)

    def _update_targets(
        self,
        targets: list[PolicyTarget],
        change: PolicyChange,
        limits: UpdateLimits,
        progress: Callable[[UpdateProgress], None],
    ) -> dict[str, PolicyRunResult]:
        """Update all targets, and list them again: a build may have started before `_meta` named the policy that it inherits."""
        check_script_support(self.cluster)
        requested = change(targets[0].state.policy)
        for word in requested.teach.values() if requested else ():
            check_word_model(word, targets[0].model)
        results, identities = dict[str, PolicyRunResult](), dict[str, str]()
        while targets:
            for target in targets:
                check_policy_fields(target.properties, f"index {target.name!r}")
            identities |= {target.name: target.identity for target in targets}
            for target in targets:
                policy, results[target.name] = self._update_target(target, change, limits, progress)
                if len(results) == 1:  # of the alias target; builds are to have the same
                    change = partial(_select_for_build, policy)
            targets = [target for target in self.list_targets() if target.name not in results]
        if get_token_index_state(self.cluster, self.alias).is_enabled:
            # Last: if a run ends before, the next run or an ingest finds and repairs the differences.
            reports = {name: reconcile_token_index(self.cluster, self.alias, name) for name in results}
            results = {name: replace(result, token_index=reports[name]) for name, result in results.items()}
            identities |= {report.index: report.identity for report in reports.values() if report}
        check_identities(self.cluster, identities)
        return results

    def _update_target(
        self, target: PolicyTarget, change: PolicyChange, limits: UpdateLimits, progress: Callable[[UpdateProgress], None]
    ) -> tuple[TokenPolicy | None, PolicyRunResult]:
        """Update one index; also returns its policy."""
        if operation := target.state.pending_operation:
            logger.warning("%s: an earlier %s has not finished; this run completes it", target.name, operation)
        requested = select_policy(change(target.state.policy), target.model)
        fields = list_missing_policy_fields(target.properties) if requested else {}
        kind = ClientUpdate if get_product(self.cluster) in SERVERLESS else UpdateByQueryTask
        task = kind(cluster=self.cluster, index=target.name, layout=target.layout, limits=limits, progress=progress)
        task.prepare(requested)

        def begin(state: PolicyState) -> PolicyState:
            policy = select_policy(change(state.policy), target.model)
            return PolicyState(policy=policy, pending_operation="apply" if policy else "rollback")

        begun = self._write_policy_state(target, begin, fields)
        result = self._repeat_passes(task, begun.policy, partial(self._check_unchanged, target, begun))
        self.cluster.refresh(target.name)
        if not result.failed:
            self._write_policy_state(target, lambda state: replace(state, pending_operation=None) if state == begun else state)
        return begun.policy, result

    def _check_unchanged(self, target: PolicyTarget, begun: PolicyState) -> None:
        """Raise ClusterError if another run has changed the policy: a further pass would take its changes back."""
        found = self.cluster.call(self.cluster.client.indices.get_mapping, index=target.name)
        if parse_policy_state(found[target.name], target.name).policy != begun.policy:
            raise ClusterError(
                f"another run has changed the policy of {target.name} in the meantime",
                "Run `stair-es policy apply` to complete it.",
                code="policy-changed-meanwhile",
            )

    @staticmethod
    def _repeat_passes(task: PolicyUpdate, policy: TokenPolicy | None, check_unchanged: Callable[[], None]) -> PolicyRunResult:
        """Repeat passes until one has no conflict: then every document has been updated in its latest version."""
        changed, stalled, failed = 0, 0, dict[str, str]()
        while True:
            check_unchanged()
            result = task.run_pass(policy, failed)
            changed += result.changed
            failed.update(result.failed)
            if result.complete and not result.conflicts:
                return PolicyRunResult(changed=changed, unchanged=result.unchanged, failed=failed)
            stalled = 0 if result.changed or result.failed else stalled + 1
            if stalled == _MAX_STALLED_PASSES:
                reason = f"{result.conflicts:,} documents of {task.index} are constantly changed by other writers"
                raise ClusterError(
                    reason if result.conflicts else f"the cluster stopped the updates of {task.index} before they were complete",
                    "Wait until other writers have finished, and run it again: it resumes from there.",
                    code="update-incomplete",
                )
            if len(failed) > _MAX_FAILED:
                raise ClusterError(
                    f"more than {_MAX_FAILED:,} documents failed, for example: {next(iter(failed.values()))}",
                    "Fix the cause, and run it again: it resumes from there.",
                    code="too-many-failures",
                )
            if stalled:
                sleep_unless_cancelled(0.1 * 2**stalled)

    def _write_policy_state(
        self, target: PolicyTarget, change: Callable[[PolicyState], PolicyState], fields: Mapping[str, Any] = NO_FIELDS
    ) -> PolicyState:
        """Change the state in `_meta` until it is as wanted, and return it.

        Each update replaces all of `_meta`, so a concurrent one may have reverted it; what that one taught is kept.
        """
        name = target.name
        for _ in range(_META_ATTEMPTS):
            found = self.cluster.call(self.cluster.client.indices.get, index=name)
            check_index_identities({name: target.identity}, found)
            before = parse_policy_state(found[name], name)
            state = change(before)
            if not fields and before == state:
                return state
            meta = found[name]["mappings"].get("_meta", {})
            own_meta = {key: value for key, value in meta.get("stair_es", {}).items() if key != "policy"}
            own_meta |= {"policy": state.to_json()} if state.to_json() else {}
            own_meta |= add_to_history(own_meta, before.policy, state.policy)
            body = {"_meta": {**meta, "stair_es": own_meta}, **({"properties": dict(fields)} if fields else {})}
            self.cluster.call(self.cluster.client.indices.put_mapping, index=name, body=body)
            fields = {}
        raise ClusterError(f"another process keeps changing the _meta of {name}", "Run it again.", code="meta-keeps-changing")


def _select_for_build(policy: TokenPolicy | None, _: TokenPolicy | None) -> TokenPolicy | None:
    return policy


def _build_target(name: str, index: Mapping[str, Any], max_clauses: int) -> PolicyTarget:
    return PolicyTarget(
        name=name,
        identity=get_index_identity(index),
        model=str(get_index_meta(index).get("model", "")),
        state=parse_policy_state(index, name),
        layout=TokenFieldLayout.from_index(index, max_clauses),
        properties=index["mappings"].get("properties", {}),
    )
