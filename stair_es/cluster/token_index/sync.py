"""Reconcile the token index with its image index: compared page by page at the end of each run, and updated.

The work that a killed run left undone is a difference like any other, so no other state is needed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from stair_es._itertools import batched
from stair_es.cluster.bulk.throttle import BulkPolicy
from stair_es.cluster.bulk.writer import BulkWriter
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.documents.read import count_matches
from stair_es.cluster.metadata.index_metadata import get_top_token_count
from stair_es.cluster.metadata.names import ensure_write_alias
from stair_es.cluster.token_index.documents import (
    ImageIndexReader,
    SourceDocument,
    TokenDocuments,
    TokenIndexReader,
    TokenSummary,
    build_token_documents,
)
from stair_es.cluster.token_index.index import (
    create_token_index,
    delete_orphan_token_indices,
    get_token_index_state,
    make_token_index_name,
    swap_token_alias,
)
from stair_es.errors import ClusterError

logger = logging.getLogger(__name__)

_LOG_INTERVAL_S = 10.0
_MAX_CHUNK_DOCS = 5000
"""Token documents are small: a request may contain more of them than of images."""
_ROUNDS = 5
_MAX_REASONS = 5
_TOKENS_PER_BATCH = 3200
"""Token documents per batch: all of a batch's documents fit in one response."""


