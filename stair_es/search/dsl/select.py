"""Query types: the clause of a vector in each, and the one that suits cluster and index, or that the user requests.

Pure, except for `plugins`: any client can send the clauses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from stair_es.cluster.client.capabilities import NEURAL_SEARCH, ClusterInfo
from stair_es.cluster.documents.document import IMPACT_SCALE, is_single_term
from stair_es.config.defaults import MAX_CLAUSES
from stair_es.errors import QueryError
from stair_es.feature_names import escape_feature
from stair_es.search.dsl.weights import SparseQuery, finish_sparse_query, fit_to_limits
from stair_es.types import QueryType, SparseVector

TOKENS_FIELD = "tokens"
IMPACTS_FIELD = "impacts"
MAX_QUERY_TOKEN_WEIGHT = 64.0
"""Lucene's limit for the weight of a linear feature query, which the plugin passes on unchanged."""
_MIN_SCALED_WEIGHT = 2.0**-120
"""Below this, float32 loses digits; tokens that scaling brings below it are reported as truncated."""

QUERY_TYPES: tuple[QueryType, ...] = get_args(QueryType)


@dataclass(frozen=True, kw_only=True)
class IndexFields:
    """The searchable fields of an index."""

    tokens: str | None
    """Type of the field `tokens`, if it exists."""
    impacts: bool = False
    """Whether the text field `impacts` exists."""

    @classmethod
    def from_mapping(cls, properties: Mapping[str, Any]) -> IndexFields:
        """Create from `mappings.properties` of an index."""
        return cls(
            tokens=properties.get(TOKENS_FIELD, {}).get("type"),
            impacts=properties.get(IMPACTS_FIELD, {}).get("type") == "text",
        )


def select_query_type(
    cluster_info: ClusterInfo,
    fields: IndexFields,
    plugins: Callable[[], frozenset[str]],
    requested: QueryType | None = None,
) -> QueryType:
    """Select the query type: `requested` if it is possible, otherwise the best of the cluster and the index.

    `neural_sparse` is never selected automatically: it has the scores of `rank_features` (Lucene gets the same query).
    `plugins` fetches the plugins of the cluster, and is called only if they matter.

    Raises:
        QueryError: If `requested` is impossible, or no query type is possible.
    """
    if requested is not None:
        _get_builder(requested)
        obstacle = _find_obstacle(requested, cluster_info, fields) or _find_missing_plugin(requested, cluster_info, plugins)
        if obstacle:
            raise QueryError(
                f"the query type {requested} is not possible: {obstacle}",
                _suggest_query_type(cluster_info, fields),
                code="query-type-not-possible",
            )
        return requested
    found = _find_possible_type(cluster_info, fields)
    if found is None:
        obstacle = f", and {_find_obstacle('sparse_vector', cluster_info, fields)}" if fields.tokens == "sparse_vector" else ""
        raise QueryError(
            f"the index has no field that {cluster_info.label} can search by token:"
            f" `tokens` is {fields.tokens or 'missing'}{obstacle}",
            "Specify an index that `stair-es ingest` wrote, or ingest into a new one.",
            code="no-searchable-tokens",
        )
    return found


def build_sparse_query(query_type: QueryType, vector: SparseVector, *, max_clauses: int = MAX_CLAUSES) -> SparseQuery:
    """Build the query of a vector in a query type.

    Raises:
        QueryError: If the query type is unknown, the vector is empty, or a weight or token is invalid.
    """
    return _get_builder(query_type)(vector, max_clauses)


def _get_builder(query_type: QueryType) -> Callable[[SparseVector, int], SparseQuery]:
    if query_type not in _BUILDERS:
        raise QueryError(f"unknown query type {query_type!r}", f"Available: {', '.join(QUERY_TYPES)}.", code="unknown-query-type")
    return _BUILDERS[query_type]


def _find_possible_type(cluster_info: ClusterInfo, fields: IndexFields) -> QueryType | None:
    candidates: tuple[QueryType, ...] = ("rank_features", "sparse_vector", "impacts")
    return next((candidate for candidate in candidates if not _find_obstacle(candidate, cluster_info, fields)), None)


def _find_obstacle(query_type: QueryType, cluster_info: ClusterInfo, fields: IndexFields) -> str | None:
    """Return the reason why a query type is impossible, regardless of plugins, or None."""
    is_supported, requirement, field_types = {
        "rank_features": (True, "", {"rank_features"}),
        "neural_sparse": (cluster_info.supports_neural_sparse, "OpenSearch 2.14 or newer", {"rank_features"}),
        "sparse_vector": (cluster_info.supports_sparse_vector, "Elasticsearch 8.15 or newer", {"sparse_vector"}),
        "impacts": (True, "", None),
    }[query_type]
    if not is_supported:
        return f"it requires {requirement}, and this is {cluster_info.label}"
    if query_type == "impacts" and not fields.impacts:
        return "the index has no field `impacts` (ingest with --impact-field)"
    if field_types is not None and fields.tokens not in field_types:
        return f"the field `tokens` of the index is {fields.tokens or 'missing'}, not {' or '.join(sorted(field_types))}"
    return None


