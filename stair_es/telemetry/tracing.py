"""Set up tracing from OpenTelemetry's environment variables."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from stair_es._version import __version__
from stair_es.optional import format_install_command

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

logger = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"


@contextmanager
def open_tracer(environ: Mapping[str, str] = os.environ) -> Iterator[Tracer | None]:
    """Open a tracer that exports to the collector named in the environment; spans are flushed at the end of the `with` block.

    Yields None, and imports nothing, if no collector is named or tracing is disabled. A problem with tracing is reported once and
    affects nothing else: the same environment is often set for all programs of a machine. The library reads its other variables
    from the real environment.
    """
    endpoint = next((name for name in _ENDPOINTS if environ.get(name)), None)
    exporters = environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    if endpoint is None or environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporters == "none":
        yield None
        return
    problem = _explain_disabled(environ, exporters)
    if problem:
        logger.warning("no traces, though %s is set: %s", endpoint, problem)
        yield None
        return
    with _forward_logs():
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        attributes = {"service.name": "stair-es", "service.version": __version__}
        try:
            resource = Resource.create({**attributes, **OTELResourceDetector().detect().attributes})
            provider = TracerProvider(resource=resource, shutdown_on_exit=False)
            provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        except (ValueError, OSError) as error:  # from a variable that the library doesn't validate
            logger.warning("no traces, though %s is set: %s", endpoint, error)
            yield None
            return
        try:
            yield provider.get_tracer("stair_es", __version__)
        finally:
            provider.shutdown()


def _explain_disabled(environ: Mapping[str, str], exporters: str) -> str:
    if exporters != "otlp":
        return f"OTEL_TRACES_EXPORTER is {exporters!r}, and only 'otlp' and 'none' are supported."
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), _PROTOCOL)
    if protocol != _PROTOCOL:
        return f"the protocol {protocol!r} isn't supported. Set {_PROTOCOLS[0]}={_PROTOCOL}, and a port that accepts it (4318)."
    try:  # other packages may have installed parts of `opentelemetry`
        for module in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"):
            import_module(module)
    except ModuleNotFoundError as error:
        return f"{error.name} isn't installed. Install it with: {format_install_command('traces')}"
    return ""


class _OnceHandler(logging.Handler):
    """Reports each message once: an unreachable collector would fill the terminal."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._seen = set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg) not in self._seen:
            self._seen.add(str(record.msg))
            logger.warning("traces: %s", record.getMessage())


@contextmanager
def _forward_logs() -> Iterator[None]:
    """Log the messages of OpenTelemetry as our own."""
    otel_logger, handler = logging.getLogger("opentelemetry"), _OnceHandler()
    propagated, otel_logger.propagate = otel_logger.propagate, False
    otel_logger.addHandler(handler)
    try:
        yield
    finally:
        otel_logger.removeHandler(handler)
        otel_logger.propagate = propagated
