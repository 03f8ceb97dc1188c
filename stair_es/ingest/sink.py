"""What a sink is: where documents go, and the ledger of what is there already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from stair_es.cluster.bulk import BulkPolicy, Written
from stair_es.cluster.connect import Connection
from stair_es.cluster.documents import DocumentSettings
from stair_es.cluster.index import Identity
from stair_es.cluster.ledger import Entry, Stored
from stair_es.cluster.token_ids import TokenIds
from stair_es.cluster.words_sync import WordsReport
from stair_es.policy import WordPolicy

Say: TypeAlias = Callable[[str], None]
Documents: TypeAlias = Sequence[tuple[str, Mapping[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class SinkPlan:
    """What a run wants of its sink."""

    alias: str
    """The name that the documents are to be found by."""
    identity: Identity
    """Model and settings: documents of another identity don't go into the same index."""
    document: DocumentSettings
    bulk: BulkPolicy = field(default_factory=BulkPolicy)
    connection: Connection | None = None
    """The search cluster, for sinks that write into one."""
    options: Mapping[str, str] = field(default_factory=dict)
    """The sink's own options; for the built-in one see `cluster_sink`."""
    policy: WordPolicy | None = None
    """What documents are to go through; None for what the sink has of its own (see `HasPolicy`)."""
    largest_weight: float | None = None
    """That a token of a document can have; None where nobody knows, or nothing depends on it."""
    began: str = ""
    """When the run began to list, as `ingested_at` has it: what was stored later, by a run beside it, it can't call gone."""


class Writer(Protocol):
    """The sink as a worker sees it. Picklable: it carries how to build a client, never a client."""

    def stored_by_id(self, ids: Sequence[str]) -> dict[str, Stored]:
        """What is there of these documents."""

    def stored_by_uri(self, uris: Sequence[str]) -> dict[str, Stored]:
        """What is there of these images, whatever their documents' ids."""

    def write(self, documents: Documents, chunk_bytes: int) -> Written:
        """Store documents, replacing those of the same id.

        Raises:
            StairError: The sink as a whole can't be written to. What was stored stays stored.
        """

    def update(self, documents: Documents) -> Written:
        """Change some fields of documents that are there; one that isn't any more counts as changed."""

    def delete(self, ids: Sequence[str]) -> Written:
        """Remove documents; one that isn't there counts as removed."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What the end of a complete run made of the sink."""

    swapped: bool = False
    """The name stands for the newly built index from now on."""
    unfinished: str = ""
    """Why a new index was built but doesn't stand behind the name yet; empty otherwise."""
    pruned: tuple[str, ...] = ()
    words_index: WordsReport | None = None
    """What was done to the words index; None where there is none."""


Fate: TypeAlias = Literal["taken", "dead", "unseen"]


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """What a run saw, asked about the documents that a new index is to replace."""

    sources: frozenset[str]
    """The sources that were listed to their end, and aren't empty: what they didn't name is gone."""
    fate: Callable[[str], Fate]
    """What became of a URI in this run."""


class Session(Protocol):
    """One run's hold on the sink, on the driver. Entered for the load: whatever is relaxed for it is restored on any exit."""

    writer: Writer
    index: str
    """What the report calls the place: for the cluster, the concrete index."""
    fresh: bool
    """Nothing is there yet: no document can be up to date."""
    label: str
    """For people: what is at the other end."""

    def load(self) -> AbstractContextManager[None]:
        """Around all writes."""

    def entries(self, sources: Sequence[str]) -> Iterator[Entry]:
        """The documents that came from these sources, one after another; none that was stored after the run began."""

    def complete(self, coverage: Coverage) -> Completion:
        """Make everything that was written findable; called after a run that went through."""


@runtime_checkable
class HasPolicy(Protocol):
    """A session whose sink keeps a word policy: that is the one that documents go through."""

    policy: WordPolicy | None


@runtime_checkable
class HasTokenIds(Protocol):
    """A session whose sink keeps ids of tokens, if it was asked to: documents get those."""

    token_ids: TokenIds | None
    """Those under the policy of the sink."""


@dataclass(frozen=True, kw_only=True)
class WordsPlan:
    """What a run would do to a words index."""

    index: str | None
    """None for one that has no name yet."""
    would: Literal["create", "update", "delete"]


class SinkKind(Protocol):
    """What an entry point of the group `stair_es.sinks` names."""

    name: str
    description: str
    """One line for `stair-es plugins`."""

    def open(self, plan: SinkPlan, say: Say) -> Session:
        """Get ready for a run.

        Raises:
            StairError: With what stands in the way.
        """

    def peek(self, plan: SinkPlan) -> Session | None:
        """As `open`, but changes nothing: for a dry run. None where the run would begin with an empty index."""


@runtime_checkable
class HasWords(Protocol):
    """A kind whose sinks may keep a words index beside the images."""

    def words(self, plan: SinkPlan) -> WordsPlan | None:
        """What a run would do to it; changes nothing, as `peek`. None where there is none, and none is to be."""