def _find_missing_plugin(query_type: QueryType, cluster_info: ClusterInfo, plugins: Callable[[], frozenset[str]]) -> str | None:
    if query_type != "neural_sparse" or not cluster_info.version:  # Serverless has the plugin, and lists none
        return None
    return None if NEURAL_SEARCH in plugins() else f"the cluster doesn't have the plugin {NEURAL_SEARCH} on every node"


def _suggest_query_type(cluster_info: ClusterInfo, fields: IndexFields) -> str:
    found = _find_possible_type(cluster_info, fields)
    return f"Omit --query-type: {found} is possible here." if found else "Use another index."


def build_rank_features_query(vector: SparseVector, max_clauses: int = MAX_CLAUSES) -> SparseQuery:
    """Build a query whose score is the dot product of `vector` and a document's `tokens`.

    Raises:
        QueryError: If no token is left (an empty `bool` would match every document), or a weight or token is invalid.
    """
    kept = fit_to_limits(vector, max_clauses)
    # without `linear` the score would be saturation
    clauses = [
        {"rank_feature": {"field": f"{TOKENS_FIELD}.{escape_feature(token)}", "boost": boost, "linear": {}}}
        for token, boost in kept
    ]
    return finish_sparse_query({"bool": {"should": clauses}}, kept, vector)


def build_sparse_vector_query(vector: SparseVector, max_clauses: int = MAX_CLAUSES) -> SparseQuery:
    """Build the same query for Elasticsearch's `sparse_vector`, without its pruning of frequent, light tokens.

    Elasticsearch 8 creates a clause for each token, so `max_clauses` limits them here, too.
    """
    kept = fit_to_limits(vector, max_clauses)
    tokens = {escape_feature(token): boost for token, boost in kept}
    return finish_sparse_query({"sparse_vector": {"field": TOKENS_FIELD, "query_vector": tokens, "prune": False}}, kept, vector)


def build_neural_sparse_query(vector: SparseVector, max_clauses: int = MAX_CLAUSES) -> SparseQuery:
    """Build the dot product as `neural_sparse` on a `rank_features` field (OpenSearch 2.14 with the plugin neural-search).

    The engine rejects weights above 64: all weights are then divided by a power of two, which `boost` multiplies back. Token
    weights are given, since for a `query_text` the cluster would have to ask an encoder (docs/howto/text-in-cluster.md).
    """
    kept = fit_to_limits(vector, max_clauses)
    scale = max(1.0, _round_to_power_of_two(kept[0][1] / MAX_QUERY_TOKEN_WEIGHT))
    kept = [(token, boost) for token, boost in kept if boost / scale >= _MIN_SCALED_WEIGHT]
    query: dict[str, Any] = {"query_tokens": {escape_feature(token): boost / scale for token, boost in kept}}
    if scale != 1:
        query["boost"] = scale
    return finish_sparse_query({"neural_sparse": {TOKENS_FIELD: query}}, kept, vector)


def _round_to_power_of_two(ratio: float) -> float:
    """Return the least power of two >= `ratio`: dividing by it changes no digit of a weight."""
    mantissa, exponent = math.frexp(ratio)
    return math.ldexp(1.0, exponent - 1 if mantissa == 0.5 else exponent)


def build_impacts_query(vector: SparseVector, max_clauses: int = MAX_CLAUSES) -> SparseQuery:
    """Build the dot product of `vector` and the quantized weights in `impacts`; each is off by half a thousandth at most.

    Tokens that the field can't contain (pieces like `##ing`, punctuation) are reported as truncated. The field folds case: of two
    tokens that differ only in case, the heavier one is sent.

    Raises:
        QueryError: As for `build_rank_features_query`, or if the field can't contain any of the tokens.
    """
    terms: dict[str, tuple[str, float]] = {}
    for token, boost in fit_to_limits(vector, max(1, len(vector))):
        if is_single_term(token):
            terms.setdefault(_fold_case(token), (token, boost))
    if not terms:
        raise QueryError(
            f"the field {IMPACTS_FIELD!r} contains whole words only, and the query has none",
            "Use another --query-type.",
            code="no-whole-words",
        )
    if max_clauses < 1:
        raise QueryError(f"max_clauses must be at least 1, got {max_clauses}", code="invalid-max-clauses")
    selected = list(terms.items())[:max_clauses]
    clauses = [{"term": {IMPACTS_FIELD: {"value": term, "boost": boost / IMPACT_SCALE}}} for term, (_, boost) in selected]
    return finish_sparse_query({"bool": {"should": clauses}}, [kept for _, kept in selected], vector)


def _fold_case(word: str) -> str:
    """Fold case like the engine's `lowercase` filter: character by character, each to one character."""
    return "".join(c.lower()[0] for c in word)


_BUILDERS: Mapping[QueryType, Callable[[SparseVector, int], SparseQuery]] = {
    "rank_features": build_rank_features_query,
    "neural_sparse": build_neural_sparse_query,
    "sparse_vector": build_sparse_vector_query,
    "impacts": build_impacts_query,
}
