"""Index life cycle: timestamped indices behind an alias; the next one is built next to the one in use, then the alias is swapped.

Here an index is found or created; `aliases` and `load_settings` have the rest of its life.
"""

from __future__ import annotations

from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

from opensearchpy import exceptions

from stair_es.cluster.connect import Connection
from stair_es.cluster.identity import (
    Identity,
    OpenIndex,
    about,
    build_prefix,
    check_alias,
    holds_of,
    index_name,
    mapping_differences,
    ours,
    with_meta,
    words_of,
    write_alias,
)
from stair_es.cluster.own_alias import WRITTEN, ensure_write_alias
from stair_es.cluster.policy_state import check_asked, state_of, with_policy
from stair_es.cluster.relax import relaxed
from stair_es.cluster.retry import persistently
from stair_es.cluster.swap import check_stands_for, prune, stands_for, swap
from stair_es.errors import IndexMismatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opensearchpy import OpenSearch

    from stair_es.policy import WordPolicy

__all__ = [
    "Identity",
    "OpenIndex",
    "check_alias",
    "check_stands_for",
    "find_index",
    "open_index",
    "prune",
    "refresh",
    "relaxed",
    "stands_for",
    "swap",
]

_OTHER_NAME = "Choose another name with --index / STAIR_ES_INDEX."


def open_index(
    client: OpenSearch,
    connection: Connection,
    alias: str,
    body: Mapping[str, Any],
    identity: Identity,
    say: Callable[[str], None],
    policy: WordPolicy | None = None,
) -> OpenIndex:
    """Open the index to write to: the target of `alias`, a new one, or the build of the next one (see `swap_alias`).

    Runs that start together get the same index, and an interrupted build is resumed. A missing write alias is restored.

    Args:
        client: Client of the cluster.
        connection: Connection of that client.
        alias: The search alias.
        body: Body of a new index, without the metadata of stair-es.
        identity: Spec of this run.
        say: Called with the reason if the next index is built.
        policy: Policy of a new index; None for the policy of the alias target, which a build inherits.

    Raises:
        UsageError: If the alias name is invalid.
        IndexMismatch: If the name is used by something that stair-es didn't make, an unfinished build has another mapping, or the
            index has another policy than the requested one, contains texts instead of images or the reverse, or is closed.
    """
    check_alias(alias)
    made = with_meta(body, about(identity, alias))
    opened, why = persistently(partial(_open, client, alias, made, policy), connection)
    if why is not None:
        doing = "building" if opened.created else "resuming"
        say(f"{opened.live} {why}: {doing} {opened.name}, the alias is switched when it is complete")
    if not opened.created:
        ensure_write_alias(client, connection, opened.name)
    return opened


def find_index(
    client: OpenSearch,
    connection: Connection,
    alias: str,
    body: Mapping[str, Any],
    identity: Identity,
    policy: WordPolicy | None = None,
) -> OpenIndex | None:
    """Find the index that `open_index` would open, if it exists; creates nothing.

    Raises:
        UsageError: If the alias name is invalid.
        IndexMismatch: As for `open_index`.
    """
    check_alias(alias)
    made = with_meta(body, about(identity, alias))
    return persistently(partial(_find, client, alias, made, policy), connection)


def _open(client: OpenSearch, alias: str, made: Mapping[str, Any], policy: WordPolicy | None) -> tuple[OpenIndex, str | None]:
    """Try once to open the index; also returns why it is a build, if it is one.

    An index that was created by an earlier attempt is found again.
    """
    created = None if client.indices.exists(index=alias) else _create(client, alias, alias, with_policy(made, policy))
    if created:
        return OpenIndex(name=created, created=True, live=None, policy=policy), None
    live, why = _live(client, alias, made, policy)
    if why is None:
        return live, None
    opened = _open_build(client, alias, with_policy(made, live.policy), live)
    if opened.created:
        now, why_now = _live(client, alias, made, policy)
        if why_now is None:  # a parallel run has finished the same build in between
            client.indices.delete(index=opened.name)
            return now, None
    return opened, why


def _find(client: OpenSearch, alias: str, made: Mapping[str, Any], policy: WordPolicy | None) -> OpenIndex | None:
    if not client.indices.exists(index=alias):
        return None
    live, why = _live(client, alias, made, policy)
    return live if why is None else _find_build(client, alias, made, live)


