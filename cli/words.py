"""`stair-es words`."""

from __future__ import annotations


def words() -> None:
    """Show the words of a corpus."""
    raise NotImplementedError
