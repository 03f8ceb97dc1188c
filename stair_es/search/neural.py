"""Queries of OpenSearch's neural-search plugin: `neural_sparse` with the words' own weights, over words or numbers. Pure.

Never its `query_text`: that would ask another model for the weights. Both run on OpenSearch 3.6.0 with the plugin in
`tests/integration/test_neural_search.py`.
"""

from __future__ import annotations

import math
from typing import Any

from stair_es.cluster.token_ids import IDS_FIELD, TokenIds
from stair_es.config import MAX_CLAUSES, MAX_HITS
from stair_es.errors import QueryError
from stair_es.search.fit import SparseQuery, fit, made
from stair_es.search.queries import TOKENS_FIELD
from stair_es.types import SparseVector
from stair_es.vocab import escape

MAX_TOKEN_WEIGHT = 64.0
"""Lucene's limit for the weight of a linear feature query, which the plugin hands on as it is."""
SEARCH_CEILING = 16.0
"""`quantization_ceiling_search` of that mapping, and its default: the plugin cuts heavier query weights down to it."""
CANDIDATES_PER_HIT = 4
"""How many documents SEISMIC finds for each hit that is wanted; the exact scores decide among them."""
MIN_CANDIDATES = 50
"""How many it finds at least."""
FINDING_TOKENS = 16
"""How many of the heaviest tokens of the query SEISMIC opens the postings of; all of them count in its scores."""
HEAP_FACTOR = 1.2
"""SEISMIC skips a cluster of documents whose summary scores below the tenth best so far, divided by this.

The plugin compares with the tenth, whatever `k`; a larger number skips less.
"""
_LEAST = 2.0**-120
"""float32 has fewer digits for less; what scaling brings below it is reported as cut."""


def neural_sparse_query(vector: SparseVector, *, field: str = TOKENS_FIELD, max_clauses: int = MAX_CLAUSES) -> SparseQuery:
    """The dot product by `neural_sparse` on a `rank_features` field (OpenSearch 2.14 with the plugin neural-search).

    Weights above 64 are refused by the engine: all are then divided by one power of two, and `boost` multiplies it back.

    Args:
        vector: The words of the query.
        field: The `rank_features` field.
        max_clauses: Only that many of the heaviest words are kept: the plugin makes a clause of each.

    Raises:
        QueryError: As for `rank_features_query`.
    """
    kept = fit(vector, max_clauses)
    scale = max(1.0, _power(kept[0][1] / MAX_TOKEN_WEIGHT))
    kept = _scalable(kept, scale)
    tokens = {escape(word): boost / scale for word, boost in kept}
    return made({"neural_sparse": {field: {"query_tokens": tokens, **_boost(scale)}}}, kept, vector, scale=scale)


def seismic_query(
    vector: SparseVector,
    *,
    field: str = IDS_FIELD,
    max_clauses: int = MAX_CLAUSES,
    k: int = 10,
    token_ids: TokenIds | None = None,
) -> SparseQuery:
    """Return the query that finds candidates by SEISMIC (OpenSearch 3.3 with the plugin), in a `sparse_vector` of numbers.

    Its scores are approximate dot products of 8 bits: score the candidates again with `rank_features_query`, as `request_body`
    does. The query's weights are brought into the upper half of what 8 bits can hold; `boost` undoes it.

    Ask it alone: the plugin finds its candidates first and takes no notice of `must_not` beside it.

    Args:
        vector: The words of the query.
        field: The `sparse_vector` field.
        max_clauses: Only that many of the heaviest words are kept: small segments are asked with a clause each.
        k: How many hits are wanted; `count_candidates(k)` are found in a segment.
        token_ids: Those of the index, which has them in its mapping.

    Raises:
        QueryError: As for `rank_features_query`, or a token has no id.
    """
    if k < 1:
        raise QueryError(f"k must be at least 1, got {k}")
    kept = fit(vector, max_clauses)
    scale = _power(kept[0][1] / SEARCH_CEILING)
    kept = _scalable(kept, scale)
    tokens = {str(number): boost / scale for number, (_, boost) in zip(_ids_of(kept, token_ids), kept, strict=True)}
    parameters = {"k": count_candidates(k), "top_n": min(FINDING_TOKENS, len(tokens)), "heap_factor": HEAP_FACTOR}
    inner = {"query_tokens": tokens, "method_parameters": parameters, **_boost(scale)}
    return made({"neural_sparse": {field: inner}}, kept, vector, scale=scale)


def count_candidates(k: int) -> int:
    """Return how many documents SEISMIC finds where `k` hits are wanted: no more than an engine scores again."""
    return min(max(CANDIDATES_PER_HIT * k, MIN_CANDIDATES), MAX_HITS)


def _ids_of(kept: list[tuple[str, float]], token_ids: TokenIds | None) -> list[int]:
    if token_ids is None:
        raise QueryError("the shape seismic needs the token ids of the index", "Give token_ids, or search with a `Searcher`.")
    unknown = token_ids.list_unknown(token for token, _ in kept)
    if unknown:
        named = ", ".join(repr(token) for token in unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        raise QueryError(
            f"the index has no id for {named}, so SEISMIC can't look for it",
            "Take tokens of the model that wrote the index, or search exactly: leave --shape seismic out.",
        )
    return [token_ids.ids[token] for token, _ in kept]


def _power(ratio: float) -> float:
    """The least power of two that is not below `ratio`: dividing by it changes no digit of a weight."""
    mantissa, exponent = math.frexp(ratio)
    return math.ldexp(1.0, exponent - 1 if mantissa == 0.5 else exponent)


def _scalable(kept: list[tuple[str, float]], scale: float) -> list[tuple[str, float]]:
    return [(word, boost) for word, boost in kept if boost / scale >= _LEAST]


def _boost(scale: float) -> dict[str, Any]:
    return {} if scale == 1 else {"boost": scale}
