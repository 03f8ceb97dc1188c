"""`stair-es inspect`."""

from __future__ import annotations


def inspect() -> None:
    """Show the words of an image."""
    raise NotImplementedError
