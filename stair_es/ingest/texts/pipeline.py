"""Ingest texts as documents: captions in an index of their own, with the same mapping, life cycle and accounting as images.

The `_id` is derived from the text, so the same text twice is one document. Batches are processed one after another in this
process: nothing is decoded, and no text needs a worker.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from stair_es.cluster.bulk.writer import BulkPolicy
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.cluster.metadata.index_metadata import IndexSpec, check_alias_name
from stair_es.errors import IngestError
from stair_es.ingest.accounting.dead_letters import DeadLetters, default_dead_letters_path
from stair_es.ingest.accounting.manifest import Manifest
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.accounting.run_accounting import RunAccounting
from stair_es.ingest.options import find_model_tokens
from stair_es.ingest.sinks import cluster
from stair_es.ingest.sinks.base import SinkPlan
from stair_es.ingest.source_stream import SourceStream
from stair_es.ingest.state import get_timestamp
from stair_es.ingest.texts.run import TextIngestRun
from stair_es.model import registry

if TYPE_CHECKING:
    from stair_es.cluster.client.connection import Connection
    from stair_es.model.base import ModelSpec
    from stair_es.sources.base import Source
    from stair_es.types import Json

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TextIngestOptions:
    """Options of an ingest of texts."""

    alias: str
    model: ModelSpec
    """Its text tower is part of the settings: another one gives other vectors."""
    document: DocumentSettings = field(default_factory=lambda: DocumentSettings(thumbnail_px=0, id="content"))
    bulk: BulkPolicy = field(default_factory=BulkPolicy)
    sink_options: Mapping[str, str] = field(default_factory=dict)
    """Options of the sink `cluster`: `keep`, `swap`, `words_index`."""
    dead_letters: Path | None = None

    @property
    def settings(self) -> dict[str, Json]:
        """The settings that distinguish the documents, and mark the index as one of texts; see `identity.holds_of`."""
        return {**asdict(self.document), "texts": {"text_tower": self.model.text_tower}}


def run_text_ingest(
    sources: Sequence[Source],
    connection: Connection,
    options: TextIngestOptions,
    *,
    progress: Callable[[RunAccounting], None],
    on_start: Callable[[RunAccounting], None] = lambda _: None,
) -> IngestReport:
    """Ingest the texts of `sources` (see `open_text_source`) into the index behind `options.alias`.

    Args:
        sources: Sources of texts.
        connection: The cluster.
        options: Options of the ingest.
        progress: Called with the accounting after each batch.
        on_start: Called once with the accounting at the start, so that the caller has the counts of a failed run.

    Raises:
        IndexMismatch: If the alias points to an index of images.
        StairError: If the run failed as a whole. What was written stays, and the next run resumes from there.
    """
    check_alias_name(options.alias)
    with ExitStack() as stack:
        letters = DeadLetters(options.dead_letters or default_dead_letters_path(options.alias), options.alias)
        kept = RunAccounting(stack.enter_context(Manifest()), letters)
        on_start(kept)
        letters.check_writable()
        streams = SourceStream(sources)
        found = iter(streams)
        first = next(found, None)  # before an index is created: a wrong column is found here
        if first is None:
            raise IngestError(f"no texts in {', '.join(streams.source_uris)}", "Name a file with one text per line, or a table.")
        session = cluster.KIND.open(_build_sink_plan(options, connection))
        logger.info("%s: %s for %s on %s", "new index" if session.fresh else "index", session.index, options.alias, session.label)
        letters.prepare_file()
        run = TextIngestRun(
            streams=streams,
            listed=chain([first], found),
            document=options.document,
            text_tower=options.model.text_tower,
            session=session,
            accounting=kept,
            encoder=registry.load_encoder(options.model),
        )
        return run.run(progress)


def _build_sink_plan(options: TextIngestOptions, connection: Connection) -> SinkPlan:
    """Build the plan of a run that starts now."""
    card = registry.get_indexable_card(options.model.name, options.model.fit)
    known = find_model_tokens(options.model, options.document)
    return SinkPlan(
        alias=options.alias,
        identity=IndexSpec(
            model_name=registry.make_portable_name(options.model.name),
            model_id=card.model_id,
            fit=card.image_spec.fit,
            settings=options.settings,
            tokens=known.tokens,
        ),
        document=options.document,
        bulk=options.bulk,
        connection=connection,
        options=options.sink_options,
        largest_weight=known.largest_weight,
        started_at=get_timestamp(),
    )
