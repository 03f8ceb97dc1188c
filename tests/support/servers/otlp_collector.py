"""A collector for tests: takes spans by OTLP over HTTP on loopback, and keeps them as OpenTelemetry's own protocol has them.

with start_collector() as collector:
    subprocess.run([...], env={**os.environ, **collector.environment})
    [run] = collector.find_spans("ingest")
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from support.servers.fault_proxy import Request, Response, start_server


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
        """Return the children of a span."""
        return [span for span in self.spans if span.parent_span_id == parent.span_id]

    def serve_request(self, request: Request) -> Response:
        """Store the spans of a request."""
        if request.path != "/v1/traces" or request.headers["content-type"] != "application/x-protobuf":
            return Response(status=404)
        is_compressed = request.headers.get("content-encoding") == "gzip"
        body = gzip.decompress(request.body) if is_compressed else request.body
        for part in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = parse_attributes(part.resource.attributes)
            self.spans += [span for scope in part.scope_spans for span in scope.spans]
        return Response(kind="application/x-protobuf", body=ExportTraceServiceResponse().SerializeToString())


def parse_attributes(pairs: Iterator[KeyValue]) -> dict[str, str | int]:
    """Return attributes as a dictionary."""
    values = {pair.key: pair.value for pair in pairs}
    return {key: value.int_value if value.HasField("int_value") else value.string_value for key, value in values.items()}


@contextmanager
def start_collector() -> Iterator[Collector]:
    """Run a collector within the context."""
    collector = Collector()
    with start_server(collector.serve_request) as collector.url:
        yield collector
