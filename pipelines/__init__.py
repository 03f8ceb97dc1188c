"""Ingest and search pipelines (JSON)."""
