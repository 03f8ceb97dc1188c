"""What an evaluation found, as values and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stair_es.eval.differences import Differences, named

if TYPE_CHECKING:
    from stair_es.eval.metrics import Metrics
    from stair_es.eval.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Row:
    """A method in one direction."""

    method: str
    direction: str
    model: str = ""
    """The id of the model; empty for BM25."""
    exact: Metrics | None = None
    exact_reason: str = ""
    """Why there is no exact score."""
    engine: Metrics | None = None
    engine_reason: str = ""
    tokens: tuple[float, float] | None = None
    """Mean words of a document, and of a query; of dense vectors their dimensions, see `unit`."""
    unit: str = "words"
    unasked: int = 0
    """Queries without a known word: their right items are ranked last."""
    task: Task | None = None
    differences: Differences | None = None
    """Engine against exact."""
    nine_bits: bool = False
    index: str = ""
    """The temporary index, if it is kept."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON; positions have become names."""
        return {
            "method": self.method,
            "model": self.model or None,
            "direction": self.direction,
            "tokens": {"document": self.tokens[0], "query": self.tokens[1], "unit": self.unit} if self.tokens else None,
            "unasked": self.unasked,
            "exact": _metrics(self.exact, self.exact_reason),
            "engine": _metrics(self.engine, self.engine_reason),
            "differences": self._differences(),
            "index": self.index or None,
        }

    def _differences(self) -> dict[str, Any] | None:
        if self.differences is None or self.task is None:
            return None
        values = {name: value for name, value in asdict(self.differences).items() if name not in ("swaps", "lowest", "highest")}
        scores = {"lowest": self.differences.lowest, "highest": self.differences.highest} if self.nine_bits else None
        return {
            **values,
            "score_error": scores,
            "examples": [named(swap, self.task.queries, self.task.items) for swap in self.differences.swaps],
        }


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All rows, and what they were made with."""

    captions: str
    form: str
    images: int
    texts: int
    problems: tuple[str, ...]
    model: str
    """The id of the first model."""
    against: tuple[str, ...] = ()
    """Those of the others."""
    text_tower: str
    cluster: str = ""
    """What it is; empty where none was asked (`--exact`), and the next three say nothing then."""
    shape: str = ""
    depth: int = 0
    analyzer: str = ""
    """Of BM25 fields."""
    rows: tuple[Row, ...]
    versions: dict[str, str]
    seconds: float
    kept: tuple[str, ...] = ()
    """Indices that stay (`--keep`)."""

    def markdown(self) -> str:
        """Everything, in tables."""
        from stair_es.eval.markdown import markdown

        return markdown(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        names = (
            "captions",
            "form",
            "images",
            "texts",
            "model",
            "text_tower",
            "shape",
            "depth",
            "analyzer",
            "versions",
        )
        return {
            **{name: getattr(self, name) for name in names},
            "against": list(self.against),
            "cluster": self.cluster or None,
            "problems": list(self.problems),
            "rows": [row.to_dict() for row in self.rows],
            "seconds": round(self.seconds, 2),
            "kept": list(self.kept),
        }


def _metrics(metrics: Metrics | None, reason: str) -> dict[str, Any]:
    if metrics is None:
        return {"missing": reason}
    values = asdict(metrics)
    return {
        **values,
        "hit": {str(cut): value for cut, value in metrics.hit.items()},
        "recall": {str(cut): value for cut, value in metrics.recall.items()},
    }
