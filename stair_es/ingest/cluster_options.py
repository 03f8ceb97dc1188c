"""The options of the built-in sink, as text from the command line or from whoever calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from stair_es.cluster.connect import Connection
from stair_es.cluster.words_index import WordsState, delete_all, look, make, words_name
from stair_es.cluster.words_read import check_mapping
from stair_es.config import KEEP
from stair_es.errors import UsageError
from stair_es.ingest.sink import Say, WordsPlan

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

Swap = Literal["auto", "always", "never"]
_YES_NO = ("yes", "no")


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """See `cluster_sink`."""

    keep: int = KEEP
    swap: Swap = "auto"
    relax_replicas: bool = False
    mapping: Path | None = None
    words_index: bool | None = None
    """None for what the index has."""

    @classmethod
    def of(cls, given: Mapping[str, str]) -> ClusterOptions:
        """The options of a plan.

        Raises:
            UsageError: One that there isn't, or a value that makes no sense.
        """
        unknown = set(given) - {"keep", "swap", "relax_replicas", "mapping", "words_index"}
        if unknown:
            raise UsageError(f"the sink 'cluster' has no option {', '.join(sorted(unknown))}", "See docs/plugins.md.")
        keep, swap, relax = given.get("keep", str(KEEP)), given.get("swap", "auto"), given.get("relax_replicas", "no")
        words = given.get("words_index")
        if not keep.isdecimal() or swap not in get_args(Swap) or relax not in _YES_NO or words not in (None, *_YES_NO):
            has = f"keep={keep}, swap={swap}, relax_replicas={relax}" + (f", words_index={words}" if words else "")
            raise UsageError(
                f"the sink 'cluster' can't have {has}",
                f"keep is a number, swap one of {', '.join(get_args(Swap))}, relax_replicas and words_index yes or no.",
            )
        return cls(
            keep=int(keep),
            swap=cast(Swap, swap),
            relax_replicas=relax == "yes",
            mapping=Path(given["mapping"]) if given.get("mapping") else None,
            words_index=None if words is None else words == "yes",
        )


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
