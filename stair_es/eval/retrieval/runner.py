"""Run retrieval methods: exactly and, in a temporary index, on the cluster; one query at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from stair_es._itertools import batched
from stair_es.cluster.bulk.writer import BulkWriter
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.exceptions import translate_errors
from stair_es.cluster.client.opensearch import exceptions
from stair_es.cluster.client.products import get_read_method
from stair_es.cluster.index.lifecycle import open_index
from stair_es.cluster.metadata.index_metadata import IndexSpec
from stair_es.errors import ClusterError, QueryError
from stair_es.eval.metrics import Doubles, compute_hit_ranks, compute_ranks, summarize_ranks
from stair_es.eval.retrieval.methods import Clause, EvalCorpus, RetrievalMethod
from stair_es.eval.retrieval.ranking_diff import RankingDiff, compare_rankings, sum_ranking_diffs
from stair_es.eval.retrieval.report import MethodRow
from stair_es.retry import RetryPolicy
from stair_es.types import PartProgressCallback

logger = logging.getLogger(__name__)

_QUERIES_PER_REQUEST = 50
_DOCUMENTS_PER_REQUEST = 1000
_RESPONSE_FILTER = "responses.hits.hits._id,responses.hits.hits._score,responses.error,responses._shards.failed"
_AFTER_FAILURE = RetryPolicy(attempts=4)
_ENGINE_ALONE = "only the engine defines its scores (index statistics, rounded lengths)"


@dataclass(frozen=True)
class EngineHits:
    """Hits of one query."""

    items: tuple[int, ...]
    """Positions in the gallery, best first."""
    scores: tuple[float, ...]


NO_ENGINE_HITS = EngineHits((), ())


@dataclass(frozen=True, kw_only=True)
class TemporaryIndex:
    """An index with the documents of a corpus."""

    cluster: Cluster
    index: str

    def search_queries(self, clauses: Iterable[Clause | None], depth: int) -> Iterator[EngineHits]:
        """Yield the best `depth` hits of each query; none for None.

        Raises:
            QueryError: If the cluster rejected a query, for example a text with more words than the clause limit.
            ClusterError: If the cluster failed, or searched only a part of the index.
        """
        for batch in batched(clauses, _QUERIES_PER_REQUEST):
            lines: list[dict[str, Any]] = []
            for clause in batch:
                if clause is not None:
                    lines += [{}, {"size": depth, "track_total_hits": False, "_source": False, "query": clause}]
            responses = iter(self._send_msearch(lines) if lines else ())
            for clause in batch:
                yield _parse_hits(next(responses)) if clause is not None else NO_ENGINE_HITS

    def _send_msearch(self, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        params = {"filter_path": _RESPONSE_FILTER}
        send, method = self.cluster.client.transport.perform_request, get_read_method(self.cluster.product)
        body = b"".join(orjson.dumps(line) + b"\n" for line in lines)
        headers = {"content-type": "application/x-ndjson"}
        response = self.cluster.call(send, method, f"/{self.index}/_msearch", params=params, body=body, headers=headers)
        responses: list[dict[str, Any]] = response["responses"]
        return responses


@contextmanager
def create_temporary_index(
    cluster: Cluster, corpus: EvalCorpus, *, run: str, index_spec: IndexSpec, keep: bool
) -> Iterator[TemporaryIndex]:
    """Create the index of a corpus within the context.

    Args:
        cluster: The cluster.
        corpus: Documents to write.
        run: Name of the run: indices are called `<run>-<corpus>`.
        index_spec: What the index is made with.
        keep: Whether to keep the index.

    Raises:
        ClusterError: If the cluster rejected the index or a document.
    """
    alias = f"{run}-{corpus.name}"
    try:
        index = open_index(cluster, alias, corpus.body, index_spec)
        writer = BulkWriter(cluster=cluster, index=index.name)
        for batch in batched(enumerate(corpus.documents()), _DOCUMENTS_PER_REQUEST):
            result = writer.write([(str(position), document) for position, document in batch])
            rejected = {id_: reason for id_, reason in result.outcomes.items() if reason is not None}
            if rejected:
                id_, reason = next(iter(rejected.items()))
                raise ClusterError(
                    f"the cluster rejected {len(rejected)} of {len(batch)} documents, number {id_}: {reason}",
                    code="documents-rejected",
                )
        cluster.refresh(index.name)
        yield TemporaryIndex(cluster=cluster, index=index.name)
    finally:
        if not keep:
            _delete_indices(cluster, alias)


def detect_analyzer(cluster: Cluster) -> str:
    """Return `english`, unless the cluster reports that it lacks it: then `standard`, which has no stemming."""
    try:
        with translate_errors(cluster.connection, passthrough=lambda error: error.status_code in (400, 403)):
            cluster.client.indices.analyze(body={"analyzer": "english", "text": "dogs"})
    except exceptions.TransportError as error:  # the request names no index, so a user of some indices may not send it
        return "standard" if error.status_code == 400 else "english"
    return "english"


def _delete_indices(cluster: Cluster, alias: str) -> None:
    """Delete all indices with the name of the run, also one whose creation was interrupted."""
    try:
        names = cluster.call(cluster.client.indices.get, index=f"{alias}-*", retry=_AFTER_FAILURE)
        for name in names:
            cluster.call(cluster.client.indices.delete, index=name, ignore=[404], retry=_AFTER_FAILURE)
    except ClusterError as error:
        logger.warning("temporary indices %s-* could not be deleted: %s", alias, error.message)


def _parse_hits(response: dict[str, Any]) -> EngineHits:
    if response.get("error"):
        causes = response["error"].get("root_cause") or [response["error"]]
        raise QueryError(f"the cluster rejected a query: {str(causes[0].get('reason', causes[0]))[:300]}", code="query-rejected")
    if response.get("_shards", {}).get("failed"):
        raise ClusterError("a part of the index couldn't be searched", code="index-partly-searched")
    hits = response.get("hits", {}).get("hits", [])
    return EngineHits(tuple(int(hit["_id"]) for hit in hits), tuple(float(hit["_score"]) for hit in hits))


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