@dataclass(frozen=True, kw_only=True)
class TokenIndexReport:
    """What was changed in a token index."""

    index: str
    identity: str
    """Identity of the index when it was opened; see `get_index_identity`."""
    written: int
    deleted: int
    failed: int
    """Documents that the cluster rejected permanently, and images whose tokens can't be read."""
    images: int
    """Images that have token documents now."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Reasons of some failures, by document."""

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON for `--json`."""
        return {name: getattr(self, name) for name in ("index", "written", "deleted", "failed", "images")}


def reconcile_token_index(cluster: Cluster, alias: str, index: str, policy: BulkPolicy | None = None) -> TokenIndexReport | None:
    """Reconcile the token index of `index`, creating it if necessary, and swap its alias if `alias` points to `index`.

    The image index must be refreshed.

    Returns:
        The changes; None if the token index was deleted concurrently.

    Raises:
        IndexMismatch: If a name belongs to someone else, or the images can't be read page by page.
        ClusterError: If the cluster fails. What was written stays, and the next run does the rest.
    """
    name = make_token_index_name(index)
    state = get_token_index_state(cluster, alias)
    state.check_alias_available()
    if name not in state.indices:
        create_token_index(cluster, alias, index)
        state = get_token_index_state(cluster, alias)
    try:
        ensure_write_alias(cluster, name)
        report = _sync_indices(cluster, index, state.identities.get(name, ""), policy or BulkPolicy())
        swap_token_alias(cluster, alias, index)
    except ClusterError:
        if _has_index(cluster, name):
            logger.warning("token index %s: not complete, the next run resumes it", name)
            raise
        logger.warning("token index %s: it was deleted in the meantime", name)
        return None
    gone = delete_orphan_token_indices(cluster, alias)
    if gone:
        logger.info("deleted, because their indices are gone: %s", ", ".join(gone))
    _report_result(report)
    return report


def _has_index(cluster: Cluster, name: str) -> bool:
    try:
        exists: bool = cluster.call(cluster.client.indices.exists, index=name)
    except ClusterError:  # the first error is more helpful
        return True
    return exists


def _sync_indices(cluster: Cluster, index: str, identity: str, policy: BulkPolicy) -> TokenIndexReport:
    described = cluster.call(cluster.client.indices.get, index=index)[index]
    name = make_token_index_name(index)
    images = ImageIndexReader(cluster=cluster, index=index, properties=described["mappings"].get("properties", {}))
    tokens = TokenIndexReader(cluster=cluster, index=name)
    writer = BulkWriter(cluster=cluster, index=name, policy=replace(policy, max_chunk_docs=_MAX_CHUNK_DOCS))
    sync = _TokenIndexSync(images, tokens, writer, get_top_token_count(described))
    sync.run()
    return TokenIndexReport(
        index=name,
        identity=identity,
        written=sync.written,
        deleted=sync.deleted,
        failed=sync.failed,
        images=tokens.count_images(),
        reasons=sync.reasons,
    )


@dataclass
class _TokenIndexSync:
    images: ImageIndexReader
    tokens: TokenIndexReader
    writer: BulkWriter
    top_token_count: int
    written: int = 0
    deleted: int = 0
    failed: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    expected: int = 0
    """Expected number of token documents, if the images don't change concurrently."""
    logged_s: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        self._refresh_tokens()
        self._add_missing()
        self._refresh_tokens()
        if self.tokens.count_documents() != self.expected:
            self._remove_orphans()
            self._refresh_tokens()

    def _refresh_tokens(self) -> None:
        self.tokens.cluster.refresh(self.tokens.index)

    def _add_missing(self) -> None:
        total, done = count_matches(self.images.cluster, self.images.index, self.images.token_query), 0
        for expected in self.images.iterate_source_versions():
            found = self.tokens.summarize_images(list(expected))
            stale = find_stale_images(expected, found, self.top_token_count)
            self.expected += sum(found[id_].documents for id_ in expected.keys() - set(stale))
            before = self.written
            self._update_images(stale, partial(self._report_progress, done, total))
            self.expected += self.written - before
            done += len(expected)
            self._report_progress(0, total, done)

    def _remove_orphans(self) -> None:
        for found in self.tokens.iterate_image_ids():
            self._update_images(find_orphan_images(found, self.images.filter_with_tokens(found)))

    def _report_progress(self, before: int, total: int, done: int) -> None:
        if time.monotonic() - self.logged_s >= _LOG_INTERVAL_S:
            self.logged_s = time.monotonic()
            done = min(before + done, total)
            logger.info(
                "token index: %s of %s images compared, %s tokens written", f"{done:,}", f"{total:,}", f"{self.written:,}"
            )

    def _update_images(self, ids: Sequence[str], progress: Callable[[int], None] = lambda _: None) -> None:
        """Update the token documents of these images to their current documents; those of deleted images are deleted."""
        done = 0
        for batch in batched(ids, max(1, _TOKENS_PER_BATCH // self.top_token_count)):
            self._update_batch(batch)
            done += len(batch)
            progress(done)

    def _update_batch(self, ids: list[str]) -> None:
        """Update one batch, and check the documents again afterwards: one may have changed while its tokens were written.

        So of two concurrent runs, the last one to write the tokens of an image writes those of its current document.
        """
        existing = self.tokens.list_document_ids(ids)
        for _ in range(_ROUNDS):
            images = self.images.get_documents(ids)
            self._write_differences(ids, images, existing)
            versions = self.images.get_versions(ids)
            ids = [id_ for id_ in ids if versions.get(id_) != (images[id_].version if id_ in images else None)]
            if not ids:
                return

    def _write_differences(self, ids: list[str], images: Mapping[str, SourceDocument], existing: dict[str, set[str]]) -> None:
        expected = {id_: self._build_documents(id_, images[id_]) for id_ in ids if id_ in images}
        obsolete = [_id for id_ in ids for _id in sorted(existing.get(id_, set()) - expected.get(id_, {}).keys())]
        documents = [pair for tokens in expected.values() for pair in tokens.items()]
        outcomes = self.writer.write(documents).outcomes if documents else {}
        not_written = {_id: reason for _id, reason in outcomes.items() if reason is not None}
        self.written += len(outcomes) - len(not_written)
        deleted = self.writer.delete(obsolete).outcomes if obsolete else {}
        not_deleted = {_id: reason for _id, reason in deleted.items() if reason is not None}
        self.deleted += len(deleted) - len(not_deleted)
        for document_id, reason in {**not_written, **not_deleted}.items():
            self._record_failure(document_id, reason)
        for id_ in ids:
            existing[id_] = set(expected.get(id_, ()))

    def _build_documents(self, id_: str, image: SourceDocument) -> TokenDocuments:
        try:
            return build_token_documents(id_, image.source, image.source_version, self.top_token_count)
        except ValueError as error:
            self._record_failure(id_, str(error))
            return {}

    def _record_failure(self, name: str, reason: str) -> None:
        self.failed += 1
        if len(self.reasons) < _MAX_REASONS:
            self.reasons[name] = reason


def find_stale_images(expected: Mapping[str, str], found: Mapping[str, TokenSummary], top_token_count: int) -> list[str]:
    """Find the images whose token documents are missing, incomplete or stale."""
    return [
        id_
        for id_, source_version in expected.items()
        if id_ not in found or not found[id_].is_up_to_date(source_version, top_token_count)
    ]


def find_orphan_images(found: Iterable[str], expected: Iterable[str]) -> list[str]:
    """Find the images with token documents that the image index doesn't have, or has without tokens."""
    expected_ids = set(expected)
    return [id_ for id_ in found if id_ not in expected_ids]


def _report_result(report: TokenIndexReport) -> None:
    logger.info(
        "token index %s: %s tokens written, %s deleted; it now covers %s images",
        report.index,
        f"{report.written:,}",
        f"{report.deleted:,}",
        f"{report.images:,}",
    )
    if report.failed:
        examples = "; ".join(f"{name}: {reason}" for name, reason in report.reasons.items())
        logger.warning(
            "token index %s: %s could not be written or deleted, including %s", report.index, f"{report.failed:,}", examples
        )
