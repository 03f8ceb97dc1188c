"""The sink interface: where documents go, and which ones are already stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from stair_es.cluster.bulk.writer import BulkPolicy, BulkResult
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.cluster.documents.state import IndexedDocument, StoredVersion
from stair_es.cluster.metadata.index_metadata import IndexSpec
from stair_es.config.settings import Settings
from stair_es.token_policy import TokenPolicy

Documents: TypeAlias = Sequence[tuple[str, Mapping[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class SinkPlan:
    """What a run requires of its sink."""

    alias: str
    """Name under which the documents will be found."""
    index_spec: IndexSpec
    """Model and settings: documents of another one don't go into the same index."""
    document: DocumentSettings
    bulk: BulkPolicy = field(default_factory=BulkPolicy)
    connection: Connection | None = None
    """The search cluster, for sinks that write into one."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Options of the sink; for the built-in one see `ClusterSinkOptions`."""
    policy: TokenPolicy | None = None
    """Token policy to apply to documents; None for the sink's own."""
    settings: Settings | None = None
    """Data folder and trusted models of this machine; None for those of the environment."""
    resync: bool = False
    """Whether documents are compared with the sources: then `open_readonly` notes what is stored."""


class SinkWriter(Protocol):
    """The sink on a worker. Picklable: it holds how to build a client, never a client."""

    def find_by_id(self, ids: Sequence[str]) -> dict[str, StoredVersion]:
        """Return the stored ones of these documents."""

    def find_by_uri(self, uris: Sequence[str]) -> dict[str, StoredVersion]:
        """Return the stored documents of these images, regardless of their ids."""

    def write(self, documents: Documents, chunk_bytes: int) -> BulkResult:
        """Store documents, replacing those with the same id.

        Raises:
            StairError: If the sink as a whole can't be written to. Documents already stored stay.
        """

    def update(self, documents: Documents) -> BulkResult:
        """Update fields of existing documents; a missing document counts as updated."""


@dataclass(frozen=True, kw_only=True)
class SinkResult:
    """Result of completing a run in the sink."""

    swapped: bool = False
    """Whether the alias points to the newly built index from now on."""
    not_swapped_reason: str = ""
    """Why the alias doesn't point to a newly built index yet; "" otherwise."""
    deleted_indices: tuple[str, ...] = ()


ImageStatus: TypeAlias = Literal["stored", "failed", "unlisted"]


@dataclass(frozen=True, kw_only=True)
class RunCoverage:
    """What a run saw, for comparison with the documents of the index that a new one replaces."""

    sources: frozenset[str]
    """Sources that were listed completely and aren't empty: images that they don't list are gone."""
    get_status: Callable[[str], ImageStatus]
    """Returns the status of a URI in this run."""


class SinkSession(Protocol):
    """One run's access to the sink, on the driver."""

    writer: SinkWriter
    index: str
    """Name of the target in reports: the concrete index, for a cluster."""
    is_empty: bool
    """Whether the sink is empty: then no document can be up to date."""
    label: str
    """Description of the target for messages."""

    def load(self) -> AbstractContextManager[None]:
        """Return a context for all writes. Settings relaxed for the load are restored on any exit."""

    def iterate_documents(self, sources: Sequence[str]) -> Iterator[IndexedDocument]:
        """Iterate over the documents of these sources that were stored before `SinkKind.open_readonly` returned this session."""

    def delete_documents(self, documents: Sequence[IndexedDocument]) -> BulkResult:
        """Delete documents of `iterate_documents`, unless they were written again; a missing document counts as deleted.

        Raises:
            StairError: If the sink as a whole can't be written to.
        """

    def complete(self, coverage: RunCoverage) -> SinkResult:
        """Make everything that was written searchable; called after a complete run."""


class SinkKind(Protocol):
    """The interface of an entry point in the group `stair_es.sinks`."""

    name: str
    description: str
    """One line for `stair-es plugins`."""

    def open(self, plan: SinkPlan) -> SinkSession:
        """Prepare the sink for a run.

        Raises:
            StairError: If the sink can't be used.
        """

    def open_readonly(self, plan: SinkPlan) -> SinkSession | None:
        """Open the sink without changes, before a run that removes documents, or for a dry run.

        Returns:
            The session; None if the run would begin with an empty index.
        """
