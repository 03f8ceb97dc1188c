"""Select the query type by the capabilities of cluster and index, or by the user's choice. Pure, except for `plugins`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from stair_es.cluster.target import NEURAL_SEARCH
from stair_es.cluster.token_ids import IDS_FIELD
from stair_es.config import MAX_CLAUSES
from stair_es.errors import QueryError
from stair_es.search.impacts import IMPACTS_FIELD, impacts_query
from stair_es.search.neural import neural_sparse_query, seismic_query
from stair_es.search.queries import TOKENS_FIELD, rank_features_query, sparse_vector_query

if TYPE_CHECKING:
    from stair_es.cluster.target import Target
    from stair_es.search.fit import SparseQuery
    from stair_es.types import SparseVector

Shape = Literal["rank_features", "neural_sparse", "seismic", "sparse_vector", "impacts"]
SHAPES: tuple[Shape, ...] = get_args(Shape)

_BUILDERS: Mapping[Shape, Callable[..., SparseQuery]] = {
    "rank_features": rank_features_query,
    "neural_sparse": neural_sparse_query,
    "seismic": seismic_query,
    "sparse_vector": sparse_vector_query,
    "impacts": impacts_query,
}


@dataclass(frozen=True, kw_only=True)
class Fields:
    """The searchable fields of an index."""

    tokens: str | None
    """Type of the field `tokens`, if it exists."""
    seismic: str | None = None
    """Name of the field with token ids (OpenSearch's `sparse_vector`), if it exists."""
    impacts: bool = False
    """Whether the text field `impacts` exists."""

    @classmethod
    def from_mapping(cls, properties: Mapping[str, Any]) -> Fields:
        """Create from `mappings.properties` of an index."""
        numbers = properties.get(IDS_FIELD, {})
        return cls(
            tokens=properties.get(TOKENS_FIELD, {}).get("type"),
            seismic=IDS_FIELD if numbers.get("type") == "sparse_vector" and "method" in numbers else None,
            impacts=properties.get(IMPACTS_FIELD, {}).get("type") == "text",
        )


def choose(
    target: Target,
    fields: Fields,
    plugins: Callable[[], frozenset[str]],
    asked: Shape | None = None,
    *,
    approximate: bool = False,
) -> Shape:
    """Select the query type: `asked` if it is possible, otherwise `seismic` if allowed, otherwise the best exact type.

    `neural_sparse` is never selected automatically: it has the scores of `rank_features` (Lucene gets the same query).

    Args:
        target: The product and version of the cluster.
        fields: The searchable fields of the index.
        plugins: Fetches the plugins of the cluster; called only if they matter.
        asked: The query type that the user requested.
        approximate: Whether SEISMIC may be selected automatically if the index has its field. A node without the plugin can't
            hold such an index, so the plugins are not checked.

    Raises:
        QueryError: If `asked` is impossible, or no query type is possible.
    """
    if asked is not None:
        _builder(asked)
        obstacle = _obstacle(asked, target, fields) or _missing_plugin(asked, target, plugins)
        if obstacle:
            raise QueryError(f"the query type {asked} is not possible: {obstacle}", _remedy(target, fields))
        return asked
    if approximate and _obstacle("seismic", target, fields) is None:
        return "seismic"
    found = _possible(target, fields)
    if found is None:
        too_old = f", and {_obstacle('sparse_vector', target, fields)}" if fields.tokens == "sparse_vector" else ""
        raise QueryError(
            f"the index has no field that {target.label} can search by token: `tokens` is {fields.tokens or 'missing'}{too_old}",
            "Name an index that `stair-es ingest` wrote, or ingest into a new one.",
        )
    return found


def build(shape: Shape, vector: SparseVector, *, max_clauses: int = MAX_CLAUSES, **more: Any) -> SparseQuery:  # noqa: ANN401
    """Build the query of a vector in a query type.

    Args:
        shape: The query type.
        vector: The query vector.
        max_clauses: The clause limit of the engine.
        more: Further arguments of the builder of the query type: `field`, and for `seismic` `k` and `token_ids`.

    Raises:
        QueryError: If the query type is unknown, the vector is empty, or a weight or token is invalid.
    """
    return _builder(shape)(vector, max_clauses=max_clauses, **more)


def _builder(shape: Shape) -> Callable[..., SparseQuery]:
    if shape not in _BUILDERS:
        raise QueryError(f"unknown query type {shape!r}", f"Available: {', '.join(SHAPES)}.")
    return _BUILDERS[shape]


def _possible(target: Target, fields: Fields) -> Shape | None:
    unasked: tuple[Shape, ...] = ("rank_features", "sparse_vector", "impacts")
    return next((shape for shape in unasked if not _obstacle(shape, target, fields)), None)


def _obstacle(shape: Shape, target: Target, fields: Fields) -> str | None:
    """Return the reason why a query type is impossible, regardless of plugins, or None."""
    able, needs, types = {
        "rank_features": (True, "", {"rank_features"}),
        "neural_sparse": (target.supports_neural_sparse, "OpenSearch 2.14 or newer", {"rank_features"}),
        "seismic": (target.supports_seismic, "OpenSearch 3.3 or newer", {"rank_features"}),
        "sparse_vector": (target.supports_sparse_vector, "Elasticsearch 8.15 or newer", {"sparse_vector"}),
        "impacts": (True, "", None),
    }[shape]
    if not able:
        return f"it requires {needs}, and this is {target.label}"
    if shape == "seismic" and fields.seismic is None:
        return (
            f"the index has no field `{IDS_FIELD}` with the method seismic and a table of its ids (ingest with --vector seismic)"
        )
    if shape == "impacts" and not fields.impacts:
        return "the index has no field `impacts` (ingest with --impacts)"
    if types is not None and fields.tokens not in types:
        return f"the field `tokens` of the index is {fields.tokens or 'missing'}, not {' or '.join(sorted(types))}"
    return None


def _missing_plugin(shape: Shape, target: Target, plugins: Callable[[], frozenset[str]]) -> str | None:
    if shape not in ("neural_sparse", "seismic") or not target.version:  # Serverless has the plugin, and lists none
        return None
    return None if NEURAL_SEARCH in plugins() else f"the cluster doesn't have the plugin {NEURAL_SEARCH} on every node"


def _remedy(target: Target, fields: Fields) -> str:
    found = _possible(target, fields)
    return f"Omit --shape: {found} is possible here." if found else "Use another index."
