"""The words index of an alias: `X.words` behind `A-words` for the index X behind A. Looked for, made, brought in place, deleted.

Each is written through an alias of its own, `X.words.write`, as the index of the images is: see `identity.write_alias`.
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
    """What the words of the images behind `alias` are found by."""
    return f"{alias}-words"


def words_name(index: str) -> str:
    """The words index of one index."""
    return f"{index}{WORDS_SUFFIX}"


@dataclass(frozen=True, kw_only=True)
class WordsState:
    """What there is of the words of one alias."""

    alias: str
    of: Mapping[str, str]
    """Our words indices of this alias -> the index that each is of, which may be gone."""
    behind: frozenset[str]
    """What the alias of the words stands for."""

    @property
    def on(self) -> bool:
        """Whether the alias has words indices: all that is built for it gets one, too."""
        return bool(self.of)

    def check(self) -> None:
        """Nothing, if the name of the alias is free, or ours.

        Raises:
            IndexMismatch: It belongs to someone else.
        """
        foreign = sorted(self.behind - set(self.of))
        if foreign:
            name = words_alias(self.alias)
            what = "is an index" if name in foreign else f"stands for {', '.join(foreign)}"
            raise IndexMismatch(
                f"the words index of {self.alias!r} can't be called {name!r}: that {what} of someone else",
                "Rename that, ingest under another name (--index), or go without: --no-words-index.",
            )


def look(client: OpenSearch, connection: Connection, alias: str) -> WordsState:
    """One look at what there is.

    Raises:
        ClusterError: The cluster failed the request.
    """
    return persistently(partial(look_once, client, alias), connection)


def look_once(client: OpenSearch, alias: str) -> WordsState:
    """One attempt at it; it fails as the client does."""
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
    """Make the words index of `index`, empty; whether it wasn't there.

    Raises:
        IndexMismatch: One of its name is someone else's, the name is too long, or the images can't be read page by page.
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
    """As many shards as the images have: who needs several for them needs them for their words."""
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
    """Let the alias of the words stand for those of `index`, if `alias` stands for `index`; whether it does now.

    Raises:
        IndexMismatch: Its name belongs to someone else.
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
    """The changes of aliases after which the words found are those of `index`; none where it has no words index. Pure.

    Raises:
        IndexMismatch: The name of the alias belongs to someone else.
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
    """Delete all words indices of an alias, and so their aliases; returns their names."""
    return _delete(client, connection, sorted(look(client, connection, alias).of))


def delete_orphans(client: OpenSearch, connection: Connection, alias: str) -> list[str]:
    """Delete the words indices whose index is gone; returns their names."""
    state = look(client, connection, alias)
    exists = {index: persistently(partial(client.indices.exists, index=index), connection) for index in state.of.values()}
    return _delete(client, connection, sorted(name for name, index in state.of.items() if not exists[index]))


def _delete(client: OpenSearch, connection: Connection, names: list[str]) -> list[str]:
    for name in names:
        persistently(partial(client.indices.delete, index=name, ignore=[404]), connection)
    return names
