"""How a question is asked. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from stair_es.search.body import TwoPhase
from stair_es.search.prune import check_mass
from stair_es.search.shapes import Shape

Fusion: TypeAlias = Literal["sum", "rrf"]


@dataclass(frozen=True, kw_only=True)
class How:
    """How to ask; by default exactly, in the shape that the cluster and the index want."""

    shape: Shape | None = None
    approximate: bool = False
    """Whether SEISMIC may be taken where no shape is named: it has no further pages, and can miss a hit."""
    mass: float | None = None
    """Send only the heaviest words that hold this share (0..1) of the sum of all weights; None for all words."""
    two_phase: TwoPhase | None = None
    fusion: Fusion = "sum"
    """How a vector and a caption become one ranking: their scores are added, or their ranks fused (RRF)."""
    fusion_window: int = 100
    """How many hits of each ranking are fused."""
    pipeline: str | None = None
    """A search pipeline of the cluster (OpenSearch 2.8), as `pipelines/two-phase.json` for `neural_sparse`."""
    engine_explain: bool = False
    """Let the engine say, too, what each word adds."""

    def __post_init__(self) -> None:
        """Check the number that comes from users.

        Raises:
            QueryError: `mass` is not within (0, 1].
        """
        check_mass(self.mass)
