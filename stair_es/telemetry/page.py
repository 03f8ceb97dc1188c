"""Telemetry of the server: metrics at `/metrics` and traces, each only if requested."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stair_es.cluster.transport import watched
from stair_es.extras import need
from stair_es.telemetry.tracing import tracing
from stair_es.web.watch import Unwatched, Watch

if TYPE_CHECKING:
    from starlette.routing import Route
    from starlette.types import ASGIApp


@dataclass
class Observer:
    """What an application is built with, and wrapped in."""

    watch: Watch = field(default_factory=Unwatched)
    routes: tuple[Route, ...] = ()
    _around: list[Callable[[ASGIApp], ASGIApp]] = field(default_factory=list)

    def around(self, app: ASGIApp) -> ASGIApp:
        """Wrap the application outside of its access control, so that rejected requests are observed, too."""
        for wrap in self._around:
            app = wrap(app)
        return app


@contextmanager
def observing(*, metrics: bool, say: Callable[[str], None]) -> Iterator[Observer]:
    """Open the telemetry of one server; libraries are imported only for what is requested.

    Args:
        metrics: Whether to serve metrics.
        say: Receives messages for the operator.

    Raises:
        MissingExtra: If metrics are requested and the library isn't installed.
    """
    with ExitStack() as stack:
        observer = Observer()
        if metrics:
            need("prometheus_client", "metrics")
            from prometheus_client import disable_created_metrics

            from stair_es.telemetry.answers import timed
            from stair_es.telemetry.page_metrics import PageMetrics

            # avoids a useless second series per metric: process_start_time_seconds is when all of them began
            disable_created_metrics()  # type: ignore[no-untyped-call]
            counts = PageMetrics()
            stack.enter_context(watched(timed(counts.answered)))
            observer.watch, observer.routes = counts, (counts.route(),)
            observer._around.append(counts.around)
        tracer = stack.enter_context(tracing(say))
        if tracer is not None:
            from functools import partial

            from stair_es.telemetry.spans import Encodings, cluster_spans, page_spans

            stack.enter_context(watched(cluster_spans(tracer)))
            observer.watch = Encodings(tracer, observer.watch)
            observer._around.append(partial(page_spans, tracer))
        yield observer
