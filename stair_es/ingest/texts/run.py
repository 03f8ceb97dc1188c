"""The run over the texts: each batch is checked, encoded and written, and every text gets its outcome."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stair_es._itertools import batched
from stair_es.cluster.documents.document import add_token_ids
from stair_es.errors import StairError
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.accounting.run_accounting import RunAccounting
from stair_es.ingest.sinks.base import RunCoverage
from stair_es.ingest.stages import describe_loss, describe_losses
from stair_es.ingest.state import IngestStage, Outcome, OutcomeKind, get_timestamp
from stair_es.ingest.texts.document import TextItem, build_text_document, read_text_item
from stair_es.sources.base import ListingFailure

if TYPE_CHECKING:
    from stair_es.cluster.documents.document import DocumentSettings
    from stair_es.ingest.sinks.cluster import ClusterSinkSession
    from stair_es.ingest.source_stream import SourceStream
    from stair_es.model.base import Encoder
    from stair_es.sources.base import SourceItem
    from stair_es.types import SparseVector

logger = logging.getLogger(__name__)

BATCH_TEXTS = 256
NO_KNOWN_TOKENS = "no token that the model knows"


@dataclass(frozen=True)
class _TextOutcome:
    """Outcome of all items with the same text."""

    kind: OutcomeKind
    stage: IngestStage
    reason: str = ""


_KNOWN = _TextOutcome("unchanged", "check")


@dataclass
class TextIngestRun:
    """One run. Outcomes are data; a failure of the whole run is an exception."""

    streams: SourceStream
    listed: Iterator[SourceItem | ListingFailure]
    """Items of the streams."""
    document: DocumentSettings
    text_tower: str
    session: ClusterSinkSession
    accounting: RunAccounting
    encoder: Encoder
    bulk_requests: int = 0
    bulk_retries: int = 0
    losses: Counter[str] = field(default_factory=Counter)
    """Number of texts by kind of loss; see `describe_loss`."""

    def run(self, progress: Callable[[RunAccounting], None]) -> IngestReport:
        """Ingest all texts.

        Raises:
            StairError: If the run failed as a whole.
        """
        start = time.perf_counter()
        if self.session.policy:
            logger.info("token policy: %s", self.session.policy.label)
        try:
            with self.session.load():
                for part in batched(self._accept_listed(), BATCH_TEXTS):
                    self.accounting.record_outcomes(
                        self._process_batch(
                            [read_text_item(item, self.encoder.model_id, self.document, self.text_tower) for item in part]
                        )
                    )
                    progress(self.accounting)
            self.accounting.listing_done = True
            progress(self.accounting)
        except StairError:
            logger.info(self.accounting.describe_stop("texts"))
            raise
        finally:
            self.accounting.dead_letters.close()
        self.accounting.close()
        for sentence in describe_losses(self.losses, "text"):
            logger.info(sentence)
        if self.streams.dropped_columns:
            logger.info(
                "columns left out, since their names can't be field names: %s", ", ".join(sorted(self.streams.dropped_columns))
            )
        return self._build_report(start)

    def _accept_listed(self) -> Iterator[SourceItem]:
        for found in self.listed:
            if not self.accounting.record_listed(found.uri, found.source):
                continue
            if isinstance(found, ListingFailure):
                self.accounting.record_outcomes([Outcome(found.to_item(), "dead", "list", found.reason)])
            else:
                yield found

    def _process_batch(self, texts: list[TextItem]) -> list[Outcome]:
        """Return one outcome per text. Of equal texts the first one is written; the others are `unchanged`, or failed like it."""
        first: dict[str, TextItem] = {}
        for text in texts:
            first.setdefault(text.id, text)
        fates = self._process_texts([text for text in first.values() if not self.accounting.manifest.has_document(text.id)])
        outcomes = []
        for text in texts:
            fate = fates.get(text.id, _KNOWN)
            if fate.kind == "written" and text is not first[text.id]:
                fate = _KNOWN
            outcomes.append(Outcome(text.item, fate.kind, fate.stage, fate.reason, "" if fate.kind == "dead" else text.id))
        return outcomes

    def _process_texts(self, texts: list[TextItem]) -> dict[str, _TextOutcome]:
        writer = self.session.writer
        with self._time_stage("check"):
            stored = {} if self.session.fresh else writer.find_by_id([text.id for text in texts])
        up_to_date = {text.id for text in texts if text.id in stored and stored[text.id].fingerprint == text.fingerprint}
        fates = dict.fromkeys(up_to_date, _KNOWN)
        wanted = [text for text in texts if text.id not in up_to_date]
        with self._time_stage("encode"):
            vectors = self.encoder.encode_texts([text.text for text in wanted]) if wanted else []
        documents, losses = {}, {}
        for text, vector in zip(wanted, vectors, strict=True):
            if len(vector):
                documents[text.id] = document = self._build_document(text, vector)
                losses[text.id] = describe_loss(vector, document, self.session.token_ids)
            else:
                fates[text.id] = _TextOutcome("dead", "encode", NO_KNOWN_TOKENS)
        if documents:
            with self._time_stage("write"):
                written = writer.write(list(documents.items()), self.session.writer.policy.max_chunk_bytes)
            self.bulk_requests += len(written.requests)
            self.bulk_retries += sum(sent.busy for sent in written.requests)
            for id_, reason in written.outcomes.items():
                fates[id_] = _TextOutcome("written", "write") if reason is None else _TextOutcome("dead", "write", reason)
                if reason is None and losses[id_]:
                    self.losses[losses[id_]] += 1
        return fates

    def _build_document(self, text: TextItem, vector: SparseVector) -> dict[str, Any]:
        made = build_text_document(
            text,
            vector,
            model_id=self.encoder.model_id,
            ingested_at=get_timestamp(),
            settings=self.document,
            policy=self.session.policy,
        )
        return add_token_ids(made, self.session.token_ids)

    @contextmanager
    def _time_stage(self, stage: IngestStage) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.accounting.stage_seconds[stage] += time.perf_counter() - start

    def _build_report(self, start: float) -> IngestReport:
        completion = self.session.complete(
            RunCoverage(sources=self.streams.fully_listed, get_status=self.accounting.manifest.get_status)
        )
        counts = self.accounting.get_counts()
        return IngestReport(
            **counts,
            removed=0,
            documents=self.accounting.manifest.count_documents(),
            seconds=time.perf_counter() - start,
            stage_seconds=dict(self.accounting.stage_seconds),
            encoder_idle=None,
            bulk_requests=self.bulk_requests,
            bulk_busy=self.bulk_retries,
            index=self.session.index,
            alias=self.session.alias,
            swapped=completion.swapped,
            unfinished=completion.not_swapped_reason,
            pruned=completion.deleted_indices,
            model=self.encoder.model_id,
            runner="local",
            dead_letters=str(self.accounting.dead_letters.path) if self.accounting.dead_letters.count else None,
            dead_reasons=self.accounting.get_failure_reasons(),
            words_index=completion.token_index,
        )
