"""Telemetry of an ingest: metrics in a file or at a port, and traces, each only if requested."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from stair_es.errors import SOME_DEAD, StairError, UsageError
from stair_es.extras import need
from stair_es.telemetry.tracing import tracing

if TYPE_CHECKING:
    from stair_es.ingest.batch import Batch
    from stair_es.ingest.report import Report
    from stair_es.ingest.run_accounting import Books
    from stair_es.telemetry.run_metrics import Run, Textfile
    from stair_es.telemetry.run_spans import RunSpans


@dataclass(frozen=True, kw_only=True)
class Outlets:
    """Where the metrics of a run go."""

    file: Path | None = None
    """Ends in `.prom`, as node_exporter requires."""
    port: int | None = None
    """0 for any free port."""
    host: str = "127.0.0.1"

    def __bool__(self) -> bool:
        return self.file is not None or self.port is not None


@dataclass
class Observer:
    """Receives the events of an ingest."""

    metrics: Run | None = None
    file: Textfile | None = None
    spans: RunSpans | None = None
    report: Report | None = field(default=None, init=False)

    def books(self, books: Books) -> None:
        """Record the start of the run."""
        if self.metrics:
            self.metrics.books = books

    def through(self, batch: Batch) -> None:
        """Record a finished batch that is already in the accounting."""
        if self.spans:
            self.spans.through(batch)
        if self.file:
            self.file.now_and_then()

    def done(self, report: Report) -> None:
        """Record the report of a complete run."""
        self.report = report
        if self.spans:
            self.spans.done(report)


@contextmanager
def observing(index: str, outlets: Outlets, say: Callable[[str], None], *, allow_failed: bool = False) -> Iterator[Observer]:
    """Open the telemetry of one ingest into `index`; libraries are imported only for what is requested.

    Args:
        index: The alias.
        outlets: Where the metrics go.
        say: Receives messages for the user.
        allow_failed: Whether the command exits with 0 although images failed.

    Raises:
        MissingExtra: If metrics are requested and the library isn't installed.
        UsageError: If the file can't be written, or the port is not available.
    """
    with ExitStack() as stack:
        tracer = stack.enter_context(tracing(say))
        observer = stack.enter_context(_metered(index, outlets, say, allow_failed)) if outlets else Observer()
        if tracer is not None:
            from stair_es.telemetry.run_spans import run_spans

            observer.spans = stack.enter_context(run_spans(tracer, index))
        yield observer


@contextmanager
def _metered(index: str, outlets: Outlets, say: Callable[[str], None], allow_failed: bool) -> Iterator[Observer]:
    need("prometheus_client", "metrics")
    from stair_es.telemetry.run_metrics import Run, Textfile, served

    if outlets.file and outlets.file.suffix != ".prom":
        raise UsageError(
            f"the metrics file {str(outlets.file)!r} doesn't end in .prom",
            "node_exporter reads no other files: --metrics-file photos.prom",
        )
    run = Run(index=index, start_s=time.time())
    with ExitStack() as stack:
        if outlets.port is not None:
            say(f"metrics: {stack.enter_context(served(run, outlets.host, outlets.port))}")
        observer = Observer(metrics=run, file=Textfile(outlets.file, run, say) if outlets.file else None)
        try:
            yield observer
            _close(run, observer.report, allow_failed)
        except BaseException as error:
            run.end_s, run.exit_code = time.time(), _code_of(error)
            raise
        finally:
            if observer.file:
                observer.file.write()


def _close(run: Run, report: Report | None, allow_failed: bool) -> None:
    run.end_s = run.success_s = time.time()
    run.exit_code = 0 if report is None or report.is_complete(allow_failed=allow_failed) else SOME_DEAD
    run.swap_pending = bool(report and report.unfinished)


def _code_of(error: BaseException) -> int:
    """Return the exit code of the command for this error."""
    if isinstance(error, StairError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 130
    return error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1
