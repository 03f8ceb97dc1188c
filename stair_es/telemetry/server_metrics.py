"""Metrics of the server: requests, the time of models, responses of the cluster. Nothing about the content of the index."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, Summary
from prometheus_client.exposition import choose_encoder
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from stair_es.telemetry.http import StatusRecorder, get_method_label, get_route_pattern, is_failed_request
from stair_es.web.routes import PatternRoute

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from stair_es.cluster.client.transport import OutgoingRequest
    from stair_es.web.hooks import EncodedKind

_PREFIX = "stair_es_server_"
_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ServerMetrics:
    """Prometheus metrics of the server: its hooks, and an observer of the requests to the cluster."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(f"{_PREFIX}requests", "Finished requests.", ["method", "route", "status"], registry=registry)
        self._request_seconds = Histogram(
            f"{_PREFIX}request_seconds", "Duration of a request.", ["route"], registry=registry, buckets=_BUCKETS_S
        )
        self._in_progress = Gauge(f"{_PREFIX}requests_in_progress", "Requests in progress.", registry=registry)
        self._uploads = Gauge(
            f"{_PREFIX}uploads_in_progress", "Uploaded images that are being received or read.", registry=registry
        )
        self._encode_seconds = Histogram(
            f"{_PREFIX}encode_seconds",
            "Time that a model takes for a text or an image, without queueing.",
            ["kind"],
            registry=registry,
            buckets=_BUCKETS_S,
        )
        self._thumbnails = Counter(
            f"{_PREFIX}thumbnails", "Requested thumbnails, by whether they were cached.", ["cached"], registry=registry
        )
        self._search_seconds = Summary(
            f"{_PREFIX}search_took_seconds", "Time of a search as reported by the cluster.", registry=registry
        )
        self._cluster_seconds = Histogram(
            f"{_PREFIX}cluster_request_seconds",
            "Duration of a request to the cluster, measured by the client.",
            ["operation"],
            registry=registry,
            buckets=_BUCKETS_S,
        )
        self._cluster_errors = Counter(
            f"{_PREFIX}cluster_errors",
            "Failed requests to the cluster; status is 'none' if there was no response.",
            ["operation", "status"],
            registry=registry,
        )

    # --- hooks of the server ---

    def track_encoding(self, kind: EncodedKind) -> AbstractContextManager[object]:
        """Time the encoding of a text or an image."""
        return self._encode_seconds.labels(kind).time()

    def record_search_time(self, seconds: float) -> None:
        """Record the time that the cluster reports for a search."""
        self._search_seconds.observe(seconds)

    def track_upload(self) -> AbstractContextManager[object]:
        """Track an upload in progress."""
        return self._uploads.track_inprogress()

    def count_thumbnail(self, *, cached: bool) -> None:
        """Count a thumbnail; `cached` if it was cached."""
        self._thumbnails.labels("yes" if cached else "no").inc()

    def record_cluster_request(self, request: OutgoingRequest, operation: str, seconds: float) -> None:
        """Record a finished request to the cluster; without a status it failed."""
        self._cluster_seconds.labels(operation).observe(seconds)
        if is_failed_request(request):
            self._cluster_errors.labels(operation, str(request.status or "none")).inc()

    # --- requests to the server ---

    def wrap_app(self, app: ASGIApp) -> ASGIApp:
        """Wrap the application to count its requests, including rejected ones."""

        async def count_request(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            start, recorder = time.perf_counter(), StatusRecorder(send)
            try:
                with self._in_progress.track_inprogress():
                    await app(scope, receive, recorder)
            finally:
                route = get_route_pattern(scope) or "none"
                self._requests.labels(get_method_label(scope), route, str(recorder.status)).inc()
                self._request_seconds.labels(route).observe(time.perf_counter() - start)

        return count_request

    def build_route(self) -> PatternRoute:
        """Build the route `GET /metrics`."""
        return PatternRoute("/metrics", self._serve_metrics)

    async def _serve_metrics(self, request: Request) -> Response:
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(await run_in_threadpool(encoder, self.registry), headers={"content-type": content_type})
