"""Aliases: what they point to, the swap to a new index, and the deletion of retired indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.opensearch import OpenSearch
from stair_es.cluster.metadata.index_metadata import (
    IDENTITY_PATHS,
    WriteTarget,
    check_index_identities,
    get_index_meta,
    get_index_settings,
)
from stair_es.cluster.metadata.names import WRITE_ALIAS_OPTIONS, get_creation_ms, list_other_aliases, make_build_alias_prefix
from stair_es.cluster.token_index.index import build_alias_actions, delete_orphan_token_indices, read_token_index_state
from stair_es.errors import IndexMismatch, UsageError


def swap_alias(cluster: Cluster, alias: str, target: WriteTarget) -> None:
    """Swap `alias` to the new index in one step: a search always finds either the old index or the new one.

    The alias of the token index is swapped with it, if the new index has a token index. Does nothing if a parallel run has done
    it.

    Raises:
        IndexMismatch: If the alias points to an index that this run doesn't know, the token alias belongs to someone else, or
            another index has the name of `target` by now.
    """
    if target.replaces is not None:
        cluster.call(_try_swap, cluster.client, alias, target)


def get_alias_targets(cluster: Cluster, alias: str) -> list[str]:
    """Get the targets of an alias; empty if the alias doesn't exist."""
    return cluster.call(_read_alias_targets, cluster.client, alias)


def get_single_target(cluster: Cluster, alias: str) -> str:
    """Get the only target of an alias; raise IndexMismatch if there is none, or there are several."""
    targets = get_alias_targets(cluster, alias)
    if len(targets) != 1:
        problem = f"points to several indices: {', '.join(targets)}" if targets else "is not an alias on this cluster"
        raise IndexMismatch(
            f"{alias!r} {problem}",
            "Use the alias of an index made by `stair-es ingest --index NAME`.",
            code="not-alias-of-one-index",
        )
    return targets[0]


def check_alias_target(cluster: Cluster, alias: str, target: WriteTarget, live: str | None = None) -> str:
    """Check the target of `alias` at the end of a run that has written to `target`, and return it; "" without a target.

    Args:
        cluster: The cluster.
        alias: The search alias.
        target: The index that the run has written to.
        live: The index that it is to replace; None if the alias has to point to it. If `live` or the alias was deleted, the
            index can still be swapped in.

    Raises:
        IndexMismatch: If the alias now points to another index, to several, or, without `live`, to none; or if another index
            has the name of `target` by now.
    """
    own, targets = target.name, cluster.call(_read_checked_targets, cluster.client, alias, target)
    if targets in ([own], [live]):
        return targets[0]
    if not targets and live is not None:
        return ""
    if own in targets:
        raise IndexMismatch(
            f"alias {alias!r} now points to several indices: {', '.join(targets)}. What this run wrote is in {own}",
            f"Remove the alias from the others: DELETE /INDEX/_alias/{alias}. Then run the same command again.",
            code="alias-of-several-indices",
        )
    raise IndexMismatch(
        f"alias {alias!r} now points to {', '.join(targets) or 'no index'}. What this run wrote is in {own}, which a search of"
        f" {alias!r} doesn't cover",
        "Run the same command again: it continues with the new target of the alias. If the alias was moved by hand, move it"
        " back first."
        if targets
        else f"Restore the alias of the index: PUT /{own}/_alias/{alias}. Without it the next run builds another index.",
        code="alias-moved",
    )


def check_identities(cluster: Cluster, identities: Mapping[str, str]) -> None:
    """Raise IndexMismatch if an index isn't the one that a run opened; `identities` are those of `get_index_identity` by name."""
    cluster.call(_read_checked, cluster.client, list(identities), identities)


def delete_retired_indices(cluster: Cluster, alias: str, keep: int, replaced: str | None = None) -> list[str]:
    """Delete the retired indices of `alias`, except the `keep` newest; returns their names.

    `replaced` was searched until now and counts as the newest: its date may be older, if the alias was moved back to it, or if
    the clocks of the cluster's nodes differ.

    An index with any alias in addition to its write alias is in use or being built; one whose `_meta.stair_es.alias` is another
    alias belongs to someone else. Token indices are deleted with their indices.
    """
    if keep < 0:
        raise UsageError(f"can't keep {keep} indices", "Give 0 or more: --retain-indices N", code="invalid-retention")
    params = {"filter_path": "*.aliases,*.mappings._meta,*.settings.index.creation_date", "expand_wildcards": "all"}
    found = cluster.call(cluster.client.indices.get, index=f"{alias}-*", params=params)
    retired = [
        (name == replaced, get_creation_ms(name, get_index_settings(index).get("creation_date")), name)
        for name, index in found.items()
        if not list_other_aliases(name, index) and get_index_meta(index).get("alias") == alias
    ]
    names = [name for _, _, name in sorted(retired, reverse=True)[keep:]]
    for name in names:
        cluster.call(cluster.client.indices.delete, index=name, ignore=[404])
    delete_orphan_token_indices(cluster, alias)
    return names


def _read_alias_targets(client: OpenSearch, alias: str) -> list[str]:
    # With the alias as the index, too: without an index the request needs the permission to read the aliases of all indices.
    found = client.indices.get_alias(index=alias, name=alias, ignore=[404])
    return sorted(name for name, index in found.items() if isinstance(index, dict) and index.get("aliases"))


def _read_checked_targets(client: OpenSearch, alias: str, target: WriteTarget) -> list[str]:
    """Read the targets of the alias, together with the identity of the index that the run opened."""
    found = _read_checked(client, [alias, *target.identities], target.identities)
    return sorted(name for name, index in found.items() if alias in index.get("aliases", {}))


def _read_checked(client: OpenSearch, names: Sequence[str], identities: Mapping[str, str]) -> dict[str, Any]:
    """Read the aliases of the indices that exist, and check identities in the same response."""
    params = {"ignore_unavailable": "true", "filter_path": f"*.aliases,{IDENTITY_PATHS}"}
    found: dict[str, Any] = client.indices.get(index=",".join(names), params=params)
    check_index_identities(identities, found)
    return found


def _try_swap(client: OpenSearch, alias: str, target: WriteTarget) -> None:
    """Try once to swap the alias; a lost response of an earlier attempt may have done it already."""
    targets = set(_read_checked_targets(client, alias, target))
    if target.name in targets:
        return
    if targets - {target.replaces}:
        raise IndexMismatch(
            f"alias {alias!r} now points to {', '.join(sorted(targets))}: {target.name!r} was not swapped in",
            "Run it again: it starts from the new target.",
            code="alias-moved",
        )
    actions: list[dict[str, Any]] = [{"remove": {"index": name, "alias": alias, "must_exist": True}} for name in targets]
    actions.append({"add": {"index": target.name, "alias": alias, **WRITE_ALIAS_OPTIONS}})
    actions.append({"remove": {"index": target.name, "alias": f"{make_build_alias_prefix(alias)}*"}})
    client.indices.update_aliases(
        body={"actions": [*actions, *build_alias_actions(read_token_index_state(client, alias), target.name)]}
    )
