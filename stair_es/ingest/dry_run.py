"""Dry run: what an ingest would do, without writing and without reading any image bytes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from stair_es._itertools import batched
from stair_es.cluster.client.connection import Connection
from stair_es.ingest.accounting.manifest import Manifest
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import build_sink_plan, build_worker_config, load_sink_kind, resolve_ingest_model
from stair_es.ingest.resync import find_stale_documents
from stair_es.ingest.sinks.base import ForgottenIds, TokenIndexPlan, list_image_keys
from stair_es.ingest.source_stream import SourceStream
from stair_es.ingest.stages import WorkerConfig, check_batch
from stair_es.ingest.state import Batch, Outcome, Pending
from stair_es.sources.base import Source, SourceItem

logger = logging.getLogger(__name__)

_BATCH_SIZE = 256
Verdict: TypeAlias = Literal["new", "changed", "unchanged", "unknown"]


@dataclass(frozen=True, kw_only=True)
class DryRunReport:
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
    forgotten: int
    """Images on the list of forgotten images, by their URIs. Those that are on it by their content only are found by reading."""
    stale: int
    """Documents that `--resync` would remove; 0 without it. With ids by content only reading finds all, and moved images."""
    stale_uris: tuple[str, ...]
    index: str | None
    """The index to write into; None for a new one."""
    token_index: TokenIndexPlan | None = None
    remarks: tuple[str, ...] = ()
    """See `IngestReport`."""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON for `--json`."""
        return {"dry_run": True, **asdict(self)}


def simulate_ingest(sources: Sequence[Source], connection: Connection | None, options: IngestOptions) -> DryRunReport:
    """Simulate an ingest with the same arguments."""
    kind, model = load_sink_kind(options), resolve_ingest_model(options)
    plan = build_sink_plan(options, model, connection)
    session = kind.open_readonly(plan)
    config = build_worker_config(options, model, session) if session else None
    forgotten = kind.find_forgotten(plan)
    counts, stream = Counter[str](), SourceStream(sources, options.untyped_columns)
    with Manifest() as manifest:
        for part in batched(stream, _BATCH_SIZE):
            new = manifest.add_images(part)
            manifest.record_outcomes([(found.uri, found.source, "") for found in new])
            items = [found for found in new if isinstance(found, SourceItem)]
            counts["unlisted"] += len(new) - len(items)
            items = _leave_out_forgotten(items, forgotten, counts)
            counts.update(_classify_images(items, config))
        found = find_stale_documents(session, manifest, stream, by_content=False) if session and options.resync else ()
        removed = tuple(stale.document.uri for stale in found if stale.found_at is None)
        if left_out := stream.describe_left_out():
            logger.info(left_out)
        return DryRunReport(
            seen=len(manifest),
            new=counts["new"],
            changed=counts["changed"],
            unchanged=counts["unchanged"],
            unknown=counts["unknown"],
            unlisted=counts["unlisted"],
            forgotten=counts["forgotten"],
            stale=len(removed),
            stale_uris=removed,
            index=session.index if session else None,
            token_index=kind.plan_token_index(plan),
            remarks=stream.remarks,
        )


def _leave_out_forgotten(items: list[SourceItem], images: ForgottenIds | None, counts: Counter[str]) -> list[SourceItem]:
    """Return the items without those that are listed, which are counted."""
    if images is None:
        return items
    keys = [list_image_keys(item.uri) for item in items]
    listed = images.find_ids(id_ for each in keys for id_ in each)
    kept = [item for item, each in zip(items, keys, strict=True) if listed.isdisjoint(each)]
    counts["forgotten"] += len(items) - len(kept)
    return kept


def _classify_images(items: list[SourceItem], config: WorkerConfig | None) -> list[Verdict]:
    if config is None or config.is_empty:
        return ["new"] * len(items)
    return [
        _classify_image(state, config)
        for state in check_batch(config, Batch(list(items))).images
        if isinstance(state, (Outcome, Pending))
    ]


def _classify_image(state: Outcome | Pending, config: WorkerConfig) -> Verdict:
    if isinstance(state, Outcome):
        return "unchanged"
    if state.stored is None:
        return "unknown" if config.document.id == "content-hash" else "new"  # another image may have the same bytes
    if not config.is_up_to_date(state.stored, state.item):
        return "changed"
    return "unknown" if state.item.version is None or state.stored.version is None else "changed"
