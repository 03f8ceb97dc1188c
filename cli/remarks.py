"""What is said of the words of a query that were not sent."""

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
    """That words are plain text, where they look like the language of a query string."""
    operators = [word for word in ("AND", "OR", "NOT") if word in words.split()]
    if operators and not words.isupper():
        named = ", ".join(operators)
        note(f"{named} is read as a word: +word must be there, -word mustn't; --filter takes AND, OR and NOT")
    if _PHRASE.search(words):
        note("quotes are read as text: no phrase is looked for (--filter 'caption:\"red car\"' finds one in captions)")


def say_left_out(cut: SparseVector, dropped: SparseVector, shape: Shape, limit: str) -> None:
    """Which words were left out, and why.

    Args:
        cut: By the shape, which can't ask for them, or by the limit.
        dropped: By pruning.
        shape: The shape.
        limit: What the limit is called.
    """
    from stair_es.cluster.documents import askable

    pieces = [word for word in cut.features if shape == "impacts" and not askable(word)]
    if pieces:
        note(f"`impacts` has no word pieces and symbols: not asked for {', '.join(pieces[:_NAMED])}")
    if len(cut) > len(pieces):
        note(f"{limit} left no room for the {len(cut) - len(pieces)} lightest words of the query")
    if len(dropped):
        note(f"pruned: {len(dropped)} words of the query were not sent ({', '.join(dropped.features[:_NAMED])})")
