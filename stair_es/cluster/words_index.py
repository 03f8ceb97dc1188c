"""The token index of an alias: `X.words` behind `A-words` for the index X behind A. Find, create, publish and delete it.

Each is written through a write alias of its own, `X.words.write`, as the image index is: see `make_write_alias`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from opensearchpy import exceptions

from stair_es import resources
from stair_es.cluster.connect import Connection
from stair_es.cluster.identity import LONGEST_NAME, WORDS_SUFFIX, with_meta, words_of, write_alias
from stair_es.cluster.own_alias import WRITTEN
from stair_es.cluster.retry import persistently
from stair_es.cluster.words_read import check_mapping
from stair_es.errors import IndexMismatch

if TYPE_CHECKING:
    from opensearchpy import OpenSearch


def words_alias(alias: str) -> str:
    """Make the alias of the token index for a search alias."""
    return f"{alias}-words"


def words_name(index: str) -> str:
    """Make the name of the token index of an index."""
    return f"{index}{WORDS_SUFFIX}"


@dataclass(frozen=True, kw_only=True)
class WordsState:
    """The token indices of one alias."""

    alias: str
    of: Mapping[str, str]
    """Our token indices of this alias -> the index that each belongs to, which may be deleted."""
    behind: frozenset[str]
    """Targets of the alias of the token index."""

    @property
    def on(self) -> bool:
        """Whether the alias has token indices: then each new build gets one, too."""
        return bool(self.of)

    def check(self) -> None:
        """Check that the name of the token alias is free, or ours.

        Raises:
            IndexMismatch: If it belongs to someone else.
        """
        foreign = sorted(self.behind - set(self.of))
        if foreign:
            name = words_alias(self.alias)
            what = "is an index" if name in foreign else f"points to {', '.join(foreign)}"
            raise IndexMismatch(
                f"the words index of {self.alias!r} can't be called {name!r}: that {what} of someone else",
                "Rename that, ingest under another name (--index), or go without: --no-words-index.",
            )


def look(client: OpenSearch, connection: Connection, alias: str) -> WordsState:
    """Get the state of the token indices.

    Raises:
        ClusterError: If the request fails.
    """
    return persistently(partial(look_once, client, alias), connection)


def look_once(client: OpenSearch, alias: str) -> WordsState:
    """Read the state in one attempt; raises the client's own errors."""
    behind = words_alias(alias)
    params = {"ignore_unavailable": "true", "expand_wildcards": "all", "filter_path": "*.aliases,*.mappings._meta"}
    found = client.indices.get(index=f"{behind},{alias}-*{WORDS_SUFFIX}", params=params)
    of = {name: index for name, described in found.items() if (index := _of(name, described, alias))}
    return WordsState(
        alias=alias,
        of=of,
        behind=frozenset(name for name, described in found.items() if name == behind or behind in described.get("aliases", {})),
    )


def _of(name: str, described: Mapping[str, Any], alias: str) -> str:
    about = words_of(described)
    index = str(about.get("words_of", ""))
    return index if about.get("alias") == alias and name == words_name(index) else ""


def make(client: OpenSearch, connection: Connection, alias: str, index: str) -> bool:
    """Create the token index of `index`, empty; returns False if it exists.

    Raises:
        IndexMismatch: If its name belongs to someone else or is too long, or the images can't be read page by page.
    """
    name = words_name(index)
    if len(write_alias(name).encode()) > LONGEST_NAME:
        raise IndexMismatch(f"the name of the words index {name!r} would be too long", "Ingest under a shorter name: --index.")
    return persistently(partial(_make, client, alias, index), connection)


def _make(client: OpenSearch, alias: str, index: str) -> bool:
    name = words_name(index)
    try:
        client.indices.create(index=name, body=_body(client, alias, index))
    except exceptions.TransportError:
        if not client.indices.exists(index=name):
            raise
        if not _of(name, client.indices.get(index=name).get(name, {}), alias):
            raise IndexMismatch(
                f"{name!r} is the name of the words index of {index!r}, but someone else's index",
                "Rename that one, or delete it.",
            ) from None
        return False
    return True


def _body(client: OpenSearch, alias: str, index: str) -> dict[str, Any]:
    """Build the body, with as many shards as the image index: if images need several, so do their tokens."""
    described = client.indices.get(index=index, params={"flat_settings": "true"})[index]
    check_mapping(described["mappings"].get("properties", {}), f"index {index!r}")
    body = with_meta(resources.load("mappings", "words"), {"words_of": index, "alias": alias})
    shards = {"number_of_shards": described["settings"]["index.number_of_shards"]}
    return {
        **body,
        "settings": {"index": {**body["settings"]["index"], **shards}},
        "aliases": {write_alias(words_name(index)): WRITTEN},
    }


def publish(client: OpenSearch, connection: Connection, alias: str, index: str) -> bool:
    """Switch the token alias to the token index of `index`, if `alias` points to `index`; returns whether it does.

    Raises:
        IndexMismatch: If the name of the token alias belongs to someone else.
    """
    return persistently(partial(_publish, client, alias, index), connection)


def _publish(client: OpenSearch, alias: str, index: str) -> bool:
    if not client.indices.exists_alias(name=alias, index=index):
        return False
    actions = moves(look_once(client, alias), index)
    if actions:
        client.indices.update_aliases(body={"actions": actions})
    return True


def moves(state: WordsState, index: str) -> list[dict[str, Any]]:
    """Build the alias actions that point the token alias to the token index of `index`; empty if it has none. Pure.

    Raises:
        IndexMismatch: If the name of the token alias belongs to someone else.
    """
    name, behind = words_name(index), words_alias(state.alias)
    if name not in state.of:
        return []
    state.check()
    if state.behind == {name}:
        return []
    away = [{"remove": {"index": other, "alias": behind}} for other in sorted(state.behind - {name})]
    return [*away, {"add": {"index": name, "alias": behind}}]


def delete_all(client: OpenSearch, connection: Connection, alias: str) -> list[str]:
    """Delete all token indices of an alias, with their aliases; returns their names."""
    return _delete(client, connection, sorted(look(client, connection, alias).of))


def delete_orphans(client: OpenSearch, connection: Connection, alias: str) -> list[str]:
    """Delete the token indices whose index was deleted; returns their names."""
    state = look(client, connection, alias)
    exists = {index: persistently(partial(client.indices.exists, index=index), connection) for index in state.of.values()}
    return _delete(client, connection, sorted(name for name, index in state.of.items() if not exists[index]))


def _delete(client: OpenSearch, connection: Connection, names: list[str]) -> list[str]:
    for name in names:
        persistently(partial(client.indices.delete, index=name, ignore=[404]), connection)
    return names
