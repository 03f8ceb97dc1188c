"""The run over the texts: each batch is checked, encoded and written, and every text gets its outcome."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stair_es.cluster.documents import with_token_ids
from stair_es.errors import StairError
from stair_es.ingest.batch import Kind, Outcome, Stage, now
from stair_es.ingest.parts import in_parts
from stair_es.ingest.report import Report
from stair_es.ingest.run_accounting import Books
from stair_es.ingest.sink import Coverage, Say
from stair_es.ingest.stages import describe_loss, describe_losses
from stair_es.ingest.texts_document import Text, text_document, text_of
from stair_es.sources.item import Unlisted

if TYPE_CHECKING:
    from stair_es.cluster.documents import DocumentSettings
    from stair_es.ingest.cluster_sink import ClusterSession
    from stair_es.ingest.streams import Streams
    from stair_es.model.encoder import Encoder
    from stair_es.sources.item import Item
    from stair_es.types import SparseVector

BATCH_TEXTS = 256
NO_WORDS = "no token that the model knows"


@dataclass(frozen=True)
class _Fate:
    """Outcome of all items with the same text."""

    kind: Kind
    stage: Stage
    reason: str = ""


_KNOWN = _Fate("unchanged", "check")


@dataclass
class TextRun:
    """One run. Outcomes are data; a failure of the whole run is an exception."""

    streams: Streams
    found: Iterator[Item | Unlisted]
    """Items of the streams."""
    document: DocumentSettings
    text_tower: str
    session: ClusterSession
    books: Books
    encoder: Encoder
    requests: int = 0
    busy: int = 0
    losses: Counter[str] = field(default_factory=Counter)
    """Number of texts by kind of loss; see `describe_loss`."""

    def through(self, say: Say, progress: Callable[[Books], None]) -> Report:
        """Ingest all texts.

        Raises:
            StairError: If the run failed as a whole.
        """
        start = time.perf_counter()
        if self.session.policy:
            say(f"token policy: {self.session.policy.label}")
        try:
            with self.session.load():
                for part in in_parts(self._admitted(), BATCH_TEXTS):
                    self.books.enter_outcomes(
                        self._outcomes([text_of(item, self.encoder.model_id, self.document, self.text_tower) for item in part])
                    )
                    progress(self.books)
            self.books.listing_done = True
            progress(self.books)
        except StairError:
            say(self.books.describe_stop("texts"))
            raise
        finally:
            self.books.dead_letters.close()
        self.books.close()
        for sentence in describe_losses(self.losses, "text"):
            say(sentence)
        if self.streams.dropped:
            say(f"columns left out, since their names can't be field names: {', '.join(sorted(self.streams.dropped))}")
        return self._report(start)

    def _admitted(self) -> Iterator[Item]:
        for found in self.found:
            if not self.books.list(found.uri, found.source):
                continue
            if isinstance(found, Unlisted):
                self.books.enter_outcomes([Outcome(found.as_item(), "dead", "list", found.reason)])
            else:
                yield found

    def _outcomes(self, texts: list[Text]) -> list[Outcome]:
        """Return one outcome per text. Of equal texts the first one is written; the others are `unchanged`, or failed like it."""
        first: dict[str, Text] = {}
        for text in texts:
            first.setdefault(text.id, text)
        fates = self._fates([text for text in first.values() if not self.books.manifest.has_document(text.id)])
        outcomes = []
        for text in texts:
            fate = fates.get(text.id, _KNOWN)
            if fate.kind == "written" and text is not first[text.id]:
                fate = _KNOWN
            outcomes.append(Outcome(text.item, fate.kind, fate.stage, fate.reason, "" if fate.kind == "dead" else text.id))
        return outcomes

    def _fates(self, texts: list[Text]) -> dict[str, _Fate]:
        writer = self.session.writer
        with self._timed("check"):
            stored = {} if self.session.fresh else writer.stored_by_id([text.id for text in texts])
        up_to_date = {text.id for text in texts if text.id in stored and stored[text.id].fingerprint == text.fingerprint}
        fates = dict.fromkeys(up_to_date, _KNOWN)
        wanted = [text for text in texts if text.id not in up_to_date]
        with self._timed("encode"):
            vectors = self.encoder.encode_texts([text.text for text in wanted]) if wanted else []
        documents, losses = {}, {}
        for text, vector in zip(wanted, vectors, strict=True):
            if len(vector):
                documents[text.id] = document = self._document(text, vector)
                losses[text.id] = describe_loss(vector, document, self.session.token_ids)
            else:
                fates[text.id] = _Fate("dead", "encode", NO_WORDS)
        if documents:
            with self._timed("write"):
                written = writer.write(list(documents.items()), self.session.writer.policy.max_chunk_bytes)
            self.requests += len(written.sent)
            self.busy += sum(sent.busy for sent in written.sent)
            for id_, reason in written.outcomes.items():
                fates[id_] = _Fate("written", "write") if reason is None else _Fate("dead", "write", reason)
                if reason is None and losses[id_]:
                    self.losses[losses[id_]] += 1
        return fates

    def _document(self, text: Text, vector: SparseVector) -> dict[str, Any]:
        made = text_document(
            text,
            vector,
            model_id=self.encoder.model_id,
            ingested_at=now(),
            settings=self.document,
            policy=self.session.policy,
        )
        return with_token_ids(made, self.session.token_ids)

    @contextmanager
    def _timed(self, stage: Stage) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.books.stage_seconds[stage] += time.perf_counter() - start

    def _report(self, start: float) -> Report:
        completion = self.session.complete(Coverage(sources=self.streams.whole, fate=self.books.manifest.fate))
        counts = self.books.counts()
        return Report(
            **counts,
            removed=0,
            documents=self.books.manifest.documents(),
            seconds=time.perf_counter() - start,
            stage_seconds=dict(self.books.stage_seconds),
            encoder_idle=None,
            bulk_requests=self.requests,
            bulk_busy=self.busy,
            index=self.session.index,
            alias=self.session.alias,
            swapped=completion.swapped,
            unfinished=completion.unfinished,
            pruned=completion.pruned,
            model=self.encoder.model_id,
            runner="local",
            dead_letters=str(self.books.dead_letters.path) if self.books.dead_letters.count else None,
            dead_reasons=self.books.dead_reasons(),
            words_index=completion.words_index,
        )
