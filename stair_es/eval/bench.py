"""Run retrieval methods: exactly and, in a temporary index, on the cluster; one query at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stair_es.errors import QueryError
from stair_es.eval.differences import Differences, compare, total
from stair_es.eval.encode import Progress
from stair_es.eval.metrics import ranks, ranks_of_hits, summary
from stair_es.eval.report import Row
from stair_es.eval.trial import Trial, trial

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from stair_es.cluster.connect import Connection
    from stair_es.cluster.identity import Identity
    from stair_es.eval.methods import Clause, Method
    from stair_es.eval.metrics import Doubles

_ENGINE_ALONE = "only the engine defines its scores (index statistics, rounded lengths)"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Runs retrieval methods on a cluster."""

    client: OpenSearch
    connection: Connection
    run: str
    """Prefix of the names of the temporary indices."""
    identity: Identity
    """Index metadata of the temporary indices."""
    depth: int
    keep: bool
    say: Callable[[str], None]
    progress: Progress

    def rows(self, methods: list[Method]) -> list[Row]:
        """Return a row per method; exact scores only for methods without a corpus. Methods with the same corpus share its index.

        A query that the cluster rejects ends only its own method, so that the results of the others aren't lost.

        Raises:
            ClusterError: If the cluster failed, or rejected an index or a document.
        """
        rows = exact_rows([method for method in methods if method.corpus is None])
        total = sum(len(method.task.queries) for method in methods if method.corpus is not None)
        done = 0
        for corpus in {id(method.corpus): method.corpus for method in methods}.values():
            if corpus is None:
                continue
            with trial(
                self.client,
                self.connection,
                corpus,
                run=self.run,
                identity=self.identity,
                keep=self.keep,
                say=self.say,
            ) as there:
                for method in methods:
                    if method.corpus is corpus:
                        tally = _Tally(method)
                        try:
                            for asked in tally.ask(there, self.depth):
                                self.progress("queries", done + asked + 1, total)
                            rows.append(tally.row(there, keep=self.keep))
                        except QueryError as error:
                            rows.append(tally.row(there, keep=self.keep, obstacle=error.message))
                        done += len(method.task.queries)
        return rows


def exact_rows(methods: list[Method]) -> list[Row]:
    """Build a row per method, without a cluster."""
    return [_Tally(method).row(None) for method in methods]


@dataclass
class _Tally:
    """Result of one method: the ranks of the relevant items of each query."""

    method: Method
    engine_ranks: list[tuple[int, ...]] = field(default_factory=list)
    compared: list[Differences] = field(default_factory=list)
    cut: int = 0
    unasked: int = 0

    def ask(self, there: Trial, depth: int) -> Iterator[int]:
        """Run all queries on the cluster; yield the number of each completed query."""
        task = self.method.task
        items = len(task.items)
        clauses = (self._clause(query) for query in range(len(task.queries)))
        for query, hits in enumerate(there.search(clauses, min(depth, items))):
            self.engine_ranks.append(ranks_of_hits(hits.items, hits.scores, task.right[query], items))
            asked = self.method.asked(query)
            if asked.clause is not None and self.method.exact is not None and not asked.cut:
                scores_N = self.method.exact(query)
                nine_bits = self.method.nine_bits
                self.compared.append(compare(query, scores_N, hits.items, hits.scores, nine_bits=nine_bits))
            yield query

    def _clause(self, query: int) -> Clause | None:
        asked = self.method.asked(query)
        self.cut += bool(asked.cut)
        self.unasked += asked.clause is None
        return asked.clause

    def row(self, there: Trial | None, *, keep: bool = False, obstacle: str = "") -> Row:
        """Build the method's row: after `run_queries`, or without the cluster if there is none or a reason against it."""
        method, task = self.method, self.method.task
        obstacle = obstacle or method.obstacle
        answered = None if obstacle else there
        scores: Callable[[int], Doubles] | None = method.exact
        exact = summary([ranks(scores(query), right) for query, right in enumerate(task.right)]) if scores else None
        return Row(
            method=method.name,
            model=method.model,
            direction=task.direction,
            exact=exact,
            exact_reason="" if exact else _ENGINE_ALONE,
            engine=summary(self.engine_ranks) if answered else None,
            engine_reason=obstacle,
            tokens=method.tokens,
            unit=method.unit,
            unasked=self.unasked,
            task=task,
            differences=total(self.compared, self.cut) if answered and exact else None,
            nine_bits=method.nine_bits,
            index=there.index if there and keep else "",
        )
