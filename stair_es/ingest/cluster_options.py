"""Options of the built-in sink, and the changes to the token index that follow from them."""

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
    """Options of the built-in sink; see `cluster_sink`."""

    keep: int = KEEP
    swap: Swap = "auto"
    relax_replicas: bool = False
    mapping: Path | None = None
    words_index: bool | None = None
    """None to keep what the index has."""

    @classmethod
    def of(cls, given: Mapping[str, str]) -> ClusterOptions:
        """Parse the options of a plan.

        Raises:
            UsageError: If an option is unknown or has an invalid value.
        """
        unknown = set(given) - {"keep", "swap", "relax_replicas", "mapping", "words_index"}
        if unknown:
            raise UsageError(f"the sink 'cluster' has no option {', '.join(sorted(unknown))}", "See docs/plugins.md.")
        keep, swap, relax = given.get("keep", str(KEEP)), given.get("swap", "auto"), given.get("relax_replicas", "no")
        words = given.get("words_index")
        if not keep.isdecimal() or swap not in get_args(Swap) or relax not in _YES_NO or words not in (None, *_YES_NO):
            has = f"keep={keep}, swap={swap}, relax_replicas={relax}" + (f", words_index={words}" if words else "")
            raise UsageError(
                f"invalid options of the sink 'cluster': {has}",
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
    """The requested and the present state of the token index."""

    asked: bool | None
    """None to keep what the index has."""
    state: WordsState

    @property
    def on(self) -> bool:
        """Whether there is a token index after the run."""
        return self.state.on if self.asked is None else self.asked

    def plan(self, index: str | None) -> WordsPlan | None:
        """Return the change to the token index of `index`, which is None if the index doesn't exist yet."""
        name = words_name(index) if index else None
        there = name in self.state.of
        if self.on:
            return WordsPlan(index=name, would="update" if there else "create")
        return WordsPlan(index=name if there else None, would="delete") if self.state.on else None


def wish(client: OpenSearch, connection: Connection, alias: str, asked: bool | None, properties: Mapping[str, Any]) -> Wish:
    """Compare the requested with the present state of the token index, without changing anything.

    Args:
        client: Client of the cluster.
        connection: Connection of the client.
        alias: Alias of the index.
        asked: Whether to have a token index; None to keep what the index has.
        properties: Mapping of the image fields.

    Raises:
        IndexMismatch: If the name of the token index is taken, or the fields conflict with its mapping.
    """
    made = Wish(asked, look(client, connection, alias))
    if made.on:
        made.state.check()
        check_mapping(properties, "the mapping")
    return made


def begin(client: OpenSearch, connection: Connection, index: str, wished: Wish, say: Say) -> None:
    """Create the missing token index, or delete all token indices of the alias if none is requested.

    Raises:
        IndexMismatch: If the name is taken by another index.
    """
    alias = wished.state.alias
    if wished.on:
        if words_name(index) not in wished.state.of and make(client, connection, alias, index):
            say(f"new token index: {words_name(index)}")
    elif wished.state.on:
        say(f"token index deleted: {', '.join(delete_all(client, connection, alias))}")
