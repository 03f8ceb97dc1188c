"""What an ingest makes of the words index: wanted, unwanted, or as the index has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stair_es.cluster.connect import Connection
from stair_es.cluster.words_index import WordsState, delete_all, look, make, words_name
from stair_es.cluster.words_read import check_mapping
from stair_es.ingest.sink import Say, WordsPlan

if TYPE_CHECKING:
    from opensearchpy import OpenSearch


@dataclass(frozen=True)
class Wish:
    """What was asked for, and what there is."""

    asked: bool | None
    """None for what the index has."""
    state: WordsState

    @property
    def on(self) -> bool:
        """Whether there is a words index when the run has ended."""
        return self.state.on if self.asked is None else self.asked

    def plan(self, index: str | None) -> WordsPlan | None:
        """What that means for the words of `index`, None for an index that has yet to be made."""
        name = words_name(index) if index else None
        there = name in self.state.of
        if self.on:
            return WordsPlan(index=name, would="update" if there else "create")
        return WordsPlan(index=name if there else None, would="delete") if self.state.on else None


def wish(client: OpenSearch, connection: Connection, alias: str, asked: bool | None, properties: Mapping[str, Any]) -> Wish:
    """One look, before anything is made.

    Args:
        client: Of the cluster.
        connection: Of that client.
        alias: What people search.
        asked: Whether there is to be a words index; None for what the index has.
        properties: Fields of the images.

    Raises:
        IndexMismatch: A words index can't have the name, or not with these fields.
    """
    made = Wish(asked, look(client, connection, alias))
    if made.on:
        made.state.check()
        check_mapping(properties, "the mapping")
    return made


def begin(client: OpenSearch, connection: Connection, index: str, wished: Wish, say: Say) -> None:
    """Make the words index that is missing, or delete those that nobody wants any more: of this alias all that there are.

    Raises:
        IndexMismatch: The name is someone else's.
    """
    alias = wished.state.alias
    if wished.on:
        if words_name(index) not in wished.state.of and make(client, connection, alias, index):
            say(f"new words index: {words_name(index)}")
    elif wished.state.on:
        say(f"words index deleted: {', '.join(delete_all(client, connection, alias))}")
