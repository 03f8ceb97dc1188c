"""The report of a retrieval evaluation, as values, JSON, and Markdown tables that are readable in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stair_es.eval.metrics import RetrievalMetrics
from stair_es.eval.retrieval.ranking_diff import RankingDiff, describe_swap
from stair_es.eval.retrieval.tasks import RetrievalTask
from stair_es.eval.tables import render_problems, render_table, shorten_cell


@dataclass(frozen=True, kw_only=True)
class MethodRow:
    """A method in one direction."""

    method: str
    direction: str
    model: str = ""
    """Id of the model; empty for BM25."""
    exact: RetrievalMetrics | None = None
    exact_reason: str = ""
    """Why there are no exact scores."""
    engine: RetrievalMetrics | None = None
    engine_reason: str = ""
    tokens: tuple[float, float] | None = None
    """Mean number of tokens of documents and of queries; for dense vectors the dimensions, see `unit`."""
    unit: str = "tokens"
    queries_without_tokens: int = 0
    """Queries without a known token; their relevant items are ranked last."""
    task: RetrievalTask | None = None
    differences: RankingDiff | None = None
    """Differences between engine and exact ranking."""
    nine_bits: bool = False
    index: str = ""
    """Name of the temporary index, if it is kept."""

    def to_dict(self) -> dict[str, Any]:
        """Return the row for JSON, with names instead of positions."""
        return {
            "method": self.method,
            "model": self.model or None,
            "direction": self.direction,
            "tokens": {"document": self.tokens[0], "query": self.tokens[1], "unit": self.unit} if self.tokens else None,
            "queries_without_tokens": self.queries_without_tokens,
            "exact": _export_metrics(self.exact, self.exact_reason),
            "engine": _export_metrics(self.engine, self.engine_reason),
            "differences": self._export_differences(),
            "index": self.index or None,
        }

    def _export_differences(self) -> dict[str, Any] | None:
        if self.differences is None or self.task is None:
            return None
        values = {name: value for name, value in asdict(self.differences).items() if name not in ("swaps", "lowest", "highest")}
        scores = {"lowest": self.differences.lowest, "highest": self.differences.highest} if self.nine_bits else None
        return {
            **values,
            "score_error": scores,
            "examples": [describe_swap(swap, self.task.queries, self.task.items) for swap in self.differences.swaps],
        }


@dataclass(frozen=True, kw_only=True)
class RetrievalReport:
    """All rows, and how they were measured."""

    captions: str
    format: str
    images: int
    texts: int
    problems: tuple[str, ...]
    model: str
    """Id of the first model."""
    compared: tuple[str, ...] = ()
    """Ids of the other models."""
    text_tower: str
    cluster: str = ""
    """Name and version; empty with `--exact`, and the next three are unset then."""
    query_type: str = ""
    depth: int = 0
    analyzer: str = ""
    """Analyzer of BM25 fields."""
    rows: tuple[MethodRow, ...]
    versions: dict[str, str]
    seconds: float
    kept_indices: tuple[str, ...] = ()
    """Indices that were kept (`--keep-index`)."""

    def to_markdown(self) -> str:
        """Return the report as Markdown tables."""
        return render_retrieval_report(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        names = (
            "captions",
            "format",
            "images",
            "texts",
            "model",
            "text_tower",
            "query_type",
            "depth",
            "analyzer",
            "versions",
        )
        return {
            **{name: getattr(self, name) for name in names},
            "compared": list(self.compared),
            "cluster": self.cluster or None,
            "problems": list(self.problems),
            "rows": [row.to_dict() for row in self.rows],
            "seconds": round(self.seconds, 2),
            "kept_indices": list(self.kept_indices),
        }


def _export_metrics(metrics: RetrievalMetrics | None, reason: str) -> dict[str, Any]:
    if metrics is None:
        return {"unavailable_reason": reason}
    values = asdict(metrics)
    return {
        **values,
        "hit": {str(cut): value for cut, value in metrics.hit.items()},
        "recall": {str(cut): value for cut, value in metrics.recall.items()},
    }


_HEAD = ("method", "model", "scores", "R@1", "R@5", "R@10", "nDCG@10", "MRR", "median rank", "tokens doc / query")
_MAX_EXAMPLES = 5
_WHY_FEWER = " (texts of one image that has another text)"


def render_retrieval_report(report: RetrievalReport) -> str:
    """Render the report as Markdown."""
    parts = [
        f"# {report.captions}: {report.images} images, {report.texts} texts",
        f"{report.format}; {_describe_models(report)}; {_describe_cluster(report)}. "
        "R@k, nDCG and MRR in percent; equal scores count against the method.",
    ]
    parts += render_problems(report.problems)
    for direction in dict.fromkeys(row.direction for row in report.rows):
        rows = [row for row in report.rows if row.direction == direction]
        parts += [
            f"## {direction}",
            render_table(_HEAD, _format_rows(rows, exact_only=not report.cluster)),
            *_list_reasons(rows, report),
        ]
    if report.cluster:
        parts += ["## Engine against exact", _render_differences(report.rows), *_render_examples(report.rows)]
    parts.append(", ".join(f"{name} {number}" for name, number in report.versions.items()) + f"; {report.seconds:.1f} s")
    if report.kept_indices:
        parts.append("Indices kept: " + ", ".join(report.kept_indices))
    return "\n\n".join(parts) + "\n"


def _describe_models(report: RetrievalReport) -> str:
    others = f"s {report.model}, {', '.join(report.compared)}" if report.compared else f" {report.model}"
    return f"model{others} (text tower {report.text_tower})"


def _describe_cluster(report: RetrievalReport) -> str:
    if not report.cluster:
        return "exact dot products, no cluster"
    return (
        f"{report.cluster}, query type {report.query_type}, the first {report.depth:,} hits of each query; BM25 with the analyzer"
        f" {report.analyzer}"
    )


def _format_rows(rows: Sequence[MethodRow], *, exact_only: bool) -> Iterable[Sequence[str]]:
    for row in rows:
        size = _format_size(row)
        if row.exact is None and row.engine is None:
            yield [row.method, row.model, "both", *["n/a"] * 6, size]
            continue
        for kind, metrics in (("exact", row.exact), ("engine", row.engine))[: 1 if exact_only else 2]:
            yield [row.method, row.model, kind, *(_format_metrics(metrics) if metrics else ["n/a"] * 6), size]


def _format_size(row: MethodRow) -> str:
    if row.tokens is None:
        return ""
    if row.unit == "dimensions":
        return f"{row.tokens[0]:.0f} dimensions"
    return f"{row.tokens[0]:.1f} / {row.tokens[1]:.1f}"


def _format_metrics(metrics: RetrievalMetrics) -> list[str]:
    values = [*metrics.hit.values(), metrics.ndcg, metrics.mrr]
    return [*(f"{100 * value:.1f}" for value in values), f"{metrics.median_rank:g}"]


def _list_reasons(rows: Sequence[MethodRow], report: RetrievalReport) -> list[str]:
    """List what a reader must know about the numbers above."""
    lines = []
    query_count = max((metrics.queries for row in rows if (metrics := row.engine or row.exact)), default=0)
    for row in rows:
        name = _name_method(row, report)
        if row.exact_reason and row.exact_reason == row.engine_reason:
            lines.append(f"- {name} n/a: {row.exact_reason}")
        else:
            lines += [f"- {name}, exact n/a: {row.exact_reason}"] if row.exact_reason else []
            lines += [f"- {name}, engine n/a: {row.engine_reason}"] if row.engine_reason and report.cluster else []
        if row.queries_without_tokens:
            lines.append(f"- {name}: {row.queries_without_tokens} queries have no known token: their relevant items rank last")
        metrics = row.engine or row.exact
        if metrics and metrics.queries != query_count:
            lines.append(
                f"- {name}: {metrics.queries} of {query_count} queries{_WHY_FEWER if row.method == 'BM25 on captions' else ''}"
            )
    return ["\n".join(lines)] if lines else []


def _name_method(row: MethodRow, report: RetrievalReport) -> str:
    """Return the method, and its model if there are several."""
    return f"{row.method} of {row.model}" if row.model and report.compared else row.method


def _render_differences(rows: Sequence[MethodRow]) -> str:
    head = (
        "direction",
        "method",
        "model",
        "queries",
        "same first 10",
        "swapped within 9 bits",
        "other",
        "truncated",
        "overlap@10",
        "score error",
    )
    lines = []
    for row in rows:
        diff = row.differences
        if diff is not None:
            error = f"{100 * diff.lowest:+.3f} to {100 * diff.highest:+.3f} %" if row.nine_bits else "other scale"
            explained = str(diff.explained) if row.nine_bits else "n/a"
            counts = [str(diff.queries), str(diff.same), explained, str(diff.unexplained), str(diff.truncated)]
            lines.append([row.direction, row.method, row.model, *counts, f"{100 * diff.overlap:.1f} %", error])
    return render_table(head, lines) if lines else "Nothing to compare."


def _render_examples(rows: Sequence[MethodRow]) -> list[str]:
    lines = []
    for row in rows:
        if row.differences is None or row.task is None:
            continue
        lower = [swap for swap in row.differences.swaps if swap.engine_item_score <= swap.exact_item_score]
        for swap in lower[:_MAX_EXAMPLES]:  # of two swapped items, list one
            query, engine_item, exact_item = (
                row.task.queries[swap.query],
                row.task.items[swap.engine_item],
                row.task.items[swap.exact_item],
            )
            difference = (swap.engine_item_score / swap.exact_item_score - 1) * 100 if swap.exact_item_score else 0.0
            lines.append(
                [
                    f"{row.direction}, {row.method}",
                    shorten_cell(query),
                    str(swap.rank),
                    f"{shorten_cell(engine_item)} ({swap.engine_item_score:.5f})",
                    f"{shorten_cell(exact_item)} ({swap.exact_item_score:.5f})",
                    f"{difference:+.3f} %",
                ]
            )
    head = ("method", "query", "rank", "engine hit (exact score)", "exact hit (exact score)", "difference")
    return [render_table(head, lines)] if lines else []
