"""Which form a query takes: what a cluster can do and what an index has decide, or the user. Pure, but for `plugins`."""

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
    """What of an index can be asked."""

    tokens: str | None
    """Type of the field `tokens`, if there is one."""
    seismic: str | None = None
    """Name of the field with numbers for words (OpenSearch's `sparse_vector`), if there is one."""
    impacts: bool = False
    """Whether there is the text field `impacts`."""

    @classmethod
    def from_mapping(cls, properties: Mapping[str, Any]) -> Fields:
        """From `mappings.properties` of an index."""
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
    """The shape for an index on a cluster: `asked`, if it is possible, else `seismic` where it may be, else the best exact one.

    `neural_sparse` is never taken unasked: it gives the scores of `rank_features` (Lucene gets the same query).

    Args:
        target: What the cluster is.
        fields: What the index has.
        plugins: Asks the cluster for its plugins; called only where the answer matters.
        asked: What the user wants.
        approximate: Whether SEISMIC may be taken unasked where the index has its field. A node without the plugin can't hold such
            an index, so nobody asks for the plugins.

    Raises:
        QueryError: `asked` is impossible here, or nothing is possible.
    """
    if asked is not None:
        _builder(asked)
        obstacle = _obstacle(asked, target, fields) or _missing_plugin(asked, target, plugins)
        if obstacle:
            raise QueryError(f"the shape {asked} is impossible: {obstacle}", _remedy(target, fields))
        return asked
    if approximate and _obstacle("seismic", target, fields) is None:
        return "seismic"
    found = _possible(target, fields)
    if found is None:
        too_old = f", and {_obstacle('sparse_vector', target, fields)}" if fields.tokens == "sparse_vector" else ""
        raise QueryError(
            f"nothing in the index can be searched by words on {target.label}: `tokens` is {fields.tokens or 'missing'}{too_old}",
            "Give the index of `stair-es ingest`, or ingest into a new one.",
        )
    return found


def build(shape: Shape, vector: SparseVector, *, max_clauses: int = MAX_CLAUSES, **more: Any) -> SparseQuery:  # noqa: ANN401
    """The query of `vector` in `shape`.

    Args:
        shape: The form.
        vector: The words of the query.
        max_clauses: What the engine takes at most.
        more: What the shape's own builder takes besides: `field`, and for `seismic` `k` and `token_ids`.

    Raises:
        QueryError: There is no such shape, the vector is empty, or a weight or a word is beyond an engine.
    """
    return _builder(shape)(vector, max_clauses=max_clauses, **more)


def _builder(shape: Shape) -> Callable[..., SparseQuery]:
    if shape not in _BUILDERS:
        raise QueryError(f"unknown shape {shape!r}", f"There are: {', '.join(SHAPES)}.")
    return _BUILDERS[shape]


def _possible(target: Target, fields: Fields) -> Shape | None:
    unasked: tuple[Shape, ...] = ("rank_features", "sparse_vector", "impacts")
    return next((shape for shape in unasked if not _obstacle(shape, target, fields)), None)


def _obstacle(shape: Shape, target: Target, fields: Fields) -> str | None:
    """Why `shape` can't be, plugins aside."""
    able, needs, types = {
        "rank_features": (True, "", {"rank_features"}),
        "neural_sparse": (target.supports_neural_sparse, "OpenSearch 2.14 or newer", {"rank_features"}),
        "seismic": (target.supports_seismic, "OpenSearch 3.3 or newer", {"rank_features"}),
        "sparse_vector": (target.supports_sparse_vector, "Elasticsearch 8.15 or newer", {"sparse_vector"}),
        "impacts": (True, "", None),
    }[shape]
    if not able:
        return f"it takes {needs}, and this is {target.label}"
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
    if shape not in ("neural_sparse", "seismic") or not target.version:  # Serverless has it, and lists no plugins
        return None
    return None if NEURAL_SEARCH in plugins() else f"the cluster doesn't have the plugin {NEURAL_SEARCH} on every node"


def _remedy(target: Target, fields: Fields) -> str:
    found = _possible(target, fields)
    return f"Leave --shape out: {found} is possible here." if found else "Ask another index."
