"""Queries on the text field `impacts` with a weighted vector. Pure."""

from __future__ import annotations

from stair_es.cluster.documents import IMPACT_SCALE, askable
from stair_es.config import MAX_CLAUSES
from stair_es.errors import QueryError
from stair_es.search.fit import SparseQuery, fit, made
from stair_es.types import SparseVector

IMPACTS_FIELD = "impacts"


def impacts_query(vector: SparseVector, *, field: str = IMPACTS_FIELD, max_clauses: int = MAX_CLAUSES) -> SparseQuery:
    """The dot product of `vector` and the quantised weights in `field`: each is off by half a thousandth at most.

    Words that the field doesn't have (pieces like `##ing`, punctuation) are reported as cut. The field folds case: of two words
    that differ in nothing else the heavier one is asked.

    Args:
        vector: The words of the query.
        field: The text field of `mappings/impacts.json`.
        max_clauses: Only that many of the heaviest words are kept.

    Raises:
        QueryError: As for `rank_features_query`, or no word is one that the field could have.
    """
    terms: dict[str, tuple[str, float]] = {}
    for word, boost in fit(vector, max(1, len(vector))):
        if askable(word):
            terms.setdefault(_folded(word), (word, boost))
    if not terms:
        raise QueryError(
            f"no word of the query can be in the field {field!r}, which has whole words only", "Ask with another --shape."
        )
    if max_clauses < 1:
        raise QueryError(f"max_clauses must be at least 1, got {max_clauses}")
    asked = list(terms.items())[:max_clauses]
    clauses = [{"term": {field: {"value": term, "boost": boost / IMPACT_SCALE}}} for term, (_, boost) in asked]
    return made({"bool": {"should": clauses}}, [kept for _, kept in asked], vector)


def _folded(word: str) -> str:
    """As the engine's `lowercase` filter does: character by character, each becoming one."""
    return "".join(c.lower()[0] for c in word)
