"""A temporary index: written, searched in batches, and always deleted."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opensearchpy import exceptions

from stair_es._itertools import batched
from stair_es.cluster.bulk.writer import BulkWriter
from stair_es.cluster.client.exceptions import translate_errors
from stair_es.cluster.index.lifecycle import open_index
from stair_es.cluster.metadata.index_metadata import IndexSpec
from stair_es.errors import ClusterError, QueryError
from stair_es.retry import RetryPolicy

if TYPE_CHECKING:
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.eval.retrieval.methods import Clause, EvalCorpus

logger = logging.getLogger(__name__)

_QUERIES_PER_REQUEST = 50
_DOCUMENTS_PER_REQUEST = 1000
_RESPONSE_FILTER = "responses.hits.hits._id,responses.hits.hits._score,responses.error,responses._shards.failed"
_AFTER_FAILURE = RetryPolicy(attempts=4)


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
        response = self.cluster.call(self.cluster.client.msearch, body=lines, index=self.index, params=params)
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
                raise ClusterError(f"the cluster rejected {len(rejected)} of {len(batch)} documents, number {id_}: {reason}")
        cluster.refresh(index.name)
        yield TemporaryIndex(cluster=cluster, index=index.name)
    finally:
        if not keep:
            _delete_indices(cluster, alias)


def detect_analyzer(cluster: Cluster) -> str:
    """Return `english` if the cluster has it, as usual; else `standard`, which has no stemming."""
    try:
        with translate_errors(cluster.connection, passthrough=lambda error: error.status_code == 400):
            cluster.client.indices.analyze(body={"analyzer": "english", "text": "dogs"})
    except exceptions.RequestError:
        return "standard"
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
        raise QueryError(f"the cluster rejected a query: {str(causes[0].get('reason', causes[0]))[:300]}")
    if response.get("_shards", {}).get("failed"):
        raise ClusterError("a part of the index couldn't be searched")
    hits = response.get("hits", {}).get("hits", [])
    return EngineHits(tuple(int(hit["_id"]) for hit in hits), tuple(float(hit["_score"]) for hit in hits))
