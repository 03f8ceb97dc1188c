"""Datasets of captions and classes, in the formats of the field."""
