"""A collector for tests: takes spans by OTLP over HTTP on loopback, and keeps them as OpenTelemetry's own protocol has them.

with start_collector() as collector:
    subprocess.run([...], env={**os.environ, **collector.environment})
    [run] = collector.find_spans("ingest")
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collector:
    """Received spans."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    resource: dict[str, str | int] = field(default_factory=dict)
    """Attributes of the program that sent them."""

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make a program export its spans here with little delay."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}

    def find_spans(self, start: str) -> list[Span]:
        """Return the spans whose names start with `start`."""
        return [span for span in self.spans if span.name.startswith(start)]

    def get_children(self, parent: Span) -> list[Span]:
        """Its children."""
        return [span for span in self.spans if span.parent_span_id == parent.span_id]

    def store(self, body: bytes) -> None:
        """Store the spans of a request."""
        for part in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = parse_attributes(part.resource.attributes)
            self.spans += [span for scope in part.scope_spans for span in scope.spans]


def parse_attributes(pairs: Iterator[KeyValue]) -> dict[str, str | int]:
    """Return attributes as a dictionary."""
    values = {pair.key: pair.value for pair in pairs}
    return {key: value.int_value if value.HasField("int_value") else value.string_value for key, value in values.items()}


@contextmanager
def start_collector() -> Iterator[Collector]:
    """Run a collector within the context."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            is_traces = self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
            if is_traces:
                collector.store(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
            self.send_response(200 if is_traces else 404)
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
