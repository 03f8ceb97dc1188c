"""Build the body of a `_search` request from a search query. Pure: any client can send the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stair_es.cluster.documents import IMPACT_SCALE
from stair_es.cluster.token_ids import IDS_FIELD, TokenIds
from stair_es.config import MAX_HITS
from stair_es.errors import QueryError
from stair_es.search.cursor import ORDER, After, checked
from stair_es.search.neural import CANDIDATES_PER_HIT, count_candidates
from stair_es.search.question import NOTHING, Question, Spelling
from stair_es.search.shapes import Shape, build
from stair_es.types import SparseVector

Clause = dict[str, Any]
_MAX_FLOAT32 = float(np.finfo(np.float32).max)
UNREAD = ["thumbnail", "policy_undo", IDS_FIELD]
"""Large or internal fields that are left out of hits."""


@dataclass(frozen=True, kw_only=True)
class TwoPhase:
    """Two-phase search: find with the heaviest tokens, rescore the best with all. Uses the portable `rescore`."""

    heavy: int = 32
    """Number of the heaviest tokens that find documents."""
    window: int = 200
    """Number of documents per shard that are rescored with all tokens."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            QueryError: If one is below 1, or if the window is larger than an engine rescores.
        """
        if self.window > MAX_HITS:
            raise QueryError(f"the window of two-phase must be at most {MAX_HITS:,}, got {self.window:,}")
        if self.heavy < 1 or self.window < 1:
            raise QueryError(
                f"two-phase needs at least 1 heavy token and a window of at least 1, got {self.heavy} and {self.window}"
            )


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The body of a `_search` request, and the tokens that are in it."""

    body: dict[str, Any]
    sent: SparseVector
    """The tokens that are sent, with the weights as the engine reads them (float32)."""
    cut: SparseVector
    """The tokens that exceed the clause limit."""


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
    """Build the body of a `_search` request for the `k` best documents.

    The total isn't counted, so that the engine can skip documents that can't be among the best `k`. With `seismic`, SEISMIC finds
    candidates and `rank_features` rescores them: scores are exact, but a document can be missed.

    Args:
        question: The search query.
        shape: The query type.
        max_clauses: The clause limit of the cluster; the lightest tokens above it are truncated.
        k: Number of hits.
        after: The cursor of the previous page.
        two_phase: Find with few tokens first. Replaces the total order, so it can't be combined with `after` or `min_score`.
        ordered: Sort hits in a total order. Requires `uri` and `sha256` to be keywords and no search pipeline that rescores;
            without it there is no pagination.
        token_ids: The token ids of the index; required for `seismic`.

    Returns:
        The body, the tokens in it, and the truncated tokens.

    Raises:
        QueryError: If the builder of the query type fails, options exclude each other, SEISMIC can't answer the query, or
            `after` is not a cursor.
    """
    approximate = shape == "seismic" and bool(len(question.vector))
    if approximate:
        _check_approximate(question, k, after, two_phase)
    other_clauses = _count_clauses_beside(question, max_clauses)
    scoring: list[Clause] = []
    sent = cut = NOTHING
    if len(question.vector):
        # SEISMIC needs the number of hits, and token ids instead of tokens
        more: dict[str, Any] = {"k": k, "token_ids": token_ids} if approximate else {}
        scored = build(shape, question.vector, max_clauses=max_clauses - other_clauses, **more)
        scoring, sent, cut = [scored.clause], scored.sent, scored.cut
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


def find_obstacle(question: Question, k: int, *, after: After | None = None, two_phase: bool = False) -> str | None:
    """Return the reason why SEISMIC can't answer a query, or None.

    SEISMIC finds a few candidates; anything that selects among them afterwards leaves too few hits, or none. Measured on 50,000
    drawn photos with 50 candidates: with a filter that matches a fifth of them, 38 of 100 queries get fewer than 10 hits; with
    one that matches a twentieth, all.

    Args:
        question: The search query.
        k: Number of hits.
        after: The cursor of the previous page.
        two_phase: Whether two-phase search is requested.
    """
    if k > MAX_HITS // CANDIDATES_PER_HIT:
        return f"it finds {CANDIDATES_PER_HIT} candidates for each hit and {MAX_HITS:,} at most, too few for {k:,} hits"
    if question.filters or question.required or question.excluded:
        return "filters, required and excluded tokens would only remove hits from the few documents that it finds"
    if question.caption.strip() and question.caption_weight > 0:
        return "a caption score would favor documents that it didn't find"
    if question.min_score is not None:
        return "the engine would compare its approximate scores with `min_score`"
    if after is not None:
        return "it has no further pages, only the few documents that it finds"
    if two_phase:
        return "two-phase would search a second time with the heaviest tokens"
    return None


