"""Aliases: what they point to, the swap to a new index, and the deletion of retired indices."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from opensearchpy.exceptions import NotFoundError

from stair_es.cluster.failures import translated
from stair_es.cluster.identity import build_prefix, other_aliases, ours
from stair_es.cluster.own_alias import WRITTEN
from stair_es.cluster.retry import FIRST_LOOK, is_busy, persistently, repeated
from stair_es.cluster.words_index import delete_orphans, look_once, moves
from stair_es.errors import IndexMismatch, UsageError

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from stair_es.cluster.connect import Connection
    from stair_es.cluster.identity import OpenIndex


def swap(client: OpenSearch, connection: Connection, alias: str, opened: OpenIndex) -> None:
    """Swap `alias` to the new index in one step: a search always finds either the old index or the new one.

    The alias of the token index is swapped with it, if the new index has a token index. Does nothing if a parallel run has done
    it.

    Raises:
        IndexMismatch: If the alias points to an index that this run doesn't know, or the token alias belongs to someone else.
    """
    if opened.live is not None:
        persistently(partial(_swap, client, alias, opened), connection)


def stands_for(client: OpenSearch, connection: Connection, alias: str) -> list[str]:
    """Get the targets of an alias; empty if the alias doesn't exist.

    Raises:
        ClusterError: If the request fails.
    """
    return persistently(partial(_behind, client, alias), connection)


def check_stands_for(client: OpenSearch, connection: Connection, alias: str, own: str, live: str | None = None) -> str:
    """Check the target of `alias` at the end of a run that has written to `own`, and return it; "" without a target.

    Args:
        client: Client of the cluster.
        connection: Connection of that client.
        alias: The search alias.
        own: The index that the run has written to.
        live: The index that `own` is to replace; None if the alias has to point to `own`. If `live` or the alias was deleted,
        `own`
            can still be swapped in.

    Raises:
        IndexMismatch: If the alias now points to another index, to several, or, without `live`, to none.
        ClusterError: If the request fails.
    """
    behind = stands_for(client, connection, alias)
    if behind in ([own], [live]):
        return behind[0]
    if not behind and live is not None:
        return ""
    if own in behind:
        raise IndexMismatch(
            f"alias {alias!r} now points to several indices: {', '.join(behind)}. What this run wrote is in {own}",
            f"Remove the alias from the others: DELETE /INDEX/_alias/{alias}. Then run the same command again.",
        )
    raise IndexMismatch(
        f"alias {alias!r} now points to {', '.join(behind) or 'no index'}. What this run wrote is in {own}, where a search of"
        f" {alias!r} doesn't find it",
        "Run the same command again: it continues with the new target of the alias. If the alias was moved by hand, move it"
        " back before."
        if behind
        else f"Give the index its alias back: PUT /{own}/_alias/{alias}. Without it the next run builds another index.",
    )


def prune(client: OpenSearch, connection: Connection, alias: str, keep: int) -> list[str]:
    """Delete the retired indices of `alias`, except the `keep` newest; returns their names.

    An index with any alias in addition to its write alias is in use or being built; one whose `_meta.stair_es.alias` is another
    alias belongs to someone else. Token indices are deleted with their indices.

    Raises:
        UsageError: If `keep` is negative.
    """
    if keep < 0:
        raise UsageError(f"can't keep {keep} indices", "Give 0 or more: --keep N")
    params = {"filter_path": "*.aliases,*.mappings._meta,*.settings.index.creation_date", "expand_wildcards": "all"}
    found = persistently(lambda: client.indices.get(index=f"{alias}-*", params=params), connection)
    retired = [
        (int(index["settings"]["index"]["creation_date"]), name)
        for name, index in found.items()
        if not other_aliases(name, index) and ours(index).get("alias") == alias
    ]
    names = [name for _, name in sorted(retired, reverse=True)[keep:]]
    for name in names:
        persistently(partial(client.indices.delete, index=name, ignore=[404]), connection)
    delete_orphans(client, connection, alias)
    return names


def _behind(client: OpenSearch, alias: str) -> list[str]:
    # With the alias as the index, too: without an index the request needs the permission to read the aliases of all indices.
    found = client.indices.get_alias(index=alias, name=alias, ignore=[404])
    return sorted(name for name, index in found.items() if isinstance(index, dict) and index.get("aliases"))


def _swap(client: OpenSearch, alias: str, opened: OpenIndex) -> None:
    """Try once to swap the alias; a lost response of an earlier attempt may have done it already."""
    behind = set(_behind(client, alias))
    if opened.name in behind:
        return
    if behind - {opened.live}:
        raise IndexMismatch(
            f"alias {alias!r} now points to {', '.join(sorted(behind))}: {opened.name!r} was not swapped in",
            "Run it again: it starts from the new target.",
        )
    actions: list[dict[str, Any]] = [{"remove": {"index": name, "alias": alias, "must_exist": True}} for name in behind]
    actions.append({"add": {"index": opened.name, "alias": alias, **WRITTEN}})
    actions.append({"remove": {"index": opened.name, "alias": f"{build_prefix(alias)}*"}})
    client.indices.update_aliases(body={"actions": [*actions, *moves(look_once(client, alias), opened.name)]})


def mappings_of(client: OpenSearch, connection: Connection, name: str) -> dict[str, Any]:
    """Get the GET mapping response by index for a name, which may be an alias, an index or a pattern; empty if nothing matches.

    Raises:
        ClusterError: If the request fails.
    """
    if not name.strip(", "):  # would match all indices
        return {}
    with translated(connection):
        try:
            call = partial(client.indices.get_mapping, index=name)
            answer: dict[str, Any] = repeated(call, connection, FIRST_LOOK, on=is_busy)
        except NotFoundError:
            return {}
    return answer
