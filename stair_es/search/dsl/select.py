"""Select the query type by the capabilities of cluster and index, or by the user's choice. Pure, except for `plugins`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from stair_es.cluster.client.capabilities import NEURAL_SEARCH
from stair_es.config.defaults import MAX_CLAUSES
from stair_es.errors import QueryError
from stair_es.search.dsl.impacts import IMPACTS_FIELD, build_impacts_query
from stair_es.search.dsl.neural_sparse import build_neural_sparse_query
from stair_es.search.dsl.rank_features import TOKENS_FIELD, build_rank_features_query, build_sparse_vector_query
from stair_es.types import QueryType as QueryType

if TYPE_CHECKING:
    from stair_es.cluster.client.capabilities import ClusterInfo
    from stair_es.search.dsl.weights import SparseQuery
    from stair_es.types import SparseVector

QUERY_TYPES: tuple[QueryType, ...] = get_args(QueryType)

_BUILDERS: Mapping[QueryType, Callable[..., SparseQuery]] = {
    "rank_features": build_rank_features_query,
    "neural_sparse": build_neural_sparse_query,
    "sparse_vector": build_sparse_vector_query,
    "impacts": build_impacts_query,
}


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

    Args:
        cluster_info: Distribution and version of the cluster.
        fields: The searchable fields of the index.
        plugins: Fetches the plugins of the cluster; called only if they matter.
        requested: The query type that the user requested.

    Raises:
        QueryError: If `requested` is impossible, or no query type is possible.
    """
    if requested is not None:
        _get_builder(requested)
        obstacle = _find_obstacle(requested, cluster_info, fields) or _find_missing_plugin(requested, cluster_info, plugins)
        if obstacle:
            raise QueryError(f"the query type {requested} is not possible: {obstacle}", _suggest_query_type(cluster_info, fields))
        return requested
    found = _find_possible_type(cluster_info, fields)
    if found is None:
        obstacle = f", and {_find_obstacle('sparse_vector', cluster_info, fields)}" if fields.tokens == "sparse_vector" else ""
        raise QueryError(
            f"the index has no field that {cluster_info.label} can search by token:"
            f" `tokens` is {fields.tokens or 'missing'}{obstacle}",
            "Specify an index that `stair-es ingest` wrote, or ingest into a new one.",
        )
    return found


def build_sparse_query(
    query_type: QueryType,
    vector: SparseVector,
    *,
    max_clauses: int = MAX_CLAUSES,
    **builder_options: str,
) -> SparseQuery:
    """Build the query of a vector in a query type.

    Args:
        query_type: The query type.
        vector: The query vector.
        max_clauses: The clause limit of the engine.
        builder_options: Further arguments of the builder of the query type: `field`.

    Raises:
        QueryError: If the query type is unknown, the vector is empty, or a weight or token is invalid.
    """
    return _get_builder(query_type)(vector, max_clauses=max_clauses, **builder_options)


def _get_builder(query_type: QueryType) -> Callable[..., SparseQuery]:
    if query_type not in _BUILDERS:
        raise QueryError(f"unknown query type {query_type!r}", f"Available: {', '.join(QUERY_TYPES)}.")
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
