"""Queries of OpenSearch's neural-search plugin: `neural_sparse` with given token weights, over tokens or token ids. Pure.

`query_text` is not used: the cluster would have to ask an encoder (docs/howto/text-in-cluster.md). Both forms run on OpenSearch
3.6.0 with the plugin in `tests/integration/test_neural_search.py`.
"""

from __future__ import annotations

import math
from typing import Any

from stair_es.cluster.metadata.token_fields import IDS_FIELD, TokenIds
from stair_es.config.defaults import MAX_CLAUSES, MAX_HITS
from stair_es.errors import QueryError
from stair_es.feature_names import escape_feature
from stair_es.search.dsl.rank_features import TOKENS_FIELD
from stair_es.search.dsl.weights import SparseQuery, finish_sparse_query, fit_to_limits
from stair_es.types import SparseVector

MAX_QUERY_TOKEN_WEIGHT = 64.0
"""Lucene's limit for the weight of a linear feature query, which the plugin passes on unchanged."""
QUANTIZATION_CEILING = 16.0
"""`quantization_ceiling_search` of the mapping, and its default: the plugin clamps heavier query weights to it."""
SEISMIC_CANDIDATES_PER_HIT = 4
"""Number of candidates of SEISMIC per requested hit; exact scores select among them."""
MIN_SEISMIC_CANDIDATES = 50
"""Minimum number of candidates."""
SEISMIC_TOP_N = 16
"""Number of the heaviest query tokens whose postings SEISMIC opens; all tokens count in its scores."""
SEISMIC_HEAP_FACTOR = 1.2
"""SEISMIC skips a cluster of documents whose summary scores below the tenth best so far, divided by this.

The plugin compares with the tenth for any `k`; a larger number skips less.
"""
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


def build_seismic_query(
    vector: SparseVector,
    *,
    field: str = IDS_FIELD,
    max_clauses: int = MAX_CLAUSES,
    k: int = 10,
    token_ids: TokenIds | None = None,
) -> SparseQuery:
    """Build the query that finds candidates with SEISMIC (OpenSearch 3.3 with the plugin), in a `sparse_vector` of token ids.

    Its scores are approximate dot products of 8 bits: rescore the candidates with `build_rank_features_query`, as
    `build_search_request` does. Query weights are scaled into the upper half of the 8-bit range; `boost` reverts it.

    Don't combine it with other clauses: the plugin finds its candidates first and ignores a `must_not` next to it.

    Args:
        vector: The query vector.
        field: The `sparse_vector` field.
        max_clauses: The maximum number of tokens; the heaviest are kept. Small segments are searched with a clause for each.
        k: Number of requested hits; `count_candidates(k)` candidates are found per segment.
        token_ids: The token ids of the index, from its mapping.

    Raises:
        QueryError: As for `build_rank_features_query`, or if a token has no id.
    """
    if k < 1:
        raise QueryError(f"k must be at least 1, got {k}")
    kept = fit_to_limits(vector, max_clauses)
    scale = _round_to_power_of_two(kept[0][1] / QUANTIZATION_CEILING)
    kept = _drop_tiny_weights(kept, scale)
    tokens = {str(number): boost / scale for number, (_, boost) in zip(_resolve_ids(kept, token_ids), kept, strict=True)}
    parameters = {"k": count_candidates(k), "top_n": min(SEISMIC_TOP_N, len(tokens)), "heap_factor": SEISMIC_HEAP_FACTOR}
    inner = {"query_tokens": tokens, "method_parameters": parameters, **_build_boost(scale)}
    return finish_sparse_query({"neural_sparse": {field: inner}}, kept, vector, scale=scale)


def count_candidates(k: int) -> int:
    """Return the number of candidates for `k` hits, at most as many as an engine rescores."""
    return min(max(SEISMIC_CANDIDATES_PER_HIT * k, MIN_SEISMIC_CANDIDATES), MAX_HITS)


def _resolve_ids(kept: list[tuple[str, float]], token_ids: TokenIds | None) -> list[int]:
    if token_ids is None:
        raise QueryError(
            "the query type seismic requires the token ids of the index", "Pass token_ids, or search with a `Searcher`."
        )
    unknown = token_ids.list_unknown(token for token, _ in kept)
    if unknown:
        listed = ", ".join(repr(token) for token in unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        raise QueryError(
            f"the index has no id for {listed}, so SEISMIC can't search for it",
            "Use tokens of the model that wrote the index, or search exactly: omit --query-type seismic.",
        )
    return [token_ids.ids[token] for token, _ in kept]


def _round_to_power_of_two(ratio: float) -> float:
    """Return the least power of two >= `ratio`: dividing by it changes no digit of a weight."""
    mantissa, exponent = math.frexp(ratio)
    return math.ldexp(1.0, exponent - 1 if mantissa == 0.5 else exponent)


def _drop_tiny_weights(kept: list[tuple[str, float]], scale: float) -> list[tuple[str, float]]:
    return [(token, boost) for token, boost in kept if boost / scale >= _MIN_SCALED_WEIGHT]


def _build_boost(scale: float) -> dict[str, Any]:
    return {} if scale == 1 else {"boost": scale}
