"""The end of an index's life: the alias moves to the next one, and old ones are deleted."""

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
    from stair_es.cluster.retry import RetryPolicy


def swap(client: OpenSearch, connection: Connection, alias: str, opened: OpenIndex) -> None:
    """Let `alias` stand for the index that was built, in one step: a search finds the old one or the new one.

    So does a chart of the words, if the new index has a words index. Does nothing where a parallel run has done it.

    Raises:
        IndexMismatch: Meanwhile the alias stands for an index that this run doesn't know, or that of the words is someone
            else's.
    """
    if opened.live is not None:
        persistently(partial(_swap, client, alias, opened), connection)


def stands_for(client: OpenSearch, connection: Connection, alias: str, policy: RetryPolicy | None = None) -> list[str]:
    """The indices behind an alias, none where there is no such alias.

    Raises:
        ClusterError: The cluster failed the request.
    """
    return persistently(partial(_behind, client, alias), connection, policy)


def check_stands_for(client: OpenSearch, connection: Connection, alias: str, own: str, live: str | None = None) -> str:
    """Return the index that `alias` stands for, if a run that has written into `own` may end well with it; none is "".

    Args:
        client: Of the cluster.
        connection: Of that client.
        alias: What people search.
        own: Where the run has written.
        live: The index that `own` is to replace; None if the alias has to stand for `own`. Where that one or its alias was
            removed, nothing is in the way of `own`.

    Raises:
        IndexMismatch: It stands for another index by now, for several, or for none without `live`.
        ClusterError: The cluster failed the request.
    """
    behind = stands_for(client, connection, alias)
    if behind in ([own], [live]):
        return behind[0]
    if not behind and live is not None:
        return ""
    if own in behind:
        raise IndexMismatch(
            f"alias {alias!r} stands for several indices by now: {', '.join(behind)}. What this run wrote is in {own}",
            f"Take the alias away from the others: DELETE /INDEX/_alias/{alias}. Then run the same command again.",
        )
    raise IndexMismatch(
        f"alias {alias!r} stands for {', '.join(behind) or 'no index'} by now. What this run wrote is in {own}, where a search of"
        f" {alias!r} doesn't find it",
        "Run the same command again: it takes up what the alias stands for by then. If somebody moved the alias by hand, move it"
        " back before."
        if behind
        else f"Give the index its alias back: PUT /{own}/_alias/{alias}. Without it the next run builds another index.",
    )


def prune(client: OpenSearch, connection: Connection, alias: str, keep: int) -> list[str]:
    """Delete the indices of `alias` that nothing stands for any more, all but the `keep` newest; returns their names.

    An index that has any alias but the one that it is written through is in use or being built; one that `_meta.stair_es.alias`
    doesn't name is someone else's. Words indices go with those that they are of.

    Raises:
        UsageError: `keep` is below 0.
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
    # With the alias as the index, too: without an index the right to read the aliases of all indices would be asked for.
    found = client.indices.get_alias(index=alias, name=alias, ignore=[404])
    return sorted(name for name, index in found.items() if isinstance(index, dict) and index.get("aliases"))


def _swap(client: OpenSearch, alias: str, opened: OpenIndex) -> None:
    """One attempt: looks first, since an attempt whose answer was lost may have done it."""
    behind = set(_behind(client, alias))
    if opened.name in behind:
        return
    if behind - {opened.live}:
        raise IndexMismatch(
            f"alias {alias!r} meanwhile stands for {', '.join(sorted(behind))}: {opened.name!r} stays aside",
            "Run it again: it looks at what stands there by then.",
        )
    actions: list[dict[str, Any]] = [{"remove": {"index": name, "alias": alias, "must_exist": True}} for name in behind]
    actions.append({"add": {"index": opened.name, "alias": alias, **WRITTEN}})
    actions.append({"remove": {"index": opened.name, "alias": f"{build_prefix(alias)}*"}})
    client.indices.update_aliases(body={"actions": [*actions, *moves(look_once(client, alias), opened.name)]})


def mappings_of(client: OpenSearch, connection: Connection, name: str) -> dict[str, Any]:
    """Index -> what the cluster says of its mapping, for all that a name stands for; empty where nothing does.

    Raises:
        ClusterError: The cluster fails the request.
    """
    if not name.strip(", "):  # it would be all indices
        return {}
    with translated(connection):
        try:
            call = partial(client.indices.get_mapping, index=name)
            answer: dict[str, Any] = repeated(call, connection, FIRST_LOOK, on=is_busy)
        except NotFoundError:
            return {}
    return answer
