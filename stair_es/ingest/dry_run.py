"""Dry run: what an ingest would do, without writing and without reading any image bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from stair_es.cluster.connect import Connection
from stair_es.ingest.batch import Batch, Outcome, Wanted, now
from stair_es.ingest.manifest import Manifest
from stair_es.ingest.options import IngestOptions, job_of, plan, sink_kind
from stair_es.ingest.parts import in_parts
from stair_es.ingest.resync import gone
from stair_es.ingest.sink import HasWords, Say, WordsPlan
from stair_es.ingest.stages import Job, check_batch
from stair_es.ingest.streams import Streams
from stair_es.sources.item import Item, Source

_PART = 256
Verdict: TypeAlias = Literal["new", "changed", "unchanged", "unknown"]


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """The images of the sources, by what a run would do with them."""

    seen: int
    new: int
    changed: int
    """The store has another version of the bytes, or the document was made with other settings or fields."""
    unchanged: int
    unknown: int
    """A run would read the bytes to decide: the store has no versions, or ids go by content and the URI is new."""
    unlisted: int
    """Locations that can't be listed."""
    gone: int
    """Documents that `--resync` would remove; 0 without it. With ids by content only reading finds all, and moved images."""
    gone_uris: tuple[str, ...]
    """The images of those documents."""
    index: str | None
    """The index to write into; None for a new one."""
    words_index: WordsPlan | None = None
    """Changes to the token index, if there are any."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON for `--json`."""
        return {"dry_run": True, **asdict(self)}


def dry_run(sources: Sequence[Source], connection: Connection | None, options: IngestOptions, *, say: Say) -> DryRun:
    """Simulate an ingest with the same arguments.

    Raises:
        StairError: If a source or the sink can't be used.
    """
    kind, asked = sink_kind(options), plan(options, connection, now())
    session = kind.peek(asked)
    job = job_of(options, session) if session else None
    counts, streams = Counter[str](), Streams(sources)
    with Manifest() as manifest:
        for part in in_parts(streams, _PART):
            fresh = [found for found in part if manifest.add(found.uri, found.source)]
            items = [found for found in fresh if isinstance(found, Item)]
            counts["unlisted"] += len(fresh) - len(items)
            counts.update(_verdicts(items, job))
        found = gone(session, manifest, streams, say, by_content=False) if session and options.resync else ()
        removed = tuple(one.uri for one in found if one.found_at is None)
        if left_out := streams.describe_left_out():
            say(left_out)
        return DryRun(
            seen=len(manifest),
            new=counts["new"],
            changed=counts["changed"],
            unchanged=counts["unchanged"],
            unknown=counts["unknown"],
            unlisted=counts["unlisted"],
            gone=len(removed),
            gone_uris=removed,
            index=session.index if session else None,
            words_index=kind.words(asked) if isinstance(kind, HasWords) else None,
        )


def _verdicts(items: list[Item], job: Job | None) -> list[Verdict]:
    if job is None or job.fresh:
        return ["new"] * len(items)
    return [_verdict(state, job) for state in check_batch(Batch(list(items)), job).images if isinstance(state, (Outcome, Wanted))]


def _verdict(state: Outcome | Wanted, job: Job) -> Verdict:
    if isinstance(state, Outcome):
        return "unchanged"
    if state.stored is None:
        return "unknown" if job.document.id == "content" else "new"  # another image may have the same bytes
    if not job.is_up_to_date(state.stored, state.item):
        return "changed"
    return "unknown" if state.item.version is None or state.stored.version is None else "changed"
