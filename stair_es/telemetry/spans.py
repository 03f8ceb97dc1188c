"""Spans of requests to the cluster and of the page's requests, and what they have in common with those of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from stair_es.telemetry.answers import Answer, failed, method_of, operation_of, pattern_of
from stair_es.web.security import ALIVE

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer
    from starlette.types import ASGIApp, Receive, Scope, Send

    from stair_es.cluster.transport import Asked, Watch
    from stair_es.web.watch import Watch as PageWatch
    from stair_es.web.watch import What

CARRIED = TraceContextTextMapPropagator()
"""W3C Trace Context alone: what else a visitor sends along is not carried on to the cluster."""
_QUIET = frozenset({ALIVE, "/metrics"})
"""Asked every few seconds by machines."""


def always() -> bool:
    """No request goes without a span."""
    return True


def cluster_spans(tracer: Tracer, parent: Context | None = None, keeps: Callable[[], bool] = always) -> Watch:
    """Makes a client span of each request to the cluster, and sends its id along.

    Args:
        tracer: Makes the spans.
        parent: Of requests in threads that are within no span.
        keeps: Asked before each request: where it says no, the parent's id is sent.
    """

    @contextmanager
    def around(asked: Asked) -> Iterator[None]:
        context = None if trace.get_current_span().get_span_context().is_valid else parent
        if not keeps():
            CARRIED.inject(asked.headers, context)
            yield
            return
        operation, target = operation_of(asked)
        with tracer.start_as_current_span(
            f"{operation} {target}".rstrip(),
            context,
            kind=SpanKind.CLIENT,
            attributes=_of_request(asked, operation, target),
            record_exception=False,  # an engine's words may repeat the query or the document
            set_status_on_exception=False,
        ) as span:
            CARRIED.inject(asked.headers)
            try:
                yield
            except Exception as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR))
                raise
            span.set_attribute("db.system.name", "elasticsearch" if asked.elasticsearch else "opensearch")
            if asked.status is not None:
                set_status(span, asked.status, failed=failed(asked))

    return around


def _of_request(asked: Asked, operation: str, target: str) -> dict[str, str | int]:
    where = urlsplit(asked.node)
    named = {"db.collection.name": target} if target else {}
    return {
        "db.operation.name": operation,
        **named,
        "http.request.method": asked.method,
        "server.address": where.hostname or "",
        "server.port": where.port or (443 if where.scheme == "https" else 80),
        "url.full": asked.node + asked.path,
    }


def page_spans(tracer: Tracer, app: ASGIApp) -> ASGIApp:
    """The application, with a server span around each request. A visitor's `traceparent` becomes its parent."""

    async def spanned(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _QUIET:
            await app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method, answer = method_of(scope), Answer(send)
        attributes = {"http.request.method": method, "url.path": scope["path"], "url.scheme": scope["scheme"]}
        with tracer.start_as_current_span(
            method, CARRIED.extract(headers), kind=SpanKind.SERVER, attributes=attributes, record_exception=False
        ) as span:
            try:
                await app(scope, receive, answer)
            finally:
                pattern = pattern_of(scope)
                if pattern:
                    span.update_name(f"{method} {pattern}")
                    span.set_attribute("http.route", pattern)
                set_status(span, answer.status, failed=answer.status >= 500)

    return spanned


def set_status(span: Span, status: int, *, failed: bool) -> None:
    """The HTTP status, and whether it means that the span has failed."""
    span.set_attribute("http.response.status_code", status)
    if failed:
        span.set_attribute("error.type", str(status))
        span.set_status(Status(StatusCode.ERROR))


class Encodings:
    """What the page tells, as another watch has it, and a span for each encoding."""

    def __init__(self, tracer: Tracer, watch: PageWatch) -> None:
        """The two together."""
        self._tracer, self._watch = tracer, watch
        self.took, self.uploading, self.thumbnail = watch.took, watch.uploading, watch.thumbnail

    @contextmanager
    def encoding(self, what: What) -> Iterator[None]:
        """See `Watch` of the page."""
        with self._tracer.start_as_current_span(f"encode {what}"), self._watch.encoding(what):
            yield
