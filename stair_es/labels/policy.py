"""The policy of labels: which of them an index mutes, caps, renames, merges or takes from a confidence on only.

The rules are those of a token policy. Labels are few and small, so documents are changed from here, without scripts.
"""

from __future__ import annotations

from collections.abc import Iterator

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.documents.document import LABEL_FIELDS, LABELS_FIELD, build_label_fields, parse_labels, parse_token_vector
from stair_es.cluster.documents.edit import CHANGED, UNCHANGED, edit_documents
from stair_es.cluster.index.labels import (
    add_label_fields,
    check_label_target,
    get_label_target,
    scan_labels,
    write_labels_policy,
)
from stair_es.cluster.metadata.names import ensure_write_alias
from stair_es.cluster.metadata.policy_state import PolicyState
from stair_es.cluster.policy.manager import PolicyRunResult
from stair_es.cluster.policy.preview import DocumentChange, PolicyPreview
from stair_es.errors import UsageError
from stair_es.feature_names import normalize_label
from stair_es.token_policy import TokenPolicy
from stair_es.types import ProgressCallback


class LabelPolicyManager:
    """Applies policies to the labels of an index of `ingest`."""

    def __init__(self, cluster: Cluster, alias: str) -> None:
        """Set the cluster and the search alias. No request is sent."""
        self.cluster, self.alias = cluster, alias

    def get_state(self) -> tuple[str, PolicyState]:
        """Get the name of the index, and the state of the policy of its labels.

        Raises:
            IndexMismatch: If the alias has no index of `ingest`.
        """
        target = get_label_target(self.cluster, self.alias)
        return target.name, target.state

    def preview_changes(
        self, policy: TokenPolicy | None, preview: PolicyPreview, progress: ProgressCallback = lambda done, total: None
    ) -> Iterator[DocumentChange]:
        """Yield the documents whose labels a policy, or its removal, would change; `preview` gets the counts.

        Raises:
            UsageError: As `apply_policy`.
        """
        _check_policy(policy)
        target = get_label_target(self.cluster, self.alias)
        self.cluster.refresh(target.name)
        for sources in scan_labels(self.cluster, target.name) if target.has_labels else ():
            for id_, source in sources.items():
                preview.examined += 1
                original, before = parse_labels(source), parse_token_vector(source.get(LABELS_FIELD))
                applied = policy.apply(original) if policy else None
                after, rules = (applied.vector, applied.rules) if applied else (original, ())
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

        The policy is recorded first: an import that runs meanwhile notices at its end, and asks to be repeated.

        Raises:
            UsageError: If the policy teaches words, for which labels have no vectors, or names what no label is called.
            IndexMismatch: If the alias has no index of `ingest`; or, at the end, if it was replaced or got another policy.
            ClusterError: If the cluster fails. Labels that were changed stay changed.
        """
        _check_policy(policy)
        target = get_label_target(self.cluster, self.alias)
        name, changed, unchanged, failed = target.name, 0, 0, dict[str, str]()
        if target.has_labels or policy:
            add_label_fields(self.cluster, name)
            ensure_write_alias(self.cluster, name)
            state = PolicyState(policy=policy, pending_operation="apply" if policy else "rollback")
            write_labels_policy(self.cluster, name, state)
            self.cluster.refresh(name)
            for sources in scan_labels(self.cluster, name):
                edits = dict.fromkeys(sources, lambda source: build_label_fields(parse_labels(source), policy))
                outcomes = edit_documents(self.cluster, name, edits, LABEL_FIELDS)
                failed |= {id_: reason for id_, reason in outcomes.items() if reason not in (CHANGED, UNCHANGED)}
                changed += sum(outcome == CHANGED for outcome in outcomes.values())
                unchanged += sum(outcome == UNCHANGED for outcome in outcomes.values())
                progress(changed + unchanged + len(failed), 0)
            self.cluster.refresh(name)
            check_label_target(self.cluster, self.alias, target._replace(state=state))
            if not failed:
                write_labels_policy(self.cluster, name, PolicyState(policy=policy))
        return {name: PolicyRunResult(changed=changed, unchanged=unchanged, failed=failed)}


def _check_policy(policy: TokenPolicy | None) -> None:
    if policy is None:
        return
    if policy.teach:
        raise UsageError("a policy of labels can't teach words", "Remove `teach` from the file.", code="labels-cannot-be-taught")
    names = {*policy.mute, *policy.floor, *policy.cap, *policy.replacements, *policy.replacements.values()}
    other = sorted(name for name in names if name != normalize_label(name))
    if other:
        raise UsageError(
            f"no label is called {other[0]!r}",
            f"Labels are in lower case and without punctuation: write {normalize_label(other[0])!r}.",
            code="not-a-label-name",
        )
