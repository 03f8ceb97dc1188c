"""Queries of OpenSearch's neural-search plugin: `neural_sparse` with the words' own weights, over words or numbers. Pure.

Never its `query_text`: that would ask another model for the weights. Written after the plugin's documentation and source; there
was no plugin to try them on.
"""

from __future__ import annotations

import math
from typing import Any

from stair_es.config import MAX_CLAUSES
from stair_es.errors import QueryError
from stair_es.search import vocabulary
from stair_es.search.fit import SparseQuery, fit, made
from stair_es.search.queries import TOKENS_FIELD
from stair_es.search.vocabulary import Vocabulary
from stair_es.types import SparseVector
from stair_es.vocab import escape

MAX_TOKEN_WEIGHT = 64.0
"""Lucene's limit for the weight of a linear feature query, which the plugin hands on as it is."""
IDS_FIELD = "token_ids"
"""The field of `mappings/seismic.json`."""
SEARCH_CEILING = 16.0
"""`quantization_ceiling_search` of that mapping, and its default: the plugin cuts heavier query weights down to it."""
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
    words: Vocabulary | None = None,
) -> SparseQuery:
    """The approximate dot product by SEISMIC (OpenSearch 3.3 with the plugin), for a `sparse_vector` whose keys are numbers.

    Each query's weights are brought into the upper half of what the plugin's 8 bits can hold; `boost` undoes it.

    Args:
        vector: The words of the query.
        field: The `sparse_vector` field.
        max_clauses: Only that many of the heaviest words are kept: small segments are asked with a clause each.
        k: How many hits are wanted: the plugin looks for no more in a segment.
        words: The vocabulary that the documents were written with; BERT's if None.

    Raises:
        QueryError: As for `rank_features_query`, or a word has no number.
    """
    if k < 1:
        raise QueryError(f"k must be at least 1, got {k}")
    kept = fit(vector, max_clauses)
    scale = _power(kept[0][1] / SEARCH_CEILING)
    kept = _scalable(kept, scale)
    ids = (words or vocabulary.load()).ids([word for word, _ in kept])
    tokens = {str(number): boost / scale for number, (_, boost) in zip(ids, kept, strict=True)}
    parameters = {"k": k, "top_n": len(tokens), "heap_factor": 1.0}
    inner = {"query_tokens": tokens, "method_parameters": parameters, **_boost(scale)}
    return made({"neural_sparse": {field: inner}}, kept, vector, scale=scale)


def numbered(vector: SparseVector, words: Vocabulary | None = None) -> dict[str, float]:
    """A document's vector for the field `token_ids`: numbers for words. Keep the words in `tokens`, to read them.

    Raises:
        QueryError: A word has no number.
    """
    ids = (words or vocabulary.load()).ids(vector.features)
    return {str(number): weight for number, weight in zip(ids, vector.weights, strict=True)}


def _power(ratio: float) -> float:
    """The least power of two that is not below `ratio`: dividing by it changes no digit of a weight."""
    mantissa, exponent = math.frexp(ratio)
    return math.ldexp(1.0, exponent - 1 if mantissa == 0.5 else exponent)


def _scalable(kept: list[tuple[str, float]], scale: float) -> list[tuple[str, float]]:
    return [(word, boost) for word, boost in kept if boost / scale >= _LEAST]


def _boost(scale: float) -> dict[str, Any]:
    return {} if scale == 1 else {"boost": scale}
