"""`SearchQuery`: a query vector with required and excluded tokens, filters and a text for BM25. Pure."""

from __future__ import annotations

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
"""The tokens of one word: several if the vocabulary only has pieces of it."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A search query, independent of the cluster.

    The score of a document is the dot product with `vector`, plus its BM25 score times `caption_weight` if there is a `caption`.
    Everything else only restricts which documents match.
    """

    vector: SparseVector = NOTHING
    required: Sequence[Spelling] = ()
    """Words that a document must have: all tokens of each."""
    excluded: Sequence[Spelling] = ()
    """Words that a document must not have: a document with all tokens of one is excluded."""
    least: float = 0.0
    """Minimum weight for a token to count as present, for `required` and `excluded`; 0 for any weight."""
    filters: Sequence[Mapping[str, Any]] = ()
    """Query clauses that a document must match, without effect on its score."""
    caption: str = ""
    """A text for BM25 over `caption_field`."""
    caption_weight: float = 1.0
    caption_field: str = "caption"
    min_score: float | None = None
    """Minimum score of hits."""

    def __post_init__(self) -> None:
        """Check that the query is not empty and can be sent.

        Raises:
            QueryError: If it is empty, or a number, a text or a filter is invalid.
        """
        if not len(self.vector) and not self.caption.strip():
            raise QueryError("the query is empty: it has no token with a weight", "Try other words.")
        for name, value in (("least", self.least), ("caption_weight", self.caption_weight), ("min_score", self.min_score)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise QueryError(f"{name} must be a finite number >= 0, got {value:g}")
        for spelling in (*self.required, *self.excluded):
            if isinstance(spelling, str):  # its letters would be taken for tokens
                problem = f"the required or excluded word {spelling!r} is not a tuple of tokens"
                raise QueryError(problem, f"Write ({spelling!r},).")
            if not spelling:
                raise QueryError("a required or excluded word has no token", "Omit it.")
        if self.caption.strip():
            self._check_caption()
        check_filters(self.filters)

    @property
    def clauses_beside_the_vector(self) -> int:
        """Estimated number of clauses for everything except the vector."""
        words = sum(len(spelling) for spelling in (*self.required, *self.excluded))
        return words + terms_in(self.caption) + sum(clauses_in(clause) for clause in self.filters)

    def _check_caption(self) -> None:
        if self.caption_weight > MAX_WEIGHT:
            raise QueryError(f"the caption weight {self.caption_weight:g} is too large for an engine", "Use a smaller one.")
        if not self.caption_field.strip():
            raise QueryError("the name of the caption field is empty")
        check_characters(self.caption)
        check_characters(self.caption_field)
