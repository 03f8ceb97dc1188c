"""Documents whose image is gone: found by comparing the index with what the run came across, and removed."""

from __future__ import annotations

from stair_es.ingest.manifest import Manifest
from stair_es.ingest.parts import in_parts
from stair_es.ingest.sink import Say, Session
from stair_es.ingest.streams import Streams
from stair_es.sources.opened import STDIN

_PART = 500


def gone(session: Session, manifest: Manifest, streams: Streams, say: Say) -> tuple[list[str], list[tuple[str, str]]]:
    """The ids to remove, and `(_id, uri)` of documents that another URI of the same content keeps alive.

    Only sources that were listed to their end count, and none that is empty now: an unmounted disk looks the same. Stdin is
    another stream each time.
    """
    for uri in streams.names:
        if uri == STDIN:
            say("--resync: what isn't on stdin this time isn't gone, so nothing of it is removed")
        elif uri not in streams.complete:
            say(f"--resync: {uri} couldn't be listed to its end, so nothing of it is removed")
        elif uri in streams.empty:
            say(f"--resync: {uri} has no image any more, as if it weren't mounted, so nothing of it is removed")
    sources = [uri for uri in streams.complete if uri not in streams.empty and uri != STDIN]
    remove, moved = list[str](), list[tuple[str, str]]()
    for entry in session.entries(sources) if sources else ():
        if entry.uri in manifest:
            continue
        if manifest.has_document(entry.id):
            moved.append((entry.id, manifest.uri_of(entry.id) or entry.uri))
        else:
            remove.append(entry.id)
    return remove, moved


def remove_gone(session: Session, manifest: Manifest, streams: Streams, say: Say) -> int:
    """Remove what `gone` names; how many documents that were.

    Raises:
        StairError: The sink can't be written to.
    """
    remove, moved = gone(session, manifest, streams, say)
    for part in in_parts(remove, _PART):
        session.writer.delete(part)
    for pairs in in_parts(moved, _PART):
        session.writer.update([(id_, {"uri": uri}) for id_, uri in pairs])
    return len(remove)