def _count_clauses_beside(question: Question, max_clauses: int) -> int:
    """Count the clauses other than those of the vector; raise QueryError if they leave no room for the vector."""
    other_clauses = question.clauses_beside_the_vector
    if other_clauses > max_clauses - bool(len(question.vector)):
        raise QueryError(
            f"the caption, the filters and the single tokens alone take about {other_clauses:,} clauses, "
            f"more than the {max_clauses:,} that the cluster allows",
            "Shorten them: a `terms` filter puts many values into one clause.",
        )
    return other_clauses


def _rescore_candidates(sent: SparseVector, k: int, max_clauses: int) -> Clause:
    """Rescore the candidates of SEISMIC with the exact dot product alone."""
    exact = build("rank_features", sent, max_clauses=max_clauses).clause
    query = {"rescore_query": exact, "query_weight": 0.0}
    return {"window_size": count_candidates(k), "query": query}


def _rescore_light(sent: SparseVector, two_phase: TwoPhase, shape: Shape, k: int, max_clauses: int) -> Clause:
    """Add the light tokens to the scores of the documents that the heavy tokens found."""
    light = SparseVector(sent.features[two_phase.heavy :], sent.weights[two_phase.heavy :])
    query = {"rescore_query": build(shape, light, max_clauses=max_clauses).clause}
    return {"window_size": max(two_phase.window, k), "query": query}


def _pages(after: After | None, *, ordered: bool) -> dict[str, Any]:
    if after is not None and not ordered:
        raise QueryError(
            "pagination requires a total order: a search pipeline may rescore, or `uri` and `sha256` are not keyword fields",
            "Use a larger k instead.",
        )
    order = {"sort": ORDER} if ordered else {}
    return order if after is None else {**order, "search_after": checked(after)}


def has_word(spelling: Spelling, shape: Shape, *, least: float = 0.0) -> Clause:
    """Build a clause that matches documents with all tokens of a group, each with a weight of at least `least`.

    The engine compares quantized weights, so `least` is quantized in the same way: no weight >= `least` is missed, and one that
    is less than 0.39 % below may pass (with `impacts`: one that rounds to the same thousandth).

    Args:
        spelling: The tokens of a word.
        shape: The query type.
        least: The minimum weight; 0 for any.
    """
    if shape == "seismic":  # an approximate search is not a condition; `tokens` is in the index as well
        shape = "rank_features"
    found = [build(shape, SparseVector((feature,), (1.0,)), max_clauses=1).clause for feature in spelling]
    if least > 0:  # a function score without functions keeps the clause's own score, which is the weight
        bound = rounded(least) if shape == "impacts" else kept(least)
        found = [{"function_score": {"query": clause, "min_score": bound}} for clause in found]
    return found[0] if len(found) == 1 else {"bool": {"filter": found}}


def kept(weight: float) -> float:
    """Return the weight as an engine stores it: float32 truncated to its upper half, 9 significant bits."""
    bits = np.float32(min(weight, _MAX_FLOAT32)).view(np.uint32) & np.uint32(0xFFFF_8000)
    return float(bits.view(np.float32))


def rounded(weight: float) -> float:
    """Return the lower bound of a token's score by `impacts` for `weight`: half a thousandth below its quantized weight."""
    return (max(1, round(weight * IMPACT_SCALE)) - 0.5) / IMPACT_SCALE


def _restricted(scoring: list[Clause], question: Question, shape: Shape) -> Clause:
    """Combine the scoring clauses with the conditions, which don't change scores."""
    if not scoring:
        raise QueryError("the query is empty: no part of it has a weight", "Try other words, or a caption weight above 0.")
    must = [has_word(word, shape, least=question.least) for word in question.required]
    must_not = [has_word(word, shape, least=question.least) for word in question.excluded]
    filters: list[Mapping[str, Any]] = [*question.filters, *must]
    if not filters and not must_not:
        return scoring[0] if len(scoring) == 1 else {"bool": {"should": scoring}}
    # The two-phase processor of neural-search only looks into `should`. With a filter, `should` would be optional, and documents
    # that match the filter alone would be found: hence minimum_should_match.
    around = {"filter": filters, "must_not": must_not}
    conditions = {name: clauses for name, clauses in around.items() if clauses}
    return {"bool": {"should": scoring, "minimum_should_match": 1, **conditions}}


def _check_approximate(question: Question, k: int, after: After | None, two_phase: TwoPhase | None) -> None:
    obstacle = find_obstacle(question, k, after=after, two_phase=two_phase is not None)
    if obstacle:
        raise QueryError(
            f"the query type seismic can't answer this: {obstacle}", "Omit --shape seismic: an exact query type can answer it."
        )


def _check_two_phase(question: Question, after: After | None) -> None:
    if after is not None:
        raise QueryError("two-phase has no further pages: its order holds only within the window", "Omit two-phase to paginate.")
    if question.min_score is not None:
        raise QueryError(
            "two-phase and min_score can't be combined: the engine would compare scores of the first phase",
            "Omit one of them.",
        )
