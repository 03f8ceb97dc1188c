"""Metrics for Prometheus and traces for OpenTelemetry, of ingest and of the page. Neither of the two knows of it."""
