"""The policy of labels: which of them an index mutes, caps, renames, merges or takes from a confidence on only.

The rules are those of a token policy. Labels are few and small, so documents are changed from here, without scripts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.documents.document import LABELS_FIELD, build_label_fields, parse_labels, parse_token_vector
from stair_es.cluster.index.aliases import get_single_target
from stair_es.cluster.index.labels import (
    FieldsChange,
    add_label_fields,
    get_label_fields,
    scan_labels,
    write_label_fields,
    write_labels_policy,
)
from stair_es.cluster.metadata.policy_state import LABELS_POLICY, PolicyState, parse_policy_state
from stair_es.cluster.policy.manager import PolicyRunResult
from stair_es.cluster.policy.preview import DocumentChange, PolicyPreview
from stair_es.errors import UsageError
from stair_es.token_policy import TokenPolicy
from stair_es.types import ProgressCallback


class LabelPolicyManager:
    """Applies policies to the labels of an index of `ingest`."""

    def __init__(self, cluster: Cluster, alias: str) -> None:
        """Set the cluster and the search alias. No request is sent."""
        self.cluster, self.alias = cluster, alias

    def get_state(self) -> tuple[str, PolicyState]:
        """Get the name of the index, and the state of its policy.

        Raises:
            IndexMismatch: If the alias doesn't point to one index.
        """
        name = get_single_target(self.cluster, self.alias)
        found = self.cluster.call(self.cluster.client.indices.get_mapping, index=name)[name]
        return name, parse_policy_state(found, name, LABELS_POLICY)

    def preview_changes(
        self, policy: TokenPolicy | None, preview: PolicyPreview, progress: ProgressCallback = lambda done, total: None
    ) -> Iterator[DocumentChange]:
        """Yield the documents whose labels a policy, or its removal, would change; `preview` gets the counts."""
        name, _ = self.get_state()
        self.cluster.refresh(name)
        for sources in scan_labels(self.cluster, name):
            for id_, source in sources.items():
                preview.examined += 1
                applied = policy.apply(parse_labels(source)) if policy else None
                before, rules = parse_token_vector(source.get(LABELS_FIELD)), applied.rules if applied else ()
                after = applied.vector if applied else parse_labels(source)
                if after != before:
                    preview.changed += 1
                    preview.emptied += not after
                    preview.only_reverted += not rules
                    preview.rules.update(rules)
                    yield DocumentChange(id=id_, uri=str(source.get("uri", "")), before=before, after=after, rules=rules)
            progress(preview.examined, 0)

    def apply_policy(
        self, policy: TokenPolicy | None, progress: ProgressCallback = lambda done, total: None
    ) -> dict[str, PolicyRunResult]:
        """Apply a policy to all labels, or remove it (None); returns the result of the index. It can be repeated.

        The policy is recorded first, so that labels that are imported meanwhile get it, too.

        Raises:
            UsageError: If the policy teaches words: labels have no vectors to learn from.
            ClusterError: If the cluster fails. Labels that were changed stay changed.
        """
        if policy and policy.teach:
            raise UsageError(
                "a policy of labels can't teach words", "Remove `teach` from the file.", code="labels-cannot-be-taught"
            )
        name, _ = self.get_state()
        add_label_fields(self.cluster, name)
        write_labels_policy(self.cluster, name, PolicyState(policy=policy, pending_operation="apply" if policy else "rollback"))
        self.cluster.refresh(name)
        outcomes, failed = Counter[str](), dict[str, str]()
        for sources in scan_labels(self.cluster, name):
            changes = {id_: change for id_, source in sources.items() if (change := _compute_change(source, policy)) is not None}
            reasons = write_label_fields(self.cluster, name, changes)
            failed |= {id_: reason for id_, reason in reasons.items() if reason is not None}
            outcomes.update(changed=len(changes), unchanged=len(sources) - len(changes))
            progress(outcomes.total(), 0)
        self.cluster.refresh(name)
        if not failed:
            write_labels_policy(self.cluster, name, PolicyState(policy=policy))
        changed = outcomes["changed"] - len(failed)
        return {name: PolicyRunResult(changed=changed, unchanged=outcomes["unchanged"], failed=failed)}


def _compute_change(source: Mapping[str, Any], policy: TokenPolicy | None) -> FieldsChange | None:
    stored, fields = get_label_fields(source), build_label_fields(parse_labels(source), policy)
    return None if fields == stored else (stored, fields)
