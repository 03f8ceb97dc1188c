"""Ingest texts as documents: captions in a separate index, with the same mapping, life cycle and accounting as images.

The `_id` is derived from the text, so the same text twice is one document. Batches are processed one after another in this
process: nothing is decoded, and no text needs a worker.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from stair_es.cluster.documents.document import DocumentSettings
from stair_es.cluster.metadata.index_metadata import check_alias_name
from stair_es.errors import IngestError
from stair_es.ingest.options import BaseIngestOptions
from stair_es.ingest.plan import build_sink_plan, load_sink_kind
from stair_es.ingest.run import IngestRun, RunProgressCallback, open_run_accounting
from stair_es.ingest.source_stream import SourceStream
from stair_es.ingest.texts.stages import TextStages
from stair_es.model import registry

if TYPE_CHECKING:
    from stair_es.cluster.client.connection import Connection
    from stair_es.ingest.accounting.report import IngestReport
    from stair_es.ingest.accounting.run_accounting import RunAccounting
    from stair_es.sources.base import ListingFailure, Source, SourceItem
    from stair_es.types import Json


@dataclass(frozen=True, kw_only=True)
class TextIngestOptions(BaseIngestOptions):
    """Options of an ingest of texts. The text tower of the model is part of the settings: another one gives other vectors."""

    document: DocumentSettings = field(default_factory=lambda: DocumentSettings(thumbnail_px=0, id="content-hash"))

    @property
    def settings(self) -> dict[str, Json]:
        """The settings that distinguish the documents, and mark the index as one of texts; see `get_content_type`."""
        return {**asdict(self.document), "texts": {"text_tower": self.model.text_tower}}


def run_text_ingest(
    sources: Sequence[Source],
    connection: Connection,
    options: TextIngestOptions,
    *,
    progress: RunProgressCallback,
    accounting: RunAccounting | None = None,
) -> IngestReport:
    """Ingest the texts of `sources` (see `open_text_source`) into the index that `options.alias` points to.

    The arguments are those of `run_ingest`.

    Raises:
        IndexMismatch: If the alias points to an index of images.
        StairError: If the run failed as a whole. What was written stays, and the next run resumes from there.
    """
    check_alias_name(options.alias)
    with ExitStack() as stack:
        accounting = accounting or stack.enter_context(open_run_accounting(options))
        accounting.dead_letters.check_writable()
        stream = SourceStream(sources)
        listed = _check_not_empty(stream)
        session = load_sink_kind(options).open(build_sink_plan(options, connection))
        encoder = registry.load_encoder(options.model)
        stages = TextStages(
            writer=session.writer,
            is_empty=session.is_empty,
            encoder=encoder,
            options=options,
            policy=session.choose_policy(options.policy),
            accounting=accounting,
        )
        run = IngestRun(
            noun="text",
            options=options,
            stream=stream,
            session=session,
            accounting=accounting,
            model_id=encoder.model_id,
            runner="local",
            progress=progress,
        )
        return run.run(stages.run_batches(listed))


def _check_not_empty(stream: SourceStream) -> Iterator[SourceItem | ListingFailure]:
    """Return the listed texts. Raise IngestError if there are none, before an index is created: a wrong column is found here."""
    found = iter(stream)
    first = next(found, None)
    if first is None:
        raise IngestError(f"no texts in {', '.join(stream.source_uris)}", "Specify a file with one text per line, or a table.")
    return chain([first], found)
