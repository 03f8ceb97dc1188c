"""The stages of texts: each batch is checked, encoded and written, and every text gets its outcome."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stair_es._itertools import batched
from stair_es.ingest.stages import describe_loss
from stair_es.ingest.state import Batch, Outcome, get_timestamp
from stair_es.ingest.texts.document import TextItem, build_text_document, read_text_item

if TYPE_CHECKING:
    from stair_es.ingest.accounting.run_accounting import RunAccounting
    from stair_es.ingest.options import BaseIngestOptions
    from stair_es.ingest.sinks.base import SinkWriter
    from stair_es.model.base import Encoder
    from stair_es.sources.base import ListingFailure, SourceItem
    from stair_es.token_policy import TokenPolicy
    from stair_es.types import SparseVector

BATCH_TEXTS = 256
NO_KNOWN_TOKENS = "no token that the model knows"


@dataclass(frozen=True, kw_only=True)
class TextStages:
    """The stages of the texts of one run."""

    writer: SinkWriter
    is_empty: bool
    """Whether the sink is empty: then no document can be up to date."""
    encoder: Encoder
    options: BaseIngestOptions
    policy: TokenPolicy | None
    accounting: RunAccounting

    def run_batches(self, listed: Iterable[SourceItem | ListingFailure]) -> Generator[Batch]:
        """Run the stages of all listed texts, batch by batch.

        Raises:
            StairError: If a stage failed as a whole.
        """
        accepted = (item for found in listed if (item := self.accounting.accept_listed(found)) is not None)
        for part in batched(accepted, BATCH_TEXTS):
            yield self._process_batch(part)

    def _process_batch(self, items: list[SourceItem]) -> Batch:
        """Process a batch. Of equal texts the first one is written; the others are `unchanged`, or failed like it."""
        batch = Batch(list(items))
        settings, tower = self.options.document, self.options.model.text_tower
        texts = [read_text_item(item, self.encoder.model_id, settings, tower) for item in items]
        first: dict[str, TextItem] = {}
        for text in texts:
            first.setdefault(text.id, text)
        new = [text for text in first.values() if not self.accounting.manifest.has_document(text.id)]
        outcomes = self._process_texts(new, batch)
        for i, text in enumerate(texts):
            outcome = outcomes.get(text.id)
            if outcome is None or (outcome.kind == "written" and text is not first[text.id]):
                outcome = Outcome(text.item, "unchanged", "check", id=text.id)
            batch.images[i] = replace(outcome, item=text.item)
        return batch

    def _process_texts(self, texts: list[TextItem], batch: Batch) -> dict[str, Outcome]:
        """Process different texts; return the outcomes of those that are not up to date."""
        with batch.time_stage("check"):
            stored = {} if self.is_empty else self.writer.find_by_id([text.id for text in texts])
        changed = [text for text in texts if text.id not in stored or stored[text.id].fingerprint != text.fingerprint]
        with batch.time_stage("encode"):
            vectors = self.encoder.encode_texts([text.text for text in changed]) if changed else []
        encoded = list(zip(changed, vectors, strict=True))
        encodable = [(text, vector) for text, vector in encoded if len(vector)]
        outcomes = {
            text.id: Outcome(text.item, "failed", "encode", NO_KNOWN_TOKENS) for text, vector in encoded if not len(vector)
        }
        if encodable:
            with batch.time_stage("write"):
                outcomes |= self._write_texts(encodable)
        return outcomes

    def _write_texts(self, texts: list[tuple[TextItem, SparseVector]]) -> dict[str, Outcome]:
        documents = {text.id: self._build_document(text, vector) for text, vector in texts}
        written = self.writer.write(list(documents.items()), self.options.bulk.max_chunk_bytes)
        for request in written.requests:
            self.accounting.bulk_stats.record_request(request)
        outcomes = {}
        for text, vector in texts:
            if (reason := written.outcomes[text.id]) is None:
                loss = describe_loss(vector, documents[text.id])
                outcomes[text.id] = Outcome(text.item, "written", "write", loss, id=text.id)
            else:
                outcomes[text.id] = Outcome(text.item, "failed", "write", reason)
        return outcomes

    def _build_document(self, text: TextItem, vector: SparseVector) -> dict[str, Any]:
        return build_text_document(
            text,
            vector,
            model_id=self.encoder.model_id,
            ingested_at=get_timestamp(),
            settings=self.options.document,
            policy=self.policy,
        )
