"""Metrics of the server: requests, the time of models, responses of the cluster. Nothing about the content of the index."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, ProcessCollector, Summary
from prometheus_client.exposition import choose_encoder
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from stair_es.cluster.client.transport import OutgoingRequest
from stair_es.telemetry.http import StatusRecorder, get_method_label, get_route_pattern, is_failed_request, parse_operation
from stair_es.web.hooks import EncodedKind, ServerHooks
from stair_es.web.routes import PatternRoute

_PREFIX = "stair_es_server_"
_TEI_COUNTERS = {
    "te_request_count": "Requests to /v1/encode, /v1/query, /v1/documents and /embed_sparse.",
    "te_request_success": "Those that succeeded.",
    "te_request_failure": "Those that failed.",
}
"""Counters of the encoder's API with the names that text-embeddings-inference (TEI) has, for its dashboards."""
_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ServerMetrics(ServerHooks):
    """Prometheus metrics of the server: its hooks, and those of the requests to the cluster."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        histogram = partial(Histogram, registry=registry, buckets=_BUCKETS_S)
        self._requests = Counter(f"{_PREFIX}requests", "Finished requests.", ["method", "route", "status"], registry=registry)
        self._request_seconds = histogram(f"{_PREFIX}request_seconds", "Duration of a request.", ["route"])
        self._in_progress = Gauge(f"{_PREFIX}requests_in_progress", "Requests in progress.", registry=registry)
        self._uploads = Gauge(
            f"{_PREFIX}uploads_in_progress", "Uploaded images that are being received or read.", registry=registry
        )
        self._encode_seconds = histogram(
            f"{_PREFIX}encode_seconds", "Time that a model takes for a text or an image, without queueing.", ["kind"]
        )
        self._thumbnails = Counter(
            f"{_PREFIX}thumbnails", "Requested thumbnails, by whether they were cached.", ["cached"], registry=registry
        )
        self._search_seconds = Summary(
            f"{_PREFIX}search_took_seconds", "Time of a search as reported by the cluster.", registry=registry
        )
        self._cluster_seconds = histogram(
            f"{_PREFIX}cluster_request_seconds", "Duration of a request to the cluster, measured by the client.", ["operation"]
        )
        self._cluster_errors = Counter(
            f"{_PREFIX}cluster_errors",
            "Failed requests to the cluster; status is 'none' if there was no response.",
            ["operation", "status"],
            registry=registry,
        )
        self._tei_queue_size = Gauge("te_queue_size", "Texts and images that wait.", registry=registry)
        self._tei_batch_size = histogram(
            "te_batch_next_size", "Texts or images of a batch.", buckets=(1, 2, 4, 8, 16, 32, 64, 128)
        )
        self._tei_queue_duration = histogram("te_request_queue_duration", "Time that a text or an image waits, in seconds.")
        self._tei_duration = histogram(
            "te_request_duration", "Duration of a successful request, without the time for its body, in seconds."
        )
        self._tei_counts = {name: collections.Counter[tuple[tuple[str, str], ...]]() for name in _TEI_COUNTERS}
        self._lock = threading.Lock()
        registry.register(self)

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

    def watch_queue(self, count_waiting: Callable[[], int]) -> None:
        """Watch a queue of texts and images."""
        self._tei_queue_size.set_function(count_waiting)

    def record_batch(self, size: int, waited_s: Sequence[float]) -> None:
        """Record a batch, and how long each input has waited."""
        self._tei_batch_size.observe(size)
        for seconds in waited_s:
            self._tei_queue_duration.observe(seconds)

    def record_encode_request(self, input_count: int, error_type: str | None, seconds: float) -> None:
        """Record a request of the encoder's API."""
        method = "single" if input_count == 1 else "batch"
        self._count_tei_request("te_request_count", method=method)
        if error_type is None:
            self._count_tei_request("te_request_success", method=method)
            self._tei_duration.observe(seconds)
        else:
            self._count_tei_request("te_request_failure", err=error_type.lower())

    def collect(self) -> Iterator[Metric]:
        """Yield the counters of TEI, whose names lack the suffix that prometheus_client appends to its own counters."""
        for name, description in _TEI_COUNTERS.items():
            metric = Metric(name, description, "unknown")
            with self._lock:
                counts = dict(self._tei_counts[name])
            for labels, count in counts.items():
                metric.add_sample(name, dict(labels), count)
            yield metric

    def _count_tei_request(self, name: str, **labels: str) -> None:
        with self._lock:
            self._tei_counts[name][tuple(labels.items())] += 1

    # --- requests to the cluster and to the server ---

    @contextmanager
    def time_cluster_request(self, request: OutgoingRequest) -> Iterator[None]:
        """Time a request to the cluster; without a status it failed."""
        start = time.perf_counter()
        try:
            yield
        finally:
            operation, _ = parse_operation(request)
            self._cluster_seconds.labels(operation).observe(time.perf_counter() - start)
            if is_failed_request(request):
                self._cluster_errors.labels(operation, str(request.status or "none")).inc()

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
