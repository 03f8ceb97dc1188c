"""Spans: of requests to the cluster and to the server, and a run as a trace.

In a run, batches are below it, stages below them. Stages may run on other machines: a batch comes back with the times of each,
and its spans are created here, afterwards. Only requests of this process have spans, so those of Ray workers have none.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from stair_es.telemetry.http import StatusRecorder, get_method_label, get_route_pattern, is_failed_request, parse_operation
from stair_es.web.hooks import HEALTH_PATH, EncodedKind, ServerHooks

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer
    from starlette.types import ASGIApp, Receive, Scope, Send

    from stair_es.cluster.client.transport import OutgoingRequest, RequestHook
    from stair_es.ingest.accounting.report import IngestReport
    from stair_es.ingest.state import Batch

PROPAGATOR = TraceContextTextMapPropagator()
"""W3C Trace Context only: other headers of a client, such as baggage, are not propagated to the cluster."""
_UNTRACED_PATHS = frozenset({HEALTH_PATH, "/metrics"})
"""Polled by machines every few seconds."""
_KEPT_PER_RATE = 200
_NS_PER_S = 1_000_000_000


def trace_cluster_requests(
    tracer: Tracer, parent: Context | None = None, should_keep: Callable[[], bool] = lambda: True
) -> RequestHook:
    """Trace each request to the cluster with a client span, and propagate its id.

    `parent` is that of requests in threads without a current span. If `should_keep`, called before each request, returns False,
    the parent's id is propagated instead.
    """

    @contextmanager
    def trace_request(request: OutgoingRequest) -> Iterator[None]:
        context = None if trace.get_current_span().get_span_context().is_valid else parent
        if not should_keep():
            PROPAGATOR.inject(request.headers, context)
            yield
            return
        operation, target = parse_operation(request)
        with tracer.start_as_current_span(
            f"{operation} {target}".rstrip(),
            context,
            kind=SpanKind.CLIENT,
            attributes=_build_attributes(request, operation, target),
            record_exception=False,  # messages of the cluster may repeat the query or the document
            set_status_on_exception=False,
        ) as span:
            PROPAGATOR.inject(request.headers)
            try:
                yield
            except Exception as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR))
                raise
            span.set_attribute("db.system.name", "elasticsearch" if request.elasticsearch else "opensearch")
            if request.status is not None:
                set_span_status(span, request.status, failed=is_failed_request(request))

    return trace_request


def _build_attributes(request: OutgoingRequest, operation: str, target: str) -> dict[str, str | int]:
    url = urlsplit(request.node)
    collection = {"db.collection.name": target} if target else {}
    return {
        "db.operation.name": operation,
        **collection,
        "http.request.method": request.method,
        "server.address": url.hostname or "",
        "server.port": url.port or (443 if url.scheme == "https" else 80),
        "url.full": request.node + request.path,
    }


def trace_server_requests(tracer: Tracer, app: ASGIApp) -> ASGIApp:
    """Trace each request to the application with a server span. The client's `traceparent` becomes its parent."""

    async def trace_request(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _UNTRACED_PATHS:
            await app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method, recorder = get_method_label(scope), StatusRecorder(send)
        attributes = {"http.request.method": method, "url.path": scope["path"], "url.scheme": scope["scheme"]}
        with tracer.start_as_current_span(
            method, PROPAGATOR.extract(headers), kind=SpanKind.SERVER, attributes=attributes, record_exception=False
        ) as span:
            try:
                await app(scope, receive, recorder)
            finally:
                pattern = get_route_pattern(scope)
                if pattern:
                    span.update_name(f"{method} {pattern}")
                    span.set_attribute("http.route", pattern)
                set_span_status(span, recorder.status, failed=recorder.status >= 500)

    return trace_request


def set_span_status(span: Span, status: int, *, failed: bool) -> None:
    """Set the HTTP status of a span, and whether it failed."""
    span.set_attribute("http.response.status_code", status)
    if failed:
        span.set_attribute("error.type", str(status))
        span.set_status(Status(StatusCode.ERROR))


def trace_encodings(tracer: Tracer, hooks: ServerHooks) -> None:
    """Add a span for each encoding of a text or an image to server hooks."""
    track = hooks.track_encoding

    @contextmanager
    def trace_encoding(kind: EncodedKind) -> Iterator[None]:
        with tracer.start_as_current_span(f"encode {kind}"), track(kind):
            yield

    hooks.track_encoding = trace_encoding  # type: ignore[method-assign]


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
        counts = {name: getattr(report, name) for name in ("seen", "written", "unchanged", "failed", "forgotten", "removed")}
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
