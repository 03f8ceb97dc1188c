"""Queries, hits and their explanation."""
