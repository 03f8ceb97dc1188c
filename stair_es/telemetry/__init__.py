"""Metrics for Prometheus and traces for OpenTelemetry, for ingest and the server. Neither of them imports this package."""
