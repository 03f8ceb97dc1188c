"""The sink interface: where documents go, and which ones are already stored."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

from stair_es.cluster.documents.document import make_content_id, make_document_id
from stair_es.store import BulkResult, IndexedDocument, StoredVersion
from stair_es.token_policy import TokenPolicy

PAGE_MARK = "#page="
"""Between the URI of a document and the number of a page."""
_PAGE = re.compile(rf"(.*){PAGE_MARK}[0-9]{{1,9}}", re.DOTALL)
Documents: TypeAlias = Sequence[tuple[str, Mapping[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class SinkPlan:
    """What a run requires of its sink."""

    alias: str
    """Name under which the documents will be found."""
    digest: str
    """8 hex digits that identify model and settings: documents with another digest don't go into the same index."""
    options: Any
    """Options of the sink, as a mapping of strings; for the built-in one `ClusterSinkOptions`."""
    policy: TokenPolicy | None = None
    """Token policy to apply to documents; None for the sink's own."""
    connection: object | None = None
    """The `Connection` to the cluster of `--url`, if one is given."""
    include_forgotten: bool = False
    """Whether forgotten images are taken off their list, instead of being left out."""
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
    token_index: Any = None
    """The `TokenIndexReport` of the built-in sink, if it has a token index."""


@dataclass(frozen=True, kw_only=True)
class TokenIndexPlan:
    """What a run would do to a token index."""

    index: str | None
    """None for an index without a name yet."""
    action: Literal["create", "update", "delete"]


ImageStatus: TypeAlias = Literal["stored", "failed", "unlisted"]


@dataclass(frozen=True, kw_only=True)
class RunCoverage:
    """What a run saw, for comparison with the documents of the index that a new one replaces."""

    sources: frozenset[str]
    """Sources that were listed completely and aren't empty: images that they don't list are gone."""
    get_status: Callable[[str], ImageStatus]
    """Returns the status of a URI in this run."""


def list_image_keys(uri: str, sha256: str = "") -> list[str]:
    """List the ids that an image may be listed under: of its URI, of the document that has this page, and of its content."""
    names = dict.fromkeys((uri, get_parent_uri(uri)))
    return [*map(make_document_id, names), *([make_content_id(sha256)] if sha256 else [])]


def get_parent_uri(uri: str) -> str:
    """Return the URI of the document that has a page, or the URI itself. A key of an object store may have other `#`."""
    page = _PAGE.fullmatch(uri)
    return page[1] if page else uri


class ForgottenIds(Protocol):
    """The list of forgotten images."""

    def find_ids(self, ids: Iterable[str]) -> set[str]:
        """Return those of the ids that are listed; see `list_image_keys`."""


class ForgottenGuard(Protocol):
    """Keeps forgotten images out of the target of a run. Picklable: workers have it, too."""

    def find_listed(self, keys: Sequence[Sequence[str]]) -> list[bool]:
        """Return which images are to be left out, given the keys of each; see `list_image_keys`."""

    def delete_documents(self, ids: Sequence[str]) -> Mapping[str, str | None]:
        """Delete documents that left-out images still have; return the reasons by id, None for a deleted or missing one."""


class SinkSession(ABC):
    """One run's access to the sink, on the driver."""

    writer: SinkWriter
    index: str
    """Name of the target in reports: the concrete index, for a cluster."""
    is_empty: bool
    """Whether the sink is empty: then no document can be up to date."""
    label: str
    """Description of the target for messages."""
    labels_policy: TokenPolicy | None = None
    """Policy of labels, if the sink has one."""
    forgotten: ForgottenGuard | None = None
    """Keeps forgotten images out; None if there are none, or the sink has no list of them."""

    def choose_policy(self, requested: TokenPolicy | None) -> TokenPolicy | None:
        """Return the token policy that applies to the documents: the requested one, unless the sink has its own."""
        return requested

    def load(self) -> AbstractContextManager[None]:
        """Return a context for all writes. Settings relaxed for the load are restored on any exit."""
        return nullcontext()

    @abstractmethod
    def iterate_documents(self, sources: Sequence[str]) -> Iterator[IndexedDocument]:
        """Iterate over the documents of these sources that were stored before `SinkKind.open_readonly` returned this session."""

    @abstractmethod
    def delete_documents(self, documents: Sequence[IndexedDocument]) -> BulkResult:
        """Delete documents of `iterate_documents`, unless they were written again; a missing document counts as deleted.

        Raises:
            StairError: If the sink as a whole can't be written to.
        """

    def complete(self, coverage: RunCoverage) -> SinkResult:
        """Make everything that was written searchable; called after a complete run."""
        return SinkResult()


class SinkKind(ABC):
    """The interface of an entry point in the group `stair_es.sinks`."""

    name: ClassVar[str]
    description: ClassVar[str]
    """One line for `stair-es plugins`."""

    @abstractmethod
    def open(self, plan: SinkPlan) -> SinkSession:
        """Prepare the sink for a run.

        Raises:
            StairError: If the sink can't be used.
        """

    @abstractmethod
    def open_readonly(self, plan: SinkPlan) -> SinkSession | None:
        """Open the sink without changes, before a run that removes documents, or for a dry run.

        Returns:
            The session; None if the run would begin with an empty index.
        """

    def find_forgotten(self, plan: SinkPlan) -> ForgottenIds | None:
        """Return the list of forgotten images that a run would leave out, if there is one."""
        return None

    def plan_token_index(self, plan: SinkPlan) -> TokenIndexPlan | None:
        """Return what a run would do to the token index, without changes; None if there is none before and after."""
        return None
