"""Prometheus metrics and OpenTelemetry traces of ingest and the servers, neither of which imports this package."""
