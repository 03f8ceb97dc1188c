"""Tiny checkpoints of every supported format, and tiny training runs."""
