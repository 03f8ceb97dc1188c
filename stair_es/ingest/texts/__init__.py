"""Ingest of captions without images."""
