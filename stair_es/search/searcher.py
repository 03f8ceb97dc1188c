"""`Searcher`: send search queries to a cluster, and return ranked hits with token contributions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stair_es.cluster.connect import Connection, probe, translated
from stair_es.cluster.target import Target, plugins
from stair_es.config import MAX_HITS
from stair_es.errors import ClusterError, ClusterUnreachable, QueryError
from stair_es.search.body import UNREAD, Asked, find_obstacle, request_body
from stair_es.search.clauses import sendable
from stair_es.search.cursor import After, sort_hits
from stair_es.search.fusing import check_fusable, fused
from stair_es.search.hits import Hit, Result, hit_of, only
from stair_es.search.known import Known, look
from stair_es.search.prune import How, pruned
from stair_es.search.question import NOTHING, Question
from stair_es.search.shapes import Shape, choose
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """A request and its response."""

    asked: Asked
    shape: Shape
    remarks: tuple[str, ...]
    body: dict[str, Any]


class Searcher:
    """Search client for one index and the vectors of one model. Close it, or use it in a `with` statement.

    Connects lazily: the first search fetches the clause limit of the cluster and the index info (model and fields). Later
    searches fetch the index info again when a response shows that the alias points to another index.
    """

    def __init__(self, connection: Connection, index: str, model_id: str) -> None:
        """Create the client.

        Args:
            connection: The connection to the cluster.
            index: An alias or index.
            model_id: The `model_id` of the encoder of the query vectors.
        """
        self._connection = connection
        self._index = index
        self._model_id = model_id
        self._client = connection.client()
        self._target: Target | None = None
        self._info: Known | None = None

    def __enter__(self) -> Searcher:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()

    def search(
        self, question: Question | SparseVector, k: int = 10, *, after: After | None = None, how: How | None = None
    ) -> Result:
        """Search for the `k` best documents.

        Args:
            question: The search query, or only a vector.
            k: Number of hits.
            after: `SearchResult.after` of the previous page.
            how: The search options.

        Raises:
            QueryError: If the query is empty or not supported, if the index doesn't exist, or if another model wrote it.
            IndexMismatch: If the index was not written by stair-es.
            ClusterError: Or a subclass, if the cluster rejects the request or returns partial results.
        """
        how = how or How()
        search_query = Question(vector=question) if isinstance(question, SparseVector) else question
        if not 1 <= k <= MAX_HITS:
            raise QueryError(f"k must be between 1 and {MAX_HITS}, got {k}")
        split = pruned(search_query.vector, how.mass)
        search_query = replace(search_query, vector=split.kept)
        if how.fusion == "rrf":
            return replace(self._fused(search_query, k, after, how), dropped=split.dropped)
        return replace(self._page(search_query, k, after, how), dropped=split.dropped)

    def asked_of(self, question: Question) -> Question:
        """Rewrite a query by the token policy of the index.

        Raises:
            QueryError: As for `search`.
            ClusterError: As for `search`.
        """
        return self._ready()[1].asked_of(question)

    def list_remarks(self, question: Question) -> list[str]:
        """List effects of the query's filters that may be unintended.

        Raises:
            ClusterError: As for `search`.
        """
        return self._ready()[1].list_remarks(question)

    def count(self, question: Question, *, how: How | None = None) -> int:
        """Count all documents that match the tokens that are sent, exactly and without two-phase search.

        Raises:
            QueryError: As for `search`.
            ClusterError: As for `search`.
        """
        how = how or How()
        pruned_query = replace(question, vector=pruned(question.vector, how.mass).kept)
        exact = replace(how, two_phase=None, approximate=False, shape=None if how.shape == "seismic" else how.shape)
        return int(self._answer(pruned_query, 0, None, exact, total=True).body["hits"]["total"]["value"])

    def document(self, reference: str) -> Hit | None:
        """Find the document with an id or URI, regardless of its score; None if there is none.

        Raises:
            ClusterError: As for `search`.
        """
        if not reference or not sendable(reference):
            return None
        either = {"bool": {"should": [{"ids": {"values": [reference]}}, {"term": {"uri": reference}}]}}
        body = {"size": 1, "query": either, "_source": {"excludes": UNREAD}}
        hits = self._send(body)["hits"]["hits"]
        return hit_of(hits[0], NOTHING) if hits else None

    def matches(self, document: Hit, clause: Mapping[str, Any]) -> bool:
        """Check whether a document matches a query clause.

        Raises:
            ClusterError: As for `search`.
        """
        both = {"bool": {"filter": [only(document), clause]}}
        return bool(self._send({"size": 1, "query": both, "_source": False})["hits"]["hits"])

    def _page(self, question: Question, k: int, after: After | None, how: How) -> Result:
        answer = self._answer(question, k, after, how)
        found = answer.body["hits"]["hits"]
        if answer.shape == "seismic":
            # The engine doesn't sort rescored hits in a total order, and keeps candidates without any token of the query.
            found = sort_hits([hit for hit in found if hit["_score"] > 0])
        hits = tuple(hit_of(hit, answer.asked.sent) for hit in found)
        if not all(math.isfinite(hit.score) for hit in hits):
            raise QueryError("scores overflow float32, so the ranking is undefined", "Scale down the query weights.")
        return Result(
            hits=hits,
            took_ms=int(answer.body["took"]),
            cut=answer.asked.cut,
            dropped=NOTHING,
            shape=answer.shape,
            after=found[-1].get("sort") if len(found) == k else None,
            remarks=answer.remarks,
        )

    def _fused(self, question: Question, k: int, after: After | None, how: How) -> Result:
        """Search by vector and by caption, and fuse both rankings by rank."""
        check_fusable(question, after)
        window, how = max(how.fusion_window, k), replace(how, approximate=False)  # approximate ranks far down are unreliable
        words = self._page(replace(question, caption=""), window, None, how)
        alone = replace(question, vector=NOTHING, caption_weight=1.0)  # the weight applies to ranks; scores could underflow
        caption = self._page(alone, window, None, replace(how, two_phase=None))
        return fused(words, caption, question.caption_weight, k)

    def _answer(self, question: Question, k: int, after: After | None, how: How, *, total: bool = False) -> _Answer:
        """Send a query; send it again if the alias has moved since the index info was fetched."""
        for last in (False, True):
            target, info = self._ready()
            info.check_caption(question)
            info.check_filters(question)
            query_type, remarks = self._choose(question, k, after, how)
            request = request_body(
                info.asked_of(question),
                query_type,
                max_clauses=target.max_clauses,
                k=k,
                after=after,
                two_phase=how.two_phase,
                ordered=info.ordered and not how.pipeline,  # the two-phase processor rescores, which excludes sorting
                token_ids=info.token_ids if query_type == "seismic" else None,
            )
            try:
                extra = {"track_total_hits": total, **({"explain": True} if how.engine_explain else {})}
                response = self._send({**request.body, **extra}, how.pipeline)
            except ClusterUnreachable:
                raise
            except ClusterError as error:  # such as a `rank_feature` clause on a `sparse_vector` field
                if "maxClauseCount" in error.message:
                    raise QueryError(*_too_many(target)) from None
                if "Failed to parse query" in error.message:
                    raise QueryError(*_unread(error)) from None
                if last or self._look() == info:
                    raise
                self._info = None
                continue
            if last or {hit["_index"] for hit in response["hits"]["hits"]} <= set(info.fields):
                break
            self._info = None
        return _Answer(asked=request, shape=query_type, remarks=remarks, body=response)

    def _choose(self, question: Question, k: int, after: After | None, how: How) -> tuple[Shape, tuple[str, ...]]:
        """Select the query type, with a remark if SEISMIC is selected automatically, or can't be used."""
        target, info = self._ready()
        approximate = how.approximate and how.shape is None and not how.pipeline and info.has_ids_of(question)
        query_type = choose(target, info.one, self._plugins, how.shape, approximate=approximate)
        if query_type != "seismic" or not approximate:
            return query_type, ()
        obstacle = find_obstacle(question, k, after=after, two_phase=how.two_phase is not None)
        if obstacle is None:
            return query_type, (
                "found by SEISMIC, which can miss hits; the query type rank_features finds all, and has pagination",
            )
        exact = choose(target, info.one, self._plugins)
        return exact, (f"searched with {exact} and not with SEISMIC: {obstacle}",)

    def _send(self, body: Mapping[str, Any], pipeline: str | None = None) -> dict[str, Any]:
        params = {"allow_partial_search_results": "false", **({"search_pipeline": pipeline} if pipeline else {})}
        with translated(self._connection):
            answer: dict[str, Any] = self._client.search(index=self._index, body=dict(body), params=params)
        return answer

    def _ready(self) -> tuple[Target, Known]:
        """Return the target and the index info; fetch them at the first call."""
        if self._target is None:
            self._target = probe(self._client, self._connection)
        if self._info is None:
            self._info = self._look()
        return self._target, self._info

    def _look(self) -> Known:
        info = look(self._client, self._connection, self._index)
        info.check_model(self._model_id)
        return info

    def _plugins(self) -> frozenset[str]:
        return plugins(self._client, self._connection)


def _too_many(target: Target) -> tuple[str, str]:
    return (
        f"the caption and the filters need more clauses than the cluster allows ({target.max_clauses:,})",
        "Shorten them, or send fewer tokens (--mass).",
    )


def _unread(error: ClusterError) -> tuple[str, str]:
    reason = error.message[error.message.index("Failed to parse query") :].splitlines()[0]
    return (
        f"the cluster can't read the filter: {reason}",
        'In a query string, quote values with : / or other operators (uri:"file:///a.jpg"), or write the clause as JSON.',
    )
