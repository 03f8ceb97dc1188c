"""A run as a trace: batches below it, stages below them, and the requests to the cluster.

Stages may run on other machines: a batch comes back with the times of each, and its spans are created here, afterwards. Only
requests of this process have spans, so those of Ray workers have none.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode

from stair_es.telemetry.spans import PROPAGATOR, trace_cluster_requests

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

    from stair_es.ingest.accounting.report import IngestReport
    from stair_es.ingest.state import Batch

_KEPT_PER_RATE = 200
_NS_PER_S = 1_000_000_000


class DecayingSampler:
    """A sampler that keeps the first 200, then every second for 200 more, then every fourth: traces of long runs stay small."""

    def __init__(self) -> None:
        self._seen = self._kept = 0
        self._every = 1

    def __call__(self) -> bool:
        """Return whether to keep this one. With several threads the numbers may be off by a few."""
        self._seen += 1
        if self._seen % self._every:
            return False
        self._kept += 1
        if self._kept % _KEPT_PER_RATE == 0:
            self._every *= 2
        return True


class IngestTrace:
    """The span of a run and its children."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer, self._span = tracer, span
        self._sampler = DecayingSampler()
        self.request_hook = trace_cluster_requests(tracer, trace.set_span_in_context(span), DecayingSampler())

    def record_batch(self, batch: Batch) -> None:
        """Record a finished batch: its span, and one for each of its stages."""
        if not batch.began_ns or not self._sampler():
            return
        ends_ns = {stage: batch.began_ns[stage] + int(batch.seconds.get(stage, 0.0) * _NS_PER_S) for stage in batch.began_ns}
        kinds = Counter(outcome.kind for outcome in batch.get_outcomes())
        batch_span = self._tracer.start_span(
            "batch",
            trace.set_span_in_context(self._span),
            attributes={"stair_es.images": len(batch.images), **{f"stair_es.{kind}": count for kind, count in kinds.items()}},
            start_time=min(batch.began_ns.values()),
        )
        batch_context = trace.set_span_in_context(batch_span)
        for stage, began_ns in batch.began_ns.items():
            self._tracer.start_span(stage, batch_context, start_time=began_ns).end(ends_ns[stage])
        batch_span.end(max(ends_ns.values()))

    def record_report(self, report: IngestReport) -> None:
        """Record the report of a complete run."""
        counts = {name: getattr(report, name) for name in ("seen", "written", "unchanged", "failed", "removed")}
        self._span.set_attributes({f"stair_es.{name}": count for name, count in counts.items()})
        self._span.set_attributes({"stair_es.runner": report.runner, "stair_es.model": report.model})


@contextmanager
def trace_ingest(tracer: Tracer, index: str) -> Iterator[IngestTrace]:
    """Trace a run. `TRACEPARENT` in the environment, as set by job schedulers, becomes its parent."""
    parent = PROPAGATOR.extract({"traceparent": os.environ.get("TRACEPARENT", "")})
    with tracer.start_as_current_span("ingest", parent, attributes={"stair_es.index": index}, record_exception=False) as span:
        try:
            yield IngestTrace(tracer, span)
        except (KeyboardInterrupt, SystemExit) as error:  # the library records other exceptions
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
