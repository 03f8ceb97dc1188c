"""The run of an ingest, of images or of texts: it records the outcomes, logs progress, and makes the report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from typing import TypeAlias

from stair_es.config.settings import resolve_settings
from stair_es.errors import StairError
from stair_es.ingest.accounting.dead_letters import DeadLetters, default_dead_letters_path
from stair_es.ingest.accounting.manifest import Manifest
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.accounting.run_accounting import RunAccounting
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.sinks.base import RunCoverage, SinkResult, SinkSession
from stair_es.ingest.source_stream import SourceStream
from stair_es.ingest.state import Batch
from stair_es.sources.limits import join_names

logger = logging.getLogger(__name__)

RunProgressCallback: TypeAlias = Callable[[RunAccounting], None]


@contextmanager
def open_run_accounting(options: IngestOptions) -> Iterator[RunAccounting]:
    """Open the accounting of one run."""
    home = resolve_settings(options.model.settings).home
    dead_letters = DeadLetters(options.dead_letters or default_dead_letters_path(options.alias, home), options.alias, home)
    with Manifest(by_content=options.document.id == "content-hash") as manifest:
        yield RunAccounting(manifest, dead_letters)


@dataclass(kw_only=True)
class IngestRun:
    """One run. Outcomes are data; a failure of the whole run is an exception."""

    options: IngestOptions
    stream: SourceStream
    session: SinkSession
    accounting: RunAccounting
    model_id: str
    runner: str
    progress: RunProgressCallback
    on_batch: Callable[[Batch], None] = lambda _: None
    emptied: int = 0
    """Number of items that are stored without a token, because of the token policy."""

    def run(self, batches: Generator[Batch], remove_stale: Callable[[], int] = lambda: 0) -> IngestReport:
        """Run the stages and complete the sink.

        Args:
            batches: Runs the stages of all listed items, and yields them when they have their outcomes.
            remove_stale: Removes the documents whose item is gone, and returns their number.
        """
        start, session = time.perf_counter(), self.session
        kind = "new index" if session.is_empty else "index"
        logger.info("%s: %s for %s on %s", kind, session.index, self.options.alias, session.label)
        if policy := session.choose_policy(self.options.policy):
            logger.info("token policy: %s", policy.label)
        if self.stream.is_partial:  # letters of other images stay
            self.accounting.dead_letters.check_writable()
        else:
            self.accounting.dead_letters.prepare_file()
        try:
            with session.load():
                with closing(batches):
                    self._record_batches(batches)
                self.accounting.removed = remove_stale()
            if self.emptied:
                logger.info(self._describe_emptied())
        except StairError:
            logger.info(self.accounting.describe_stop(f"{self.options.noun}s"))
            raise
        finally:
            self.accounting.dead_letters.close()
        self.accounting.close()
        return self._complete(start)

    def _record_batches(self, batches: Generator[Batch]) -> None:
        busy_reported = listed_reported = False
        for batch in batches:
            self.accounting.record_batch(batch)
            self.emptied += sum(outcome.kind == "written" and bool(outcome.reason) for outcome in batch.get_outcomes())
            self.on_batch(batch)
            self.progress(self.accounting)
            if self.accounting.bulk_stats.retried and not busy_reported:
                busy_reported = True
                logger.warning("the cluster is busy or unreachable at times: requests are retried at a lower rate")
            if self.accounting.listing_done and not listed_reported:
                listed_reported = True
                self._report_listed()
        if not listed_reported:
            self.accounting.listing_done = True
            self.progress(self.accounting)
            self._report_listed()

    def _describe_emptied(self) -> str:
        ending, they_are, them = ("", "it is", "it") if self.emptied == 1 else ("s", "they are", "them")
        return (
            f"the token policy leaves {self.emptied:,} {self.options.noun}{ending} without tokens: {they_are} stored,"
            f" but no query finds {them}"
        )

    def _report_listed(self) -> None:
        ignored = sum(self.stream.ignored.values())
        others = f", {ignored:,} other files ignored ({self.stream.describe_ignored()})" if ignored else ""
        logger.info("%s %ss found%s", f"{self.accounting.listed:,}", self.options.noun, others)
        if left_out := self.stream.describe_left_out():
            logger.info(left_out)
        if self.stream.dropped_columns:
            names = join_names(sorted(self.stream.dropped_columns))
            advice = " To keep one, give its field another name: --field FIELD=COLUMN" if self.options.noun == "image" else ""
            logger.info("columns left out, since their names are reserved or can't be field names: %s.%s", names, advice)

    def _complete(self, start: float) -> IngestReport:
        accounting = self.accounting
        result = self.session.complete(RunCoverage(sources=self.stream.fully_listed, get_status=accounting.manifest.get_status))
        return IngestReport(
            **vars(accounting.get_totals()),
            **{field.name: getattr(result, field.name) for field in fields(SinkResult)},  # a sink may return more
            seconds=time.perf_counter() - start,
            index=self.session.index,
            alias=self.options.alias,
            model=self.model_id,
            runner=self.runner,
            remarks=self.stream.remarks,
        )
