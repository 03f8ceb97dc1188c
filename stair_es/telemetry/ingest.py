"""Telemetry of an ingest: metrics in a file or at a port, and traces, each only if requested."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from stair_es.errors import EXIT_PARTIAL_FAILURE, StairError, UsageError
from stair_es.optional import import_optional
from stair_es.telemetry.tracing import open_tracer

if TYPE_CHECKING:
    from stair_es.cluster.client.transport import RequestHook
    from stair_es.ingest.accounting.report import IngestReport
    from stair_es.ingest.accounting.run_accounting import RunAccounting
    from stair_es.ingest.state import Batch
    from stair_es.telemetry.ingest_metrics import IngestMetrics, MetricsTextfile
    from stair_es.telemetry.spans import IngestTrace

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MetricsTargets:
    """Where the metrics of a run go."""

    file: Path | None = None
    """Ends in `.prom`, as node_exporter requires."""
    port: int | None = None
    """0 for any free port."""
    host: str = "127.0.0.1"

    def __bool__(self) -> bool:
        return self.file is not None or self.port is not None


@dataclass
class IngestTelemetry:
    """Receives the events of an ingest."""

    metrics: IngestMetrics | None = None
    file: MetricsTextfile | None = None
    spans: IngestTrace | None = None
    report: IngestReport | None = field(default=None, init=False)

    @property
    def request_hooks(self) -> tuple[RequestHook, ...]:
        """Hooks for the connection to the cluster."""
        return (self.spans.request_hook,) if self.spans else ()

    def record_start(self, accounting: RunAccounting) -> None:
        """Record the start of the run."""
        if self.metrics:
            self.metrics.accounting = accounting

    def record_batch(self, batch: Batch) -> None:
        """Record a finished batch that is already in the accounting."""
        if self.spans:
            self.spans.record_batch(batch)
        if self.file:
            self.file.write_if_due()

    def record_report(self, report: IngestReport) -> None:
        """Record the report of a complete run."""
        self.report = report
        if self.spans:
            self.spans.record_report(report)


@contextmanager
def open_ingest_telemetry(index: str, targets: MetricsTargets, *, allow_failed: bool = False) -> Iterator[IngestTelemetry]:
    """Open the telemetry of one ingest into `index`; libraries are imported only for what is requested.

    Raises:
        MissingExtra: If metrics are requested and the library isn't installed.
        UsageError: If the file can't be written, or the port is not available.
    """
    with ExitStack() as stack:
        tracer = stack.enter_context(open_tracer())
        observer = stack.enter_context(_open_metrics(index, targets, allow_failed)) if targets else IngestTelemetry()
        if tracer is not None:
            from stair_es.telemetry.spans import trace_ingest

            observer.spans = stack.enter_context(trace_ingest(tracer, index))
        yield observer


@contextmanager
def _open_metrics(index: str, targets: MetricsTargets, allow_failed: bool) -> Iterator[IngestTelemetry]:
    import_optional("prometheus_client", "metrics")
    from stair_es.telemetry.ingest_metrics import IngestMetrics, MetricsTextfile, serve_metrics

    if targets.file and targets.file.suffix != ".prom":
        raise UsageError(
            f"the metrics file {str(targets.file)!r} doesn't end in .prom",
            "node_exporter reads no other files: --metrics-file photos.prom",
            code="invalid-metrics-file",
        )
    run = IngestMetrics(index=index, start_s=time.time())
    with ExitStack() as stack:
        if targets.port is not None:
            logger.info("metrics: %s", stack.enter_context(serve_metrics(run, targets.host, targets.port)))
        observer = IngestTelemetry(metrics=run, file=MetricsTextfile(targets.file, run) if targets.file else None)
        try:
            yield observer
            _record_success(run, observer.report, allow_failed)
        except BaseException as error:
            run.end_s, run.exit_code = time.time(), _get_exit_code(error)
            raise
        finally:
            if observer.file:
                observer.file.write()


def _record_success(run: IngestMetrics, report: IngestReport | None, allow_failed: bool) -> None:
    run.end_s = run.success_s = time.time()
    run.exit_code = 0 if report is None or report.is_complete(allow_failed=allow_failed) else EXIT_PARTIAL_FAILURE
    run.swap_pending = bool(report and report.not_swapped_reason)


def _get_exit_code(error: BaseException) -> int:
    if isinstance(error, StairError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 130
    return error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1