def refresh(client: OpenSearch, connection: Connection, name: str) -> None:
    """Refresh an index, so that everything written is searchable."""
    persistently(lambda: client.indices.refresh(index=name), connection)


def _create(client: OpenSearch, alias: str, behind: str, body: Mapping[str, Any]) -> str | None:
    """Create an index and return its name; None if another run was first: the engine lets only one claim the alias."""
    name = index_name(alias, body["mappings"]["_meta"]["stair_es"]["model"], datetime.now(timezone.utc))
    aliases = {**body.get("aliases", {}), behind: WRITTEN, write_alias(name): WRITTEN}
    try:
        client.indices.create(index=name, body={**body, "aliases": aliases})
    except exceptions.TransportError:
        if client.indices.exists(index=behind):
            return None
        raise
    return name


def _only(client: OpenSearch, alias: str) -> tuple[str, Mapping[str, Any]]:
    """Return the single target of an alias."""
    found = client.indices.get(index=alias)
    if len(found) > 1:
        raise IndexMismatch(f"alias {alias!r} points to several indices: {', '.join(sorted(found))}", _OTHER_NAME)
    [(name, index)] = found.items()
    if name == alias:
        raise IndexMismatch(f"{alias!r} is an index, not an alias made by stair-es", _OTHER_NAME)
    if words_of(index):
        raise IndexMismatch(f"alias {alias!r} points to {name}, the token index of another one", _OTHER_NAME)
    if not ours(index):
        raise IndexMismatch(f"index {name!r} behind alias {alias!r} was not made by stair-es", _OTHER_NAME)
    if index["settings"]["index"].get("verified_before_close") == "true":
        raise IndexMismatch(
            f"index {name!r} behind alias {alias!r} is closed", f"Open it, and run this again: POST /{name}/_open"
        )
    return name, index


def _live(client: OpenSearch, alias: str, wanted: Mapping[str, Any], policy: WordPolicy | None) -> tuple[OpenIndex, str | None]:
    """Return the alias target, and why it can't be written to (None if it can)."""
    name, index = _only(client, alias)
    state = state_of(index, name)
    check_asked(policy, state, name, alias)
    live = OpenIndex(name=name, created=False, live=None, policy=state.policy, under_way=state.under_way)
    theirs, own = ours(index), wanted["mappings"]["_meta"]["stair_es"]
    holds, brings = holds_of(theirs), holds_of(own)
    if holds != brings:
        raise IndexMismatch(f"{alias!r} points to {name}, an index of {holds}", f"Name another one for {brings}: --index NAME")
    if theirs.get("model") != own["model"]:
        return live, f"was made with model {theirs.get('model')!r}, not with {own['model']!r}"
    if theirs.get("digest") != own["digest"]:
        return live, "was made with other settings"
    differences = mapping_differences(wanted["mappings"], index["mappings"])
    return live, f"has another mapping ({'; '.join(differences)})" if differences else None


def _build_alias(alias: str, wanted: Mapping[str, Any]) -> str:
    return build_prefix(alias) + str(wanted["mappings"]["_meta"]["stair_es"]["digest"])


def _find_build(client: OpenSearch, alias: str, wanted: Mapping[str, Any], live: OpenIndex) -> OpenIndex | None:
    behind = _build_alias(alias, wanted)
    if not client.indices.exists(index=behind):
        return None
    name, index = _only(client, behind)
    differences = mapping_differences(wanted["mappings"], index["mappings"])
    if differences:
        raise IndexMismatch(
            f"the unfinished index {name!r} was created with another mapping: {'; '.join(differences)}",
            f"Delete the index {name} to start again, or use the mapping that it was created with.",
        )
    state = state_of(index, name)
    return OpenIndex(name=name, created=False, live=live.name, policy=state.policy, under_way=state.under_way)


def _open_build(client: OpenSearch, alias: str, wanted: Mapping[str, Any], live: OpenIndex) -> OpenIndex:
    found = _find_build(client, alias, wanted, live)
    if found:
        return found
    behind = _build_alias(alias, wanted)
    created = _create(client, alias, behind, wanted)
    if created:
        return OpenIndex(name=created, created=True, live=live.name, policy=live.policy)
    [name] = client.indices.get_alias(index=behind, name=behind)
    return OpenIndex(name=name, created=False, live=live.name, policy=live.policy)
