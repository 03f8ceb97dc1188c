"""Teach an index words from marked pictures."""
