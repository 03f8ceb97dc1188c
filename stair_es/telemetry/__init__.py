"""Metrics for Prometheus and traces for OpenTelemetry, of ingest and the server; neither of them imports this package."""
