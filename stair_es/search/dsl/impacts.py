"""Queries on the text field `impacts` with a weighted vector. Pure."""

from __future__ import annotations

from stair_es.cluster.documents.document import IMPACT_SCALE, is_single_term
from stair_es.config.defaults import MAX_CLAUSES
from stair_es.errors import QueryError
from stair_es.search.dsl.weights import SparseQuery, finish_sparse_query, fit_to_limits
from stair_es.types import SparseVector

IMPACTS_FIELD = "impacts"


def build_impacts_query(vector: SparseVector, *, field: str = IMPACTS_FIELD, max_clauses: int = MAX_CLAUSES) -> SparseQuery:
    """Build the dot product of `vector` and the quantized weights in `field`; each is off by half a thousandth at most.

    Tokens that the field can't contain (pieces like `##ing`, punctuation) are reported as truncated. The field folds case: of two
    tokens that differ only in case, the heavier one is sent.

    Args:
        vector: The query vector.
        field: The text field of `mappings/impacts.json`.
        max_clauses: The maximum number of tokens; the heaviest are kept.

    Raises:
        QueryError: As for `build_rank_features_query`, or if the field can't contain any of the tokens.
    """
    terms: dict[str, tuple[str, float]] = {}
    for token, boost in fit_to_limits(vector, max(1, len(vector))):
        if is_single_term(token):
            terms.setdefault(_fold_case(token), (token, boost))
    if not terms:
        raise QueryError(f"the field {field!r} contains whole words only, and the query has none", "Use another --query-type.")
    if max_clauses < 1:
        raise QueryError(f"max_clauses must be at least 1, got {max_clauses}")
    selected = list(terms.items())[:max_clauses]
    clauses = [{"term": {field: {"value": term, "boost": boost / IMPACT_SCALE}}} for term, (_, boost) in selected]
    return finish_sparse_query({"bool": {"should": clauses}}, [kept for _, kept in selected], vector)


def _fold_case(word: str) -> str:
    """Fold case like the engine's `lowercase` filter: character by character, each to one character."""
    return "".join(c.lower()[0] for c in word)
