"""Resync: find the documents whose image is gone by comparing the index with the listed images, and remove them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from stair_es._itertools import batched
from stair_es.cluster.bulk.actions import WRITTEN_AGAIN
from stair_es.ingest.accounting.manifest import Manifest
from stair_es.ingest.sinks.base import SinkSession
from stair_es.ingest.source_stream import SourceStream
from stair_es.sources.io.uris import STDIN_URI
from stair_es.store import IndexedDocument

logger = logging.getLogger(__name__)

_BATCH_SIZE = 500


@dataclass(frozen=True)
class StaleDocument:
    """A document whose image is no longer at its URI."""

    document: IndexedDocument
    found_at: tuple[str, str] | None = None
    """URI and source of another image with the same bytes, which keeps the document."""


def find_stale_documents(
    session: SinkSession, manifest: Manifest, stream: SourceStream, *, by_content: bool
) -> Iterator[StaleDocument]:
    """Yield the documents to remove, or to update with a new URI, of those that the session found when it was opened.

    An image that wasn't listed is gone only if its document was stored before, so the session is opened before the listing.

    Only sources that were listed completely are considered, and no empty ones: an unmounted disk looks the same. Stdin is
    skipped, since it is a different stream each time. An image that failed in this run is not gone. With ids by content
    (`by_content`), a document whose image has other bytes now is stale, too.
    """
    _report_skipped_sources(stream)
    sources = sorted(stream.fully_listed)
    if by_content and sources:
        logger.warning(
            "--resync with --document-id content-hash: an image that is only in another source now counts as gone;"
            " specify all sources in one run"
        )
    for entry in session.iterate_documents(sources) if sources else ():
        status = manifest.get_status(entry.uri)
        if manifest.has_document(entry.id):
            if status == "unlisted" and (image := manifest.find_image(entry.id)):
                yield StaleDocument(entry, image)
        elif status == "unlisted" or (by_content and status == "stored"):
            yield StaleDocument(entry)


def _report_skipped_sources(stream: SourceStream) -> None:
    complete, empty = set(stream.complete), set(stream.empty)
    for uri in stream.source_uris:
        if uri == STDIN_URI:
            logger.info("--resync: stdin is a different stream each time, so no document of it is removed")
        elif uri not in complete:
            logger.warning("--resync: %s couldn't be listed completely, so no document of it is removed", uri)
        elif uri in empty:
            logger.warning("--resync: %s no longer contains images (is it mounted?), so no document of it is removed", uri)


def remove_stale_documents(session: SinkSession, manifest: Manifest, stream: SourceStream, *, by_content: bool) -> int:
    """Remove the stale documents and update the moved ones; return how many were removed.

    Documents that the sink refuses to change are reported. A document that was written again in the meantime stays.
    """
    removed = 0
    for part in batched(find_stale_documents(session, manifest, stream, by_content=by_content), _BATCH_SIZE):
        gone = [stale.document for stale in part if stale.found_at is None]
        moved = [(stale.document.id, {"uri": stale.found_at[0], "source": stale.found_at[1]}) for stale in part if stale.found_at]
        outcomes = session.delete_documents(gone).outcomes if gone else {}
        removed += sum(reason is None for reason in outcomes.values())
        updated = session.writer.update(moved).outcomes if moved else {}
        for id_, reason in (*outcomes.items(), *updated.items()):
            if reason is not None:
                level = logging.INFO if reason == WRITTEN_AGAIN else logging.WARNING
                logger.log(level, "--resync: the document %s was not changed: %s", id_, reason)
    return removed
