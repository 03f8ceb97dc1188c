"""Queries of OpenSearch's neural-search plugin: `neural_sparse` with given token weights. Pure.

`query_text` is not used: the cluster would have to ask an encoder (docs/howto/text-in-cluster.md).
"""

from __future__ import annotations

import math
from typing import Any

from stair_es.config.defaults import MAX_CLAUSES
from stair_es.feature_names import escape_feature
from stair_es.search.dsl.rank_features import TOKENS_FIELD
from stair_es.search.dsl.weights import SparseQuery, finish_sparse_query, fit_to_limits
from stair_es.types import SparseVector

MAX_QUERY_TOKEN_WEIGHT = 64.0
"""Lucene's limit for the weight of a linear feature query, which the plugin passes on unchanged."""
_MIN_SCALED_WEIGHT = 2.0**-120
"""Below this, float32 loses digits; tokens that scaling brings below it are reported as truncated."""


def build_neural_sparse_query(vector: SparseVector, *, field: str = TOKENS_FIELD, max_clauses: int = MAX_CLAUSES) -> SparseQuery:
    """Build the dot product as `neural_sparse` on a `rank_features` field (OpenSearch 2.14 with the plugin neural-search).

    The engine rejects weights above 64: all weights are then divided by a power of two, which `boost` multiplies back.

    Args:
        vector: The query vector.
        field: The `rank_features` field.
        max_clauses: The maximum number of tokens; the heaviest are kept. The plugin creates a clause for each.

    Raises:
        QueryError: As for `build_rank_features_query`.
    """
    kept = fit_to_limits(vector, max_clauses)
    scale = max(1.0, _round_to_power_of_two(kept[0][1] / MAX_QUERY_TOKEN_WEIGHT))
    kept = _drop_tiny_weights(kept, scale)
    tokens = {escape_feature(token): boost / scale for token, boost in kept}
    return finish_sparse_query(
        {"neural_sparse": {field: {"query_tokens": tokens, **_build_boost(scale)}}}, kept, vector, scale=scale
    )


def _round_to_power_of_two(ratio: float) -> float:
    """Return the least power of two >= `ratio`: dividing by it changes no digit of a weight."""
    mantissa, exponent = math.frexp(ratio)
    return math.ldexp(1.0, exponent - 1 if mantissa == 0.5 else exponent)


def _drop_tiny_weights(kept: list[tuple[str, float]], scale: float) -> list[tuple[str, float]]:
    return [(token, boost) for token, boost in kept if boost / scale >= _MIN_SCALED_WEIGHT]


def _build_boost(scale: float) -> dict[str, Any]:
    return {} if scale == 1 else {"boost": scale}
