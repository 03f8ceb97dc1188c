"""Accounting, messages and reports of a run, with a fake sink."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.errors import expect_error
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
    """A sink session that records its calls."""

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
    """A result with a field that the report lacks."""

    shelves: int = 1


class RecordedRun:
    """A run over given batches, with its messages."""

    def __init__(self, accounting: RunAccounting, options: IngestOptions) -> None:
        self.messages: list[str] = []
        self.session, self.accounting = RecordingSession(), accounting
        self.run = IngestRun(
            options=options,
            stream=SourceStream([]),
            session=self.session,
            accounting=accounting,
            model_id="m-1",
            runner="local",
            progress=lambda _: None,
        )

    def yield_batches(
        self, *batches: list[Outcome], failures: Sequence[ListingFailure] = (), error: Exception | None = None
    ) -> Generator[Batch]:
        """Accept the failures, yield one batch after the other, then raise the error."""
        try:
            assert self.accounting.accept_listed(failures) == []
            for outcomes in batches:
                items = [outcome.item for outcome in outcomes]
                assert self.accounting.accept_listed(items) == items
                yield Batch(list(outcomes), {"write": 1.0})
            if error:
                raise error
        finally:
            self.session.events.append("stages closed")


@pytest.fixture
def recorded_run(tmp_path: Path) -> Iterator[RecordedRun]:
    options = TextIngestOptions(alias="shelf", model=ModelSpec(name="m"), dead_letters=tmp_path / "failed.jsonl")
    with open_run_accounting(options) as accounting:
        run = RecordedRun(accounting, options)
        with forward_messages(run.messages.append):
            yield run


def test_report_counts_the_outcomes_of_all_batches(recorded_run: RecordedRun) -> None:
    written, lossy = Outcome(A, "written", "write", id="1"), Outcome(B, "written", "write", EMPTIED_BY_POLICY, id="2")
    failed = Outcome(C, "failed", "encode", "why")
    report = recorded_run.run.run(recorded_run.yield_batches([written, lossy], [failed]), lambda: 7)
    assert (report.seen, report.written, report.failed, report.removed, report.documents) == (3, 2, 1, 7, 2)
    assert (report.stage_seconds, report.model, report.runner, report.swapped) == ({"write": 2.0}, "m-1", "local", True)
    assert (report.alias, report.index) == ("shelf", "shelf-1")
    created, listed, emptied = recorded_run.messages[:3]
    assert all(fact in created for fact in ("shelf-1", "shelf", "a shelf"))
    assert (listed.split()[:2], "1 text " in emptied) == (["3", "texts"], True)
    assert recorded_run.session.events == ["load", "stages closed", "loaded", "complete"]


def test_listing_failures_are_final(recorded_run: RecordedRun) -> None:
    failure = ListingFailure("file:///d", "file:///", "forbidden")
    report = recorded_run.run.run(recorded_run.yield_batches(failures=[failure, failure]))
    assert (report.seen, report.failed) == (1, 1)


def test_counts_of_a_failed_run_are_kept(recorded_run: RecordedRun) -> None:
    batches = recorded_run.yield_batches([Outcome(A, "written", "write", id="1")], error=IngestError("broken", code="ray-failed"))
    with expect_error("ray-failed"):
        recorded_run.run.run(batches)
    assert recorded_run.accounting.get_counts() == {"seen": 1, "written": 1, "unchanged": 0, "failed": 0, "forgotten": 0}
    assert recorded_run.messages[-1] == recorded_run.accounting.describe_stop("texts")
    assert recorded_run.session.events == ["load", "stages closed", "loaded"]


def test_an_interrupted_run_ends_its_stages_before_the_sink(recorded_run: RecordedRun) -> None:
    def interrupt(_: RunAccounting) -> None:
        raise KeyboardInterrupt

    recorded_run.run.progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        recorded_run.run.run(recorded_run.yield_batches([Outcome(A, "written", "write", id="1")], []))
    assert recorded_run.session.events == ["load", "stages closed", "loaded"]
