"""Telemetry of the server: metrics at `/metrics` and traces, each only if requested."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stair_es.optional import import_optional
from stair_es.telemetry.tracing import open_tracer
from stair_es.web.hooks import ServerHooks

if TYPE_CHECKING:
    from starlette.routing import Route
    from starlette.types import ASGIApp

    from stair_es.cluster.client.transport import RequestHook


@dataclass
class ServerTelemetry:
    """What an application is built with, and wrapped in."""

    hooks: ServerHooks = field(default_factory=ServerHooks)
    routes: tuple[Route, ...] = ()
    request_hooks: tuple[RequestHook, ...] = ()
    _wrappers: list[Callable[[ASGIApp], ASGIApp]] = field(default_factory=list)

    def wrap_app(self, app: ASGIApp) -> ASGIApp:
        """Wrap the application outside of its access control, so that rejected requests are observed, too."""
        for wrap in self._wrappers:
            app = wrap(app)
        return app


@contextmanager
def open_server_telemetry(*, metrics: bool) -> Iterator[ServerTelemetry]:
    """Open the telemetry of one server; libraries are imported only for what is requested."""
    with ExitStack() as stack:
        observer = ServerTelemetry()
        if metrics:
            import_optional("prometheus_client", "metrics")
            from prometheus_client import disable_created_metrics

            from stair_es.telemetry.server_metrics import ServerMetrics

            # avoids a useless second series per metric: process_start_time_seconds is when all of them began
            disable_created_metrics()  # type: ignore[no-untyped-call]
            counts = ServerMetrics()
            observer.request_hooks = (counts.time_cluster_request,)
            observer.hooks, observer.routes = counts, (counts.build_route(),)
            observer._wrappers.append(counts.wrap_app)
        tracer = stack.enter_context(open_tracer())
        if tracer is not None:
            from functools import partial

            from stair_es.telemetry.spans import trace_cluster_requests, trace_encodings, trace_server_requests

            observer.request_hooks += (trace_cluster_requests(tracer),)
            trace_encodings(tracer, observer.hooks)
            observer._wrappers.append(partial(trace_server_requests, tracer))
        yield observer
