"""Records, logs and reports of a run, with a fake sink."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.messages import forward_messages

from stair_es.errors import IngestError
from stair_es.ingest.accounting.run_accounting import RunAccounting
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.run import IngestRun, open_run_accounting
from stair_es.ingest.sinks.base import RunCoverage, SinkResult, SinkSession, SinkWriter
from stair_es.ingest.source_stream import SourceStream
from stair_es.ingest.stages import EMPTIED_BY_POLICY
from stair_es.ingest.state import Batch, Outcome
from stair_es.ingest.texts import TextIngestOptions
from stair_es.model.base import ModelSpec
from stair_es.sources.base import ListingFailure, SourceItem
from stair_es.sources.io.local_file import FileLocator
from stair_es.store import BulkResult, IndexedDocument

A, B, C = (SourceItem(f"file:///{name}", "file:///", FileLocator(f"file:///{name}"), "1-2", {}) for name in "abc")


class RecordingSession(SinkSession):
    """A sink session that notes what is asked of it."""

    writer: SinkWriter
    index, is_empty, label = "shelf-1", True, "a shelf"

    def __init__(self) -> None:
        self.events: list[str] = []

    @contextmanager
    def load(self) -> Iterator[None]:
        self.events.append("load")
        try:
            yield
        finally:
            self.events.append("loaded")

    def iterate_documents(self, sources: Sequence[str]) -> Iterator[IndexedDocument]:
        yield from ()

    def delete_documents(self, documents: Sequence[IndexedDocument]) -> BulkResult:
        raise NotImplementedError

    def complete(self, coverage: RunCoverage) -> SinkResult:
        self.events.append("complete")
        return ShelfResult(swapped=True)


@dataclass(frozen=True, kw_only=True)
class ShelfResult(SinkResult):
    """A result of which the report knows only a part."""

    shelves: int = 1


class RecordedRun:
    """A run over batches that are given, with everything that it logs."""

    def __init__(self, accounting: RunAccounting, options: IngestOptions) -> None:
        self.messages: list[str] = []
        self.shelf, self.accounting = RecordingSession(), accounting
        self.run = IngestRun(
            options=options,
            stream=SourceStream([]),
            session=self.shelf,
            accounting=accounting,
            model_id="m-1",
            runner="local",
            progress=lambda _: None,
        )

    def yield_batches(
        self, *batches: list[Outcome], failures: Sequence[ListingFailure] = (), error: Exception | None = None
    ) -> Generator[Batch]:
        """Accept the holes, yield one batch after the other, then raise the error."""
        try:
            assert not any(map(self.accounting.accept_listed, failures))
            for outcomes in batches:
                for outcome in outcomes:
                    assert self.accounting.accept_listed(outcome.item) is outcome.item
                yield Batch(list(outcomes), {"write": 1.0})
            if error:
                raise error
        finally:
            self.shelf.events.append("stages closed")


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[RecordedRun]:
    options = TextIngestOptions(alias="shelf", model=ModelSpec(name="m"), dead_letters=tmp_path / "failed.jsonl")
    with open_run_accounting(options) as accounting:
        run = RecordedRun(accounting, options)
        with forward_messages(run.messages.append):
            yield run


def test_the_outcomes_of_all_batches_are_in_the_report(recorded: RecordedRun) -> None:
    written, lossy = Outcome(A, "written", "write", id="1"), Outcome(B, "written", "write", EMPTIED_BY_POLICY, id="2")
    failed = Outcome(C, "failed", "encode", "why")
    report = recorded.run.run(recorded.yield_batches([written, lossy], [failed]), lambda: 7)
    assert (report.seen, report.written, report.failed, report.removed, report.documents) == (3, 2, 1, 7, 2)
    assert (report.stage_seconds, report.model, report.runner, report.swapped) == ({"write": 2.0}, "m-1", "local", True)
    assert (report.alias, report.index) == ("shelf", "shelf-1")
    assert recorded.messages[:2] == ["new index: shelf-1 for shelf on a shelf", "3 texts found"]
    assert recorded.messages[2].startswith("the token policy leaves 1 text without tokens:")
    assert recorded.shelf.events == ["load", "stages closed", "loaded", "complete"]


def test_listing_failures_are_final(recorded: RecordedRun) -> None:
    failure = ListingFailure("file:///d", "file:///", "forbidden")
    report = recorded.run.run(recorded.yield_batches(failures=[failure, failure]))
    assert (report.seen, report.failed) == (1, 1)


def test_the_counts_of_a_failed_run_are_in_the_accounting_of_the_caller(recorded: RecordedRun) -> None:
    batches = recorded.yield_batches([Outcome(A, "written", "write", id="1")], error=IngestError("broken", ""))
    with pytest.raises(IngestError, match="broken"):
        recorded.run.run(batches)
    assert recorded.accounting.get_counts() == {"seen": 1, "written": 1, "unchanged": 0, "failed": 0}
    assert recorded.messages[-1] == "the run stopped with 1 of 1 texts stored; the next run resumes from there"
    assert recorded.shelf.events == ["load", "stages closed", "loaded"]


def test_an_interrupted_run_ends_its_stages_before_the_sink(recorded: RecordedRun) -> None:
    def interrupt(_: RunAccounting) -> None:
        raise KeyboardInterrupt

    recorded.run.progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        recorded.run.run(recorded.yield_batches([Outcome(A, "written", "write", id="1")], []))
    assert recorded.shelf.events == ["load", "stages closed", "loaded"]
