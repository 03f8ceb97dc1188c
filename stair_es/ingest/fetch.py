"""The first half of `prepare`: fetch the bytes of the images, and find those that are unchanged."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from stair_es.cluster.client.cancellation import raise_if_cancelled
from stair_es.cluster.documents.document import make_content_id, make_document_id
from stair_es.errors import ReadError, RetryLater, StairError
from stair_es.ingest.state import Batch, Deferred, Fetched, Outcome, Pending, VersionChanged, get_item_host
from stair_es.sources.limits import PREPARED_BYTES

if TYPE_CHECKING:
    from stair_es.ingest.stages import WorkerConfig
    from stair_es.sources.base import ReadResult


def fetch_parts(batch: Batch, config: WorkerConfig) -> Iterator[tuple[list[int], Batch]]:
    """Fetch the pending images; yield parts of about `PREPARED_BYTES`, with the positions of their images in the batch.

    No further image is requested from a host that asks to wait.
    """
    pending = deque(batch.enumerate_state(Pending))
    paused: dict[str, Deferred] = {}
    while pending:
        positions, part, held_bytes = list[int](), Batch([], batch.seconds, batch.began_ns), 0
        with batch.time_stage("read"):
            while pending and held_bytes < PREPARED_BYTES:
                raise_if_cancelled()
                position, image = pending.popleft()
                refusal = paused.get(get_item_host(image.item)) if paused else None
                state = _fetch_image(image, config) if refusal is None else replace(refusal, item=image.item, was_requested=False)
                if isinstance(state, Deferred) and state.host:
                    paused[state.host] = state
                held_bytes += len(state.data) if isinstance(state, Fetched) else 0
                positions.append(position)
                part.images.append(state)
            _skip_known_content(part, config)
        yield positions, part


def _fetch_image(image: Pending, config: WorkerConfig) -> Fetched | VersionChanged | Deferred | Outcome:
    item, stored = image.item, image.stored
    current = stored if stored is not None and config.is_up_to_date(stored, item) else None
    try:
        read: ReadResult | None = item.locator.read(config.read_limits, current.version if current else None)
    except RetryLater as error:
        return Deferred(item, error.host, error.wait_s, error.message)
    except ReadError as error:
        return Outcome(item, "failed", "read", error.message)
    except (StairError, ImportError):
        raise
    except Exception as error:  # noqa: BLE001  a plugin's locator: one image must not fail the run
        return Outcome(item, "failed", "read", f"{type(error).__name__}: {error}")
    if read is None:
        return Outcome(item, "unchanged", "read", id=current.id if current else "")
    sha256 = hashlib.sha256(read.data).hexdigest()
    version = item.version or read.version
    if current and current.sha256 == sha256:
        if version is None or current.version == version:
            return Outcome(item, "unchanged", "read", id=current.id)
        return VersionChanged(item, current.id, version, read.modified_at)
    id_ = make_content_id(sha256) if config.document.id == "content-hash" else make_document_id(item.uri)
    return Fetched(
        item,
        id_,
        read.data,
        size_bytes=len(read.data),
        version=version,
        modified_at=read.modified_at,
        sha256=sha256,
        fingerprint=config.compute_fingerprint(sha256, item),
    )


def _skip_known_content(batch: Batch, config: WorkerConfig) -> None:
    """Skip images whose content is already stored, if ids go by content.

    It may be under another URI, or not be the document that `find_by_uri` takes for the newest one: that goes by clocks.
    """
    if config.document.id != "content-hash" or config.is_empty:
        return
    fetched = batch.enumerate_state(Fetched)
    stored = config.writer.find_by_id([image.id for _, image in fetched])
    for i, image in fetched:
        duplicate = stored.get(image.id)
        if duplicate is None or duplicate.fingerprint != image.fingerprint:
            continue
        if duplicate.uri != image.item.uri or duplicate.version == image.version:
            batch.images[i] = Outcome(image.item, "unchanged", "read", id=duplicate.id)
