"""What is asked, whatever the cluster: a vector, words that must or mustn't be there, filters, a text for BM25. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stair_es.errors import QueryError
from stair_es.search.clauses import check_characters, check_filters, clauses_in, terms_in
from stair_es.search.fit import MAX_WEIGHT
from stair_es.types import SparseVector

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
    filters: Sequence[Mapping[str, Any]] = ()
    """Query clauses that a document must match; they add nothing to its score."""
    caption: str = ""
    """A text for BM25 over `caption_field`."""
    caption_weight: float = 1.0
    caption_field: str = "caption"
    min_score: float | None = None
    """Documents that score less are left out."""

    def __post_init__(self) -> None:
        """Check that something is looked for, and that all of it can be sent.

        Raises:
            QueryError: Nothing is, or a number, a text or a filter can't be.
        """
        if not len(self.vector) and not self.caption.strip():
            raise QueryError("the query is empty: it has no word with a weight", "Try other words.")
        for name, value in (("least", self.least), ("caption_weight", self.caption_weight), ("min_score", self.min_score)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise QueryError(f"{name} must be finite and not below 0, got {value:g}")
        for spelling in (*self.required, *self.excluded):
            if isinstance(spelling, str):  # or its letters would be looked for
                raise QueryError(f"the required or excluded word {spelling!r} is no tuple of features", f"Write ({spelling!r},).")
            if not spelling:
                raise QueryError("a required or excluded word has no feature", "Leave it out.")
        if self.caption.strip():
            self._check_caption()
        check_filters(self.filters)

    @property
    def clauses_beside_the_vector(self) -> int:
        """About how many clauses the rest of the question takes of the cluster's limit."""
        words = sum(len(spelling) for spelling in (*self.required, *self.excluded))
        return words + terms_in(self.caption) + sum(clauses_in(clause) for clause in self.filters)

    def _check_caption(self) -> None:
        if self.caption_weight > MAX_WEIGHT:
            raise QueryError(f"no engine can multiply by a caption weight of {self.caption_weight:g}", "Give a smaller one.")
        if not self.caption_field.strip():
            raise QueryError("the name of the field for the caption is empty")
        check_characters(self.caption)
        check_characters(self.caption_field)


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
    except (ValueError, RecursionError) as error:
        raise QueryError(f"the filter is not JSON: {error}", f"Write one clause: {_CLAUSE}") from None
    if not isinstance(clause, dict) or len(clause) != 1 or not isinstance(next(iter(clause.values())), dict):
        raise QueryError(f"the filter is not one query clause: {stripped[:80]}", f"Write one clause: {_CLAUSE}")
    return clause


_CLAUSE = '{"term": {"format": "png"}}, {"range": {"width": {"gte": 800}}}, or several in {"bool": {"filter": [...]}}.'
