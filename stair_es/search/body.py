"""A question -> the body of a `_search` request. Pure: any client can send what comes out of here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stair_es.cluster.documents import IMPACT_SCALE
from stair_es.cluster.token_ids import IDS_FIELD, TokenIds
from stair_es.config import MAX_HITS
from stair_es.errors import QueryError
from stair_es.search.approximate import find_obstacle
from stair_es.search.cursor import ORDER, After, checked
from stair_es.search.neural import count_candidates
from stair_es.search.question import NOTHING, Question, Spelling
from stair_es.search.shapes import Shape, build
from stair_es.types import SparseVector

Clause = dict[str, Any]
_MAX_FLOAT32 = float(np.finfo(np.float32).max)
UNREAD = ["thumbnail", "policy_undo", IDS_FIELD]
"""Large or internal: hits come without them."""


@dataclass(frozen=True, kw_only=True)
class TwoPhase:
    """Find with few heavy words, score the best of them with all: the portable form, a `rescore`."""

    heavy: int = 32
    """How many of the heaviest words find."""
    window: int = 200
    """How many of the best found (in each shard) are scored with all words."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            QueryError: One is below 1, or the window beyond what an engine scores anew.
        """
        if self.window > MAX_HITS:
            raise QueryError(f"the window of two-phase may be {MAX_HITS:,} at most, got {self.window:,}")
        if self.heavy < 1 or self.window < 1:
            raise QueryError(f"two-phase needs at least 1 heavy word and a window of 1, got {self.heavy} and {self.window}")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A body, and what became of the words."""

    body: dict[str, Any]
    sent: SparseVector
    """The words in it, with the weights as the engine reads them."""
    cut: SparseVector
    """The words that the clause limit left no room for."""


def request_body(
    question: Question,
    shape: Shape,
    *,
    max_clauses: int,
    k: int = 10,
    after: After | None = None,
    two_phase: TwoPhase | None = None,
    ordered: bool = True,
    token_ids: TokenIds | None = None,
) -> Asked:
    """The body of a `_search` request for the `k` best documents.

    The total isn't counted, so that the engine may skip documents that can't get among the best `k`. By `seismic` candidates are
    found, and `rank_features` scores them: the scores are exact, and a document that wasn't found is missing.

    Args:
        question: What is looked for.
        shape: How the cluster and the index want it asked.
        max_clauses: What the cluster takes: the lightest words beyond are cut.
        k: How many hits.
        after: Go on after the page whose cursor this is.
        two_phase: Find with few words first; takes the place of the total order, so that it goes with neither `after` nor
            `min_score`.
        ordered: In a total order, which takes `uri` and `sha256` as keywords, and no search pipeline that rescores; without it
            there are no pages.
        token_ids: Those of the index, for the shape seismic.

    Raises:
        QueryError: As the builder of the shape, the options exclude each other, `seismic` can't answer the question, or `after`
            is no cursor.
    """
    approximate = shape == "seismic" and bool(len(question.vector))
    if approximate:
        _check_approximate(question, k, after, two_phase)
    beside = _count_clauses_beside(question, max_clauses)
    scoring: list[Clause] = []
    sent = cut = NOTHING
    if len(question.vector):
        # an approximate query has to know how many it should look for, and asks by ids
        more: dict[str, Any] = {"k": k, "token_ids": token_ids} if approximate else {}
        query = build(shape, question.vector, max_clauses=max_clauses - beside, **more)
        scoring, sent, cut = [query.clause], query.sent, query.cut
    rescore: Clause | None = None
    if approximate:
        rescore = _rescore_candidates(sent, k, max_clauses)
    elif two_phase and len(sent) > two_phase.heavy:
        _check_two_phase(question, after)
        scoring = [build(shape, sent.top(two_phase.heavy), max_clauses=max_clauses).clause]
        rescore = _rescore_light(sent, two_phase, shape, k, max_clauses)
    if question.caption.strip() and question.caption_weight > 0:
        scoring.append({"match": {question.caption_field: {"query": question.caption, "boost": question.caption_weight}}})
    body: dict[str, Any] = {"size": k, "track_total_hits": False, "_source": {"excludes": UNREAD}}
    body["query"] = _restricted(scoring, question, shape)
    body |= _pages(after, ordered=ordered) if rescore is None else {"rescore": rescore}
    if question.min_score is not None:
        body["min_score"] = question.min_score
    return Asked(body=body, sent=sent, cut=cut)


