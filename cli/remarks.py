"""Notices about tokens of a query that were not sent."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .output import note

if TYPE_CHECKING:
    from stair_es.search.shapes import Shape
    from stair_es.types import SparseVector

_NAMED = 8
_PHRASE = re.compile(r'"[^"]+"')


def say_no_operators(words: str) -> None:
    """Print a notice if the query looks like a query string, since its operators are read as text."""
    operators = [word for word in ("AND", "OR", "NOT") if word in words.split()]
    if operators and not words.isupper():
        named = ", ".join(operators)
        note(f"{named} is read as a word; use +word and -word, or --filter, which supports AND, OR and NOT")
    if _PHRASE.search(words):
        note("quotes are read as text, not as a phrase (--filter 'caption:\"red car\"' finds a phrase in captions)")


def say_left_out(cut: SparseVector, dropped: SparseVector, shape: Shape, limit: str) -> None:
    """Print which tokens were not sent, and why.

    Args:
        cut: Tokens that the query type doesn't support, or that exceed the limit.
        dropped: Tokens removed by pruning.
        shape: Query type.
        limit: Name of the limit.
    """
    from stair_es.cluster.documents import askable

    pieces = [word for word in cut.features if shape == "impacts" and not askable(word)]
    if pieces:
        note(f"`impacts` has no word pieces and symbols; not sent: {', '.join(pieces[:_NAMED])}")
    if len(cut) > len(pieces):
        note(f"{limit} is exceeded: the {len(cut) - len(pieces)} lightest words of the query were not sent")
    if len(dropped):
        note(f"pruned: {len(dropped)} words of the query were not sent ({', '.join(dropped.features[:_NAMED])})")
