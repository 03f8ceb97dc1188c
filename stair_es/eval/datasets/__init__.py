"""Datasets of captions and classes, in common formats."""
