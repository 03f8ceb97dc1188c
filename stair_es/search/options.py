"""Search options: query type, pruning and rank fusion. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from stair_es.errors import QueryError
from stair_es.search.request import ClauseBuilder
from stair_es.types import QueryType, SparseVector

FusionMethod: TypeAlias = Literal["sum", "rrf"]


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Search options; the default is the query type that suits cluster and index."""

    query_type: QueryType | None = None
    weight_mass: float | None = None
    """Send only the heaviest tokens that make up this share (0..1) of the sum of all weights; None for all tokens."""
    fusion: FusionMethod = "sum"
    """How the rankings by vector and by caption are combined: add scores (sum), or fuse ranks (rrf)."""
    fusion_window: int = 100
    """Number of hits of each ranking that are fused."""
    search_pipeline: str | None = None
    """A search pipeline of the cluster (OpenSearch 2.8)."""
    sort: str = ""
    """The field of numbers or dates that hits are sorted by, instead of their scores, and a direction: `price:asc`. Weak matches
    are left out, and documents without the field come last."""
    build_clause: ClauseBuilder | None = None
    """Builds the clause that scores documents, instead of the dot product: then there are no weak matches."""
    explain_engine: bool = False
    """Whether the engine explains the contribution of each token as well."""
    fold_duplicates: bool = False
    """Whether hits that show the same picture become one, with the others as its `duplicates`: see `search.ranking`.
    There are fewer than `k` hits if a search without pages (rank fusion, a search pipeline) finds copies."""

    def __post_init__(self) -> None:
        """Check the weight mass, and what can't be combined."""
        check_weight_mass(self.weight_mass)
        if self.sort and self.fusion == "rrf":
            raise QueryError(
                "ranks that are fused can't be sorted by a field", "Omit rrf, or the order.", code="rrf-not-sortable"
            )


@dataclass(frozen=True, kw_only=True)
class PrunedVector:
    """A vector, split into the tokens that are sent and those that are not."""

    kept: SparseVector
    pruned: SparseVector


def check_weight_mass(weight_mass: float | None) -> None:
    """Check that a weight mass is within (0, 1]."""
    if weight_mass is not None and not 0 < weight_mass <= 1:
        raise QueryError(
            f"the weight mass must be above 0 and at most 1, got {weight_mass:g}",
            "0.9 keeps nine tenths.",
            code="invalid-weight-mass",
        )


def prune_vector(vector: SparseVector, weight_mass: float | None) -> PrunedVector:
    """Split a vector into the heaviest tokens that make up a share (0..1) of its weight, at least one, and the rest."""
    count = len(vector) if weight_mass is None else _count_for_mass(weight_mass, vector.weights)
    return PrunedVector(kept=vector.top(count), pruned=SparseVector(vector.tokens[count:], vector.weights[count:]))


def _count_for_mass(mass: float, weights: Sequence[float]) -> int:
    """Count the heaviest tokens that reach the share `mass`; `weights` are sorted, heaviest first."""
    threshold = mass * math.fsum(weights)
    total = 0.0
    for count, weight in enumerate(weights, start=1):
        total += weight
        if total >= threshold:
            return count
    return len(weights)
