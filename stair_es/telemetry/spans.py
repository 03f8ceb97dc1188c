"""Spans of requests to the cluster and to the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from stair_es.telemetry.http import StatusRecorder, get_method_label, get_route_pattern, is_failed_request, parse_operation
from stair_es.web.auth import HEALTH_PATH

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer
    from starlette.types import ASGIApp, Receive, Scope, Send

    from stair_es.cluster.client.transport import OutgoingRequest, RequestHook
    from stair_es.web.hooks import EncodedKind, ServerHooks

PROPAGATOR = TraceContextTextMapPropagator()
"""W3C Trace Context only: other headers of a client, such as baggage, are not propagated to the cluster."""
_UNTRACED_PATHS = frozenset({HEALTH_PATH, "/metrics"})
"""Polled by machines every few seconds."""


def keep_all() -> bool:
    """Return True: every request has a span."""
    return True


def trace_cluster_requests(
    tracer: Tracer, parent: Context | None = None, should_keep: Callable[[], bool] = keep_all
) -> RequestHook:
    """Trace each request to the cluster with a client span, and propagate its id.

    Args:
        tracer: Creates the spans.
        parent: Parent of requests in threads without a current span.
        should_keep: Called before each request: if it returns False, the parent's id is propagated instead.
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


class EncodingSpans:
    """Server hooks that add a span for each encoding to other hooks."""

    def __init__(self, tracer: Tracer, hooks: ServerHooks) -> None:
        self._tracer, self._hooks = tracer, hooks
        self.record_search_time, self.track_upload, self.count_thumbnail = (
            hooks.record_search_time,
            hooks.track_upload,
            hooks.count_thumbnail,
        )
        self.watch_queue, self.record_batch, self.record_encode_request = (
            hooks.watch_queue,
            hooks.record_batch,
            hooks.record_encode_request,
        )

    @contextmanager
    def track_encoding(self, kind: EncodedKind) -> Iterator[None]:
        """Trace the encoding of a text or an image."""
        with self._tracer.start_as_current_span(f"encode {kind}"), self._hooks.track_encoding(kind):
            yield
