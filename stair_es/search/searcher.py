"""Ask a cluster: a question in, ranked hits with their reasons out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stair_es.cluster.connect import Connection, probe, translated
from stair_es.cluster.target import Target, plugins
from stair_es.config import MAX_HITS
from stair_es.errors import ClusterError, ClusterUnreachable, QueryError
from stair_es.search.approximate import find_obstacle
from stair_es.search.body import UNREAD, Asked, request_body
from stair_es.search.clauses import sendable
from stair_es.search.cursor import After, sort_hits
from stair_es.search.fusing import check_fusable, fused
from stair_es.search.hits import Hit, Result, hit_of, only
from stair_es.search.how import How
from stair_es.search.known import Known, look
from stair_es.search.prune import pruned
from stair_es.search.question import NOTHING, Question
from stair_es.search.shapes import Shape, choose
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What was sent, and what came back."""

    asked: Asked
    shape: Shape
    remarks: tuple[str, ...]
    body: dict[str, Any]


class Searcher:
    """One index, searched with the vectors of one model. Close it, or use it in a `with` statement.

    The first search looks at the cluster (its clause limit) and at the index (the model that wrote it, and its fields); a
    later one looks again when an answer shows that the alias stands for another index by now.
    """

    def __init__(self, connection: Connection, index: str, model_id: str) -> None:
        """A searcher; nothing is asked yet.

        Args:
            connection: Where the cluster is.
            index: An alias or index.
            model_id: `model_id` of the encoder that the query vectors come from.
        """
        self._connection = connection
        self._index = index
        self._model_id = model_id
        self._client = connection.client()
        self._target: Target | None = None
        self._known: Known | None = None

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
        """The `k` best documents.

        Args:
            question: What is looked for; a vector alone is looked for as it is.
            k: How many hits.
            after: `Result.after` of the page before.
            how: How to ask.

        Raises:
            QueryError: The question is empty or can't be asked so, there is no such index, or another model wrote it.
            IndexMismatch: The index is not one of ours.
            ClusterError: Or a leaf of it, for everything that the cluster refuses; partial answers count as refused.
        """
        how = how or How()
        asked = Question(vector=question) if isinstance(question, SparseVector) else question
        if not 1 <= k <= MAX_HITS:
            raise QueryError(f"k must be between 1 and {MAX_HITS}, got {k}")
        parts = pruned(asked.vector, how.mass)
        asked = replace(asked, vector=parts.kept)
        if how.fusion == "rrf":
            return replace(self._fused(asked, k, after, how), dropped=parts.dropped)
        return replace(self._page(asked, k, after, how), dropped=parts.dropped)

    def asked_of(self, question: Question) -> Question:
        """The question in the words of the index: as its word policy made them.

        Raises:
            QueryError: As for `search`.
            ClusterError: As for `search`.
        """
        return self._ready()[1].asked_of(question)

    def list_remarks(self, question: Question) -> list[str]:
        """What the index makes of the question that its writer may not have meant.

        Raises:
            ClusterError: As for `search`.
        """
        return self._ready()[1].list_remarks(question)

    def count(self, question: Question, *, how: How | None = None) -> int:
        """How many documents match: all that are found by the words that are sent, in one phase and exactly.

        Raises:
            QueryError: As for `search`.
            ClusterError: As for `search`.
        """
        how = how or How()
        asked = replace(question, vector=pruned(question.vector, how.mass).kept)
        exact = replace(how, two_phase=None, approximate=False, shape=None if how.shape == "seismic" else how.shape)
        return int(self._answer(asked, 0, None, exact, total=True).body["hits"]["total"]["value"])

    def document(self, reference: str) -> Hit | None:
        """The document with this id or URI, whatever its score; None if there is none.

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
        """Whether a document matches a query clause.

        Raises:
            ClusterError: As for `search`.
        """
        both = {"bool": {"filter": [only(document), clause]}}
        return bool(self._send({"size": 1, "query": both, "_source": False})["hits"]["hits"])

    def _page(self, question: Question, k: int, after: After | None, how: How) -> Result:
        answer = self._answer(question, k, after, how)
        found = answer.body["hits"]["hits"]
        if answer.shape == "seismic":
            # The engine puts what it rescores in no total order, and keeps candidates that no token of the question is in.
            found = sort_hits([hit for hit in found if hit["_score"] > 0])
        hits = tuple(hit_of(hit, answer.asked.sent) for hit in found)
        if not all(math.isfinite(hit.score) for hit in hits):
            raise QueryError("scores leave float32, in which the engine counts: they have no order any more", "Scale the query.")
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
        """Two rankings, one by the vector and one by the caption, fused by ranks."""
        check_fusable(question, after)
        window, how = max(how.fusion_window, k), replace(how, approximate=False)  # ranks far down would be guesses
        words = self._page(replace(question, caption=""), window, None, how)
        alone = replace(question, vector=NOTHING, caption_weight=1.0)  # the weight is for the ranks: scores could vanish by it
        caption = self._page(alone, window, None, replace(how, two_phase=None))
        return fused(words, caption, question.caption_weight, k)

    def _answer(self, question: Question, k: int, after: After | None, how: How, *, total: bool = False) -> _Answer:
        """The engine's answer; asked again where the alias has moved since the last look."""
        for last in (False, True):
            target, known = self._ready()
            known.check_caption(question)
            known.check_filters(question)
            shape, remarks = self._choose(question, k, after, how)
            asked = request_body(
                known.asked_of(question),
                shape,
                max_clauses=target.max_clauses,
                k=k,
                after=after,
                two_phase=how.two_phase,
                ordered=known.ordered and not how.pipeline,  # the two-phase processor rescores: no sort beside it
                token_ids=known.token_ids if shape == "seismic" else None,
            )
            try:
                about = {"track_total_hits": total, **({"explain": True} if how.engine_explain else {})}
                answer = self._send({**asked.body, **about}, how.pipeline)
            except ClusterUnreachable:
                raise
            except ClusterError as error:  # a `rank_feature` clause on a `sparse_vector` field, for one
                if "maxClauseCount" in error.message:
                    raise QueryError(*_too_many(target)) from None
                if "Failed to parse query" in error.message:
                    raise QueryError(*_unread(error)) from None
                if last or self._look() == known:
                    raise
                self._known = None
                continue
            if last or {hit["_index"] for hit in answer["hits"]["hits"]} <= set(known.fields):
                break
            self._known = None
        return _Answer(asked=asked, shape=shape, remarks=remarks, body=answer)

    def _choose(self, question: Question, k: int, after: After | None, how: How) -> tuple[Shape, tuple[str, ...]]:
        """Return the shape, with what is to be said where SEISMIC is taken unasked, or can't be."""
        target, known = self._ready()
        approximate = how.approximate and how.shape is None and not how.pipeline and known.has_ids_of(question)
        shape = choose(target, known.one, self._plugins, how.shape, approximate=approximate)
        if shape != "seismic" or not approximate:
            return shape, ()
        obstacle = find_obstacle(question, k, after=after, two_phase=how.two_phase is not None)
        if obstacle is None:
            return shape, ("found by SEISMIC, which can miss a hit; the shape rank_features finds all, and has pages",)
        exact = choose(target, known.one, self._plugins)
        return exact, (f"searched with {exact} and not with SEISMIC: {obstacle}",)

    def _send(self, body: Mapping[str, Any], pipeline: str | None = None) -> dict[str, Any]:
        params = {"allow_partial_search_results": "false", **({"search_pipeline": pipeline} if pipeline else {})}
        with translated(self._connection):
            answer: dict[str, Any] = self._client.search(index=self._index, body=dict(body), params=params)
        return answer

    def _ready(self) -> tuple[Target, Known]:
        """The cluster and the index, after the first look at them."""
        if self._target is None:
            self._target = probe(self._client, self._connection)
        if self._known is None:
            self._known = self._look()
        return self._target, self._known

    def _look(self) -> Known:
        known = look(self._client, self._connection, self._index)
        known.check_model(self._model_id)
        return known

    def _plugins(self) -> frozenset[str]:
        return plugins(self._client, self._connection)


def _too_many(target: Target) -> tuple[str, str]:
    return (
        f"the cluster makes more clauses of the caption and the filters than it allows ({target.max_clauses:,})",
        "Shorten them, or send fewer words (--mass).",
    )


def _unread(error: ClusterError) -> tuple[str, str]:
    said = error.message[error.message.index("Failed to parse query") :].splitlines()[0]
    return (
        f"the cluster can't read the filter: {said}",
        'In a query string, quote what holds : / or other signs (uri:"file:///a.jpg"), or write the clause as JSON.',
    )
