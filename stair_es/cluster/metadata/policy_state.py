"""The token policy in the metadata of an index: `_meta.stair_es.policy`, and two fields of its documents.

====================================================  ===================================================
`_meta.stair_es.policy`                               Meaning
====================================================  ===================================================
is missing                                            no policy
`{"digest", "policy"}`                                applies to all documents
`{"digest", "policy", "pending_operation": "apply"}`  the same, but not yet applied to all documents
`{"digest": null, "pending_operation": "rollback"}`   no policy, but some documents still have one applied
====================================================  ===================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.metadata.index_metadata import get_index_meta
from stair_es.config.policy_file import parse_policy
from stair_es.errors import IndexMismatch
from stair_es.token_policy import TokenPolicy

POLICY_FIELDS: Mapping[str, Mapping[str, Any]] = {
    "policy": {"type": "keyword"},
    "policy_undo": {"type": "object", "enabled": False},
}
LABELS_POLICY = "labels_policy"
"""The policy of labels in `_meta.stair_es`, in the same form."""
PolicyOperation = Literal["apply", "rollback"]
_MAX_EVENTS, _MAX_NAMED_CHANGES = 50, 20


@dataclass(frozen=True, kw_only=True)
class PolicyState:
    """Policy of an index, from its metadata."""

    policy: TokenPolicy | None = None
    pending_operation: PolicyOperation | None = None
    """Operation that was started and is not known to have finished."""

    def to_json(self) -> dict[str, Any] | None:
        """Return the value for `_meta`; None if there is no policy and no operation."""
        if self.policy is None and self.pending_operation is None:
            return None
        meta: dict[str, Any] = {"digest": self.policy.digest if self.policy else None}
        if self.policy:
            meta["policy"] = self.policy.to_json()
        return {**meta, "pending_operation": self.pending_operation} if self.pending_operation else meta


def parse_policy_state(index: Mapping[str, Any], name: str, key: str = "policy") -> PolicyState:
    """Parse the policy state of an index from a GET mapping response, or with `LABELS_POLICY` that of its labels.

    Raises:
        ResourceError: If this version doesn't understand the policy.
    """
    meta = get_index_meta(index).get(key) or {}
    policy = parse_policy(meta["policy"], f"policy of the index {name}") if meta.get("policy") else None
    return PolicyState(policy=policy, pending_operation=meta.get("pending_operation"))


def add_to_history(
    meta: Mapping[str, Any], before: TokenPolicy | None, after: TokenPolicy | None, key: str = "policy"
) -> dict[str, Any]:
    """Return the history for `_meta.stair_es` with the rules that changed, if any did; the oldest events are dropped.

    An event has the time, the digest of the new policy, and its changes: `+ mute cat`, `- teach windmill`.
    """
    old, new = ({} if policy is None else policy.describe_rules() for policy in (before, after))
    changes = [f"- {rule}" for rule in old if rule not in new]
    changes += [f"+ {rule}" for rule, value in new.items() if old.get(rule) != value]
    if not changes:
        return {}
    more = [f"and {len(changes) - _MAX_NAMED_CHANGES:,} more"] if len(changes) > _MAX_NAMED_CHANGES else []
    now = datetime.now(UTC).isoformat(timespec="seconds")
    event = {"at": now, "digest": after and after.digest, "changes": [*changes[:_MAX_NAMED_CHANGES], *more]}
    events = meta.get(f"{key}_history")
    return {f"{key}_history": [*(events[1 - _MAX_EVENTS :] if isinstance(events, list) else []), event]}


def fetch_index_policy(cluster: Cluster, name: str, key: str = "policy") -> TokenPolicy | None:
    """Fetch the current policy of an index; `key` as for `parse_policy_state`."""
    found = cluster.call(cluster.client.indices.get_mapping, index=name)
    return parse_policy_state(found[name], name, key).policy


def add_policy_to_body(body: Mapping[str, Any], policy: TokenPolicy | None) -> dict[str, Any]:
    """Add a policy to the body of a new index: to `_meta`, and its fields to the mapping if they are missing.

    Words that were taught from vectors of another model are left out: they mean nothing there.
    """
    mappings = body["mappings"]
    meta, properties = mappings["_meta"], mappings.get("properties", {})
    policy = select_policy(policy, meta["stair_es"]["model"])
    if policy is None:
        return dict(body)
    check_policy_fields(properties, "the mapping")
    own_meta = {**meta["stair_es"], "policy": PolicyState(policy=policy).to_json()}
    properties = {**properties, **list_missing_policy_fields(properties)}
    return {**body, "mappings": {**mappings, "_meta": {**meta, "stair_es": own_meta}, "properties": properties}}


def find_conflicting_field(properties: Mapping[str, Any]) -> str | None:
    """Find a column that has the name of a policy field: ours have fixed types, and are always both present."""
    present = [name for name in POLICY_FIELDS if name in properties]
    for name in present:
        expected, found = POLICY_FIELDS[name], properties[name]
        differs = any(found.get(key, "object" if key == "type" else None) != value for key, value in expected.items())
        if differs or len(present) < len(POLICY_FIELDS):
            return name
    return None


def check_policy_fields(properties: Mapping[str, Any], where: str) -> None:
    """Raise IndexMismatch if a field named like ours isn't ours: a policy would overwrite it, and a rollback would delete it."""
    foreign = find_conflicting_field(properties)
    if foreign:
        raise IndexMismatch(
            f"{where} has a column {foreign!r}, a name reserved for token policies",
            f"Build an index without it: ingest with the column under another name (--field OTHER={foreign}).",
            code="policy-field-taken",
        )


def list_missing_policy_fields(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the policy fields that a mapping lacks."""
    return {name: dict(spec) for name, spec in POLICY_FIELDS.items() if name not in properties}


def select_policy(policy: TokenPolicy | None, model_id: str) -> TokenPolicy | None:
    """Return a policy without words that were taught from vectors of another model; None if no rule is left."""
    selected = policy and policy.select_words(model_id)
    return selected if selected and selected.rules else None


def check_policy_matches(requested: TokenPolicy | None, state: PolicyState, name: str, alias: str) -> None:
    """Raise IndexMismatch if an ingest requests a policy that the index doesn't have. It may have further taught words."""
    if requested is None:
        return
    if state.policy and state.policy.digest == requested.keep_words(state.policy).digest:
        return
    has = f"the policy {state.policy.label}" if state.policy else "no policy"
    raise IndexMismatch(
        f"index {name!r} has {has}, not {requested.label}",
        f"Apply it to the existing documents: stair-es policy apply FILE --index {alias} (then leave --policy out).",
        code="other-policy",
    )
