"""Run retrieval methods: exactly and, in a temporary index, on the cluster; one query at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stair_es.errors import QueryError
from stair_es.eval.metrics import compute_hit_ranks, compute_ranks, summarize_ranks
from stair_es.eval.retrieval.ranking_diff import RankingDiff, compare_rankings, sum_ranking_diffs
from stair_es.eval.retrieval.report import MethodRow
from stair_es.eval.retrieval.temporary_index import TemporaryIndex, create_temporary_index

if TYPE_CHECKING:
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.cluster.metadata.index_metadata import IndexSpec
    from stair_es.eval.metrics import Doubles
    from stair_es.eval.retrieval.methods import Clause, RetrievalMethod
    from stair_es.types import PartProgressCallback

_ENGINE_ALONE = "only the engine defines its scores (index statistics, rounded lengths)"


@dataclass(frozen=True, kw_only=True)
class RetrievalRunner:
    """Runs retrieval methods on a cluster."""

    cluster: Cluster
    index_prefix: str
    """Prefix of the names of the temporary indices."""
    index_spec: IndexSpec
    """Spec of the temporary indices."""
    depth: int
    keep_index: bool
    progress: PartProgressCallback

    def run_methods(self, methods: list[RetrievalMethod]) -> list[MethodRow]:
        """Return a row per method; exact scores only for methods without a corpus. Methods with the same corpus share its index.

        A query that the cluster rejects ends only its own method, so that the results of the others aren't lost.

        Raises:
            ClusterError: If the cluster failed, or rejected an index or a document.
        """
        rows = build_exact_rows([method for method in methods if method.corpus is None])
        total = sum(len(method.task.queries) for method in methods if method.corpus is not None)
        done = 0
        for corpus in {id(method.corpus): method.corpus for method in methods}.values():
            if corpus is None:
                continue
            with create_temporary_index(
                self.cluster,
                corpus,
                run=self.index_prefix,
                index_spec=self.index_spec,
                keep=self.keep_index,
            ) as index:
                for method in methods:
                    if method.corpus is corpus:
                        result = _MethodResult(method)
                        try:
                            for query in result.run_queries(index, self.depth):
                                self.progress("queries", done + query + 1, total)
                            rows.append(result.build_row(index, keep=self.keep_index))
                        except QueryError as error:
                            rows.append(result.build_row(index, keep=self.keep_index, unavailable_reason=error.message))
                        done += len(method.task.queries)
        return rows


def build_exact_rows(methods: list[RetrievalMethod]) -> list[MethodRow]:
    """Build a row per method, without a cluster."""
    return [_MethodResult(method).build_row(None) for method in methods]


@dataclass
class _MethodResult:
    """Result of one method: the ranks of the relevant items of each query."""

    method: RetrievalMethod
    engine_ranks: list[tuple[int, ...]] = field(default_factory=list)
    diffs: list[RankingDiff] = field(default_factory=list)
    truncated: int = 0
    queries_without_tokens: int = 0

    def run_queries(self, index: TemporaryIndex, depth: int) -> Iterator[int]:
        """Run all queries on the cluster; yield the number of each completed query."""
        task = self.method.task
        items = len(task.items)
        clauses = (self._build_clause(query) for query in range(len(task.queries)))
        for query, hits in enumerate(index.search_queries(clauses, min(depth, items))):
            self.engine_ranks.append(compute_hit_ranks(hits.items, hits.scores, task.relevant[query], items))
            engine_query = self.method.build_query(query)
            if engine_query.clause is not None and self.method.score_query is not None and not engine_query.truncated:
                scores_N = self.method.score_query(query)
                nine_bits = self.method.nine_bits
                self.diffs.append(compare_rankings(query, scores_N, hits.items, hits.scores, nine_bits=nine_bits))
            yield query

    def _build_clause(self, query: int) -> Clause | None:
        engine_query = self.method.build_query(query)
        self.truncated += bool(engine_query.truncated)
        self.queries_without_tokens += engine_query.clause is None
        return engine_query.clause

    def build_row(self, index: TemporaryIndex | None, *, keep: bool = False, unavailable_reason: str = "") -> MethodRow:
        """Build the method's row: after `run_queries`, or without the cluster if there is none or a reason against it."""
        method, task = self.method, self.method.task
        unavailable_reason = unavailable_reason or method.unavailable_reason
        searched = None if unavailable_reason else index
        scores: Callable[[int], Doubles] | None = method.score_query
        exact = (
            summarize_ranks([compute_ranks(scores(query), relevant) for query, relevant in enumerate(task.relevant)])
            if scores
            else None
        )
        return MethodRow(
            method=method.name,
            model=method.model,
            direction=task.direction,
            exact=exact,
            exact_reason="" if exact else _ENGINE_ALONE,
            engine=summarize_ranks(self.engine_ranks) if searched else None,
            engine_reason=unavailable_reason,
            tokens=method.tokens,
            unit=method.unit,
            queries_without_tokens=self.queries_without_tokens,
            task=task,
            differences=sum_ranking_diffs(self.diffs, self.truncated) if searched and exact else None,
            nine_bits=method.nine_bits,
            index=index.index if index and keep else "",
        )
