"""Ingest: from sources through the stages into a sink, with one outcome per image."""
