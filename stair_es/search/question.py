"""What is asked, whatever the cluster: a vector, words that must or mustn't be there, filters, a text for BM25. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stair_es.errors import QueryError
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from stair_es.types import Json

NOTHING = SparseVector((), ())

Spelling = tuple[str, ...]
"""The features that stand for one word: several where the vocabulary has only its pieces."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is looked for.

    The score of a document is the dot product with `vector`, plus, if there is a `caption`, its BM25 score times
    `caption_weight`. Everything else only decides who takes part.
    """

    vector: SparseVector = NOTHING
    required: Sequence[Spelling] = ()
    """Words that a document must have: all the features of each."""
    excluded: Sequence[Spelling] = ()
    """Words that it mustn't have: all the features of one together."""
    least: float = 0.0
    """From which weight on a document has a word, for `required` and `excluded`; 0: any weight."""
    filters: Sequence[Mapping[str, Json]] = ()
    """Query clauses that a document must match; they add nothing to its score."""
    caption: str = ""
    """A text for BM25 over `caption_field`."""
    caption_weight: float = 1.0
    caption_field: str = "caption"
    min_score: float | None = None
    """Documents that score less are left out."""

    def __post_init__(self) -> None:
        """Check that something is looked for, and the numbers.

        Raises:
            QueryError: Nothing is, or a number can't be.
        """
        if not len(self.vector) and not self.caption.strip():
            raise QueryError("the query is empty: it has no word with a weight", "Try other words.")
        for name, value in (("least", self.least), ("caption_weight", self.caption_weight), ("min_score", self.min_score)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise QueryError(f"{name} must be finite and not below 0, got {value:g}")
        if any(not spelling for spelling in (*self.required, *self.excluded)):
            raise QueryError("a required or excluded word has no feature", "Leave it out.")

    @property
    def clauses_beside_the_vector(self) -> int:
        """How many clauses, at most, the rest of the question takes of the cluster's limit."""
        words = sum(len(spelling) for spelling in (*self.required, *self.excluded))
        return words + len(self.caption.split()) + sum(_clauses(clause) for clause in self.filters)


def parse_filter(text: str) -> dict[str, Any]:
    """A filter as people write it: a query clause as JSON, or else a query string (`width:>800 AND format:JPEG`).

    Raises:
        QueryError: Empty, or JSON that is no clause.
    """
    stripped = text.strip()
    if not stripped:
        raise QueryError(
            "the filter is empty", 'Give a query string, as "width:>800", or a clause, as {"term": {"format": "png"}}.'
        )
    if stripped[0] not in "{[":
        return {"query_string": {"query": stripped, "default_field": "caption"}}
    try:
        clause = json.loads(stripped)
    except ValueError as error:
        raise QueryError(f"the filter is not JSON: {error}", f"Write one clause: {_CLAUSE}") from None
    if not isinstance(clause, dict) or len(clause) != 1 or not isinstance(next(iter(clause.values())), dict):
        raise QueryError(f"the filter is not one query clause: {stripped[:80]}", f"Write one clause: {_CLAUSE}")
    return clause


_CLAUSE = '{"term": {"format": "png"}}, {"range": {"width": {"gte": 800}}}, or several in {"bool": {"filter": [...]}}.'


def _clauses(part: Json | Mapping[str, Json]) -> int:
    """An upper bound: every object, and every word of every text (a query string makes clauses of them)."""
    if isinstance(part, Mapping):
        return 1 + sum(_clauses(value) for value in part.values())
    if isinstance(part, list):
        return sum(_clauses(value) for value in part)
    return len(part.split()) if isinstance(part, str) else 0