def _count_clauses_beside(question: Question, max_clauses: int) -> int:
    """Return how many clauses the question takes beside its vector; raise QueryError if they leave no room for the vector."""
    beside = question.clauses_beside_the_vector
    if beside > max_clauses - bool(len(question.vector)):
        raise QueryError(
            f"the caption, the filters and the single words alone take about {beside:,} clauses: more than the {max_clauses:,} "
            "that the cluster allows",
            "Shorten them: a `terms` filter takes many values as one clause.",
        )
    return beside


def _rescore_candidates(sent: SparseVector, k: int, max_clauses: int) -> Clause:
    """Score what SEISMIC found by the exact dot product alone."""
    exact = build("rank_features", sent, max_clauses=max_clauses).clause
    query = {"rescore_query": exact, "query_weight": 0.0}
    return {"window_size": count_candidates(k), "query": query}


def _rescore_light(sent: SparseVector, two_phase: TwoPhase, shape: Shape, k: int, max_clauses: int) -> Clause:
    """Add the light tokens to the scores of what the heavy ones found."""
    light = SparseVector(sent.features[two_phase.heavy :], sent.weights[two_phase.heavy :])
    query = {"rescore_query": build(shape, light, max_clauses=max_clauses).clause}
    return {"window_size": max(two_phase.window, k), "query": query}


def _pages(after: After | None, *, ordered: bool) -> dict[str, Any]:
    if after is not None and not ordered:
        raise QueryError(
            "there are no pages without a total order: a search pipeline may rescore, or `uri` and `sha256` are no keywords here",
            "Ask for a larger k instead.",
        )
    order = {"sort": ORDER} if ordered else {}
    return order if after is None else {**order, "search_after": checked(after)}


def has_word(spelling: Spelling, shape: Shape, *, least: float = 0.0) -> Clause:
    """A clause that matches the documents that have all features of a word, each with a weight of `least` or more.

    The engine compares what it keeps of a weight, so `least` is cut in the same way: no weight of `least` or more is missed, and
    one that is less than 0.39 % below may pass (of `impacts`, one that is rounded to the same thousandth).
    """
    if shape == "seismic":  # its best few are no condition: the words themselves are in `tokens`
        shape = "rank_features"
    found = [build(shape, SparseVector((feature,), (1.0,)), max_clauses=1).clause for feature in spelling]
    if least > 0:  # a function score without functions: the clause's own score, which is the weight
        bound = rounded(least) if shape == "impacts" else kept(least)
        found = [{"function_score": {"query": clause, "min_score": bound}} for clause in found]
    return found[0] if len(found) == 1 else {"bool": {"filter": found}}


def kept(weight: float) -> float:
    """What an engine keeps of a document's weight: of float32 the upper half, 9 significant bits."""
    bits = np.float32(min(weight, _MAX_FLOAT32)).view(np.uint32) & np.uint32(0xFFFF_8000)
    return float(bits.view(np.float32))


def rounded(weight: float) -> float:
    """The least score of a word by `impacts` for a weight of `weight`: half a thousandth less than its impact says."""
    return (max(1, round(weight * IMPACT_SCALE)) - 0.5) / IMPACT_SCALE


def _restricted(scoring: list[Clause], question: Question, shape: Shape) -> Clause:
    """What scores, with everything around it that only decides who takes part."""
    if not scoring:
        raise QueryError("the query is empty: nothing in it has a weight", "Try other words, or a caption weight above 0.")
    must = [has_word(word, shape, least=question.least) for word in question.required]
    must_not = [has_word(word, shape, least=question.least) for word in question.excluded]
    filters: list[Mapping[str, Any]] = [*question.filters, *must]
    if not filters and not must_not:
        return scoring[0] if len(scoring) == 1 else {"bool": {"should": scoring}}
    # In `should`, for the two-phase processor of neural-search looks nowhere else. At least one: beside a filter it would be
    # optional, and what matches the filter alone would be found.
    around = {"filter": filters, "must_not": must_not}
    conditions = {name: clauses for name, clauses in around.items() if clauses}
    return {"bool": {"should": scoring, "minimum_should_match": 1, **conditions}}


def _check_approximate(question: Question, k: int, after: After | None, two_phase: TwoPhase | None) -> None:
    obstacle = find_obstacle(question, k, after=after, two_phase=two_phase is not None)
    if obstacle:
        raise QueryError(
            f"the shape seismic can't answer this: {obstacle}", "Leave --shape seismic out: the exact shape answers it."
        )


def _check_two_phase(question: Question, after: After | None) -> None:
    if after is not None:
        raise QueryError("two-phase has no further pages: its order holds within the window only", "Page without it.")
    if question.min_score is not None:
        raise QueryError(
            "two-phase and min_score exclude each other: the engine would compare the score of the first phase",
            "Leave one of them out.",
        )
