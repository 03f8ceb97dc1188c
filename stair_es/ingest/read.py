"""The first half of `prepare`: fetch the bytes of the images, and find those that are unchanged."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from stair_es.cluster.documents import content_id, document_id
from stair_es.cluster.stop import go_on
from stair_es.errors import ReadError, StairError, TryLater
from stair_es.ingest.batch import Batch, Deferred, Loaded, Outcome, Touched, Wanted, host_of
from stair_es.sources.limits import PREPARED_BYTES

if TYPE_CHECKING:
    from stair_es.ingest.stages import Job
    from stair_es.sources.item import Read


def read_parts(batch: Batch, job: Job) -> Iterator[tuple[list[int], Batch]]:
    """Fetch the pending images; yield parts of about `PREPARED_BYTES`, with the positions of their images in the batch.

    No further image is requested from a host that asks to wait.
    """
    waiting = deque(batch.of(Wanted))
    resting: dict[str, Deferred] = {}
    while waiting:
        places, part, held_bytes = list[int](), Batch([], batch.seconds, batch.began_ns), 0
        with batch.timed("read"):
            while waiting and held_bytes < PREPARED_BYTES:
                go_on()
                place, wanted = waiting.popleft()
                said = resting.get(host_of(wanted.item)) if resting else None
                state = _read(wanted, job) if said is None else replace(said, item=wanted.item, asked=False)
                if isinstance(state, Deferred) and state.host:
                    resting[state.host] = state
                held_bytes += len(state.data) if isinstance(state, Loaded) else 0
                places.append(place)
                part.images.append(state)
            _skip_known_content(part, job)
        yield places, part


def _read(wanted: Wanted, job: Job) -> Loaded | Touched | Deferred | Outcome:
    item, stored = wanted.item, wanted.stored
    known = stored if stored is not None and job.is_up_to_date(stored, item) else None
    try:
        read: Read | None = item.place.read(job.reading, known.version if known else None)
    except TryLater as error:
        return Deferred(item, error.host, error.wait_s, error.message)
    except ReadError as error:
        return Outcome(item, "dead", "read", error.message)
    except (StairError, ImportError):
        raise
    except Exception as error:  # noqa: BLE001  a plugin's locator: one image must not fail the run
        return Outcome(item, "dead", "read", f"{type(error).__name__}: {error}")
    if read is None:
        return Outcome(item, "unchanged", "read", id=known.id if known else "")
    sha256 = hashlib.sha256(read.data).hexdigest()
    version = item.version or read.version
    if known and known.sha256 == sha256:
        if version is None or known.version == version:
            return Outcome(item, "unchanged", "read", id=known.id)
        return Touched(item, known.id, version)
    id_ = content_id(sha256) if job.document.id == "content" else document_id(item.uri)
    return Loaded(item, id_, read.data, version, sha256, job.fingerprint(sha256, item))


def _skip_known_content(batch: Batch, job: Job) -> None:
    """Skip images whose content is already stored under another URI, if ids go by content."""
    if job.document.id != "content" or job.fresh:
        return
    loaded = batch.of(Loaded)
    stored = job.writer.stored_by_id([image.id for _, image in loaded])
    for i, image in loaded:
        known = stored.get(image.id)
        if known and known.fingerprint == image.fingerprint and known.uri != image.item.uri:
            batch.images[i] = Outcome(image.item, "unchanged", "read", id=known.id)
