"""Build the body of a `_search` request from a search query. Pure: any client can send the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stair_es.cluster.documents.document import IMPACT_SCALE
from stair_es.cluster.metadata.token_fields import IDS_FIELD, TokenIds
from stair_es.config.defaults import MAX_HITS
from stair_es.errors import QueryError
from stair_es.search.dsl.neural_sparse import SEISMIC_CANDIDATES_PER_HIT, count_candidates
from stair_es.search.dsl.pagination import SORT_ORDER, Cursor, validate_cursor
from stair_es.search.dsl.select import QueryType, build_sparse_query
from stair_es.search.query import EMPTY_VECTOR, MatchCut, SearchQuery, TokenGroup
from stair_es.types import SparseVector

Clause = dict[str, Any]
_MAX_FLOAT32 = float(np.finfo(np.float32).max)
EXCLUDED_FIELDS = ["thumbnail", "policy_undo", IDS_FIELD]
"""Large or internal fields that are left out of hits."""


@dataclass(frozen=True, kw_only=True)
class TwoPhase:
    """Two-phase search: find with the heaviest tokens, rescore the best with all. Uses the portable `rescore`."""

    top_k: int = 32
    """Number of the heaviest tokens that find documents."""
    window_size: int = 200
    """Number of documents per shard that are rescored with all tokens."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            QueryError: If one is below 1, or if the window is larger than an engine rescores.
        """
        if self.window_size > MAX_HITS:
            raise QueryError(f"the window of two-phase must be at most {MAX_HITS:,}, got {self.window_size:,}")
        if self.top_k < 1 or self.window_size < 1:
            raise QueryError(
                f"two-phase needs at least 1 heavy token and a window of at least 1, got {self.top_k} and {self.window_size}"
            )


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """The body of a `_search` request, and the tokens that are in it."""

    body: dict[str, Any]
    vector: SparseVector
    """The tokens that are sent, with the weights as the engine reads them (float32)."""
    truncated: SparseVector
    """The tokens that exceed the clause limit."""
    query_type: QueryType
    scale: float = 1.0
    """Factor of the scores in the response (`SearchQuery.amplify`)."""
    match_cut: MatchCut | None = None
    """The cut between matches and weak matches; None if there is none."""
    remarks: tuple[str, ...] = ()
    """Notes for the user on how the query is sent."""


def build_search_request(
    query: SearchQuery,
    query_type: QueryType,
    *,
    max_clauses: int,
    k: int = 10,
    after: Cursor | None = None,
    two_phase: TwoPhase | None = None,
    ordered: bool = True,
    token_ids: TokenIds | None = None,
) -> SearchRequest:
    """Build the body of a `_search` request for the `k` best documents.

    The total isn't counted, so that the engine can skip documents that can't be among the best `k`. With `seismic`, SEISMIC finds
    candidates and `rank_features` rescores them: scores are exact, but a document can be missed.

    Args:
        query: The search query.
        query_type: The query type.
        max_clauses: The clause limit of the cluster; the lightest tokens above it are truncated.
        k: Number of hits.
        after: The cursor of the previous page.
        two_phase: Find with few tokens first. Replaces the total order, so it can't be combined with `after` or `min_score`.
        ordered: Sort hits in a total order. Requires `uri` and `sha256` to be keywords and no search pipeline that rescores;
            without it there is no pagination.
        token_ids: The token ids of the index; required for `seismic`.

    Raises:
        QueryError: If the builder of the query type fails, options exclude each other, SEISMIC can't answer the query, or
            `after` is not a cursor.
    """
    approximate = query_type == "seismic" and bool(len(query.vector))
    if approximate:
        _check_seismic(query, k, after, two_phase)
    other_clauses = _count_other_clauses(query, max_clauses)
    scoring: list[Clause] = []
    vector = truncated = EMPTY_VECTOR
    if len(query.vector):
        # SEISMIC needs the number of hits, and token ids instead of tokens
        seismic_options: dict[str, Any] = {"k": k, "token_ids": token_ids} if approximate else {}
        sparse_query = build_sparse_query(query_type, query.vector, max_clauses=max_clauses - other_clauses, **seismic_options)
        scoring, vector, truncated = [sparse_query.clause], sparse_query.vector, sparse_query.truncated
    rescore: Clause | None = None
    if approximate:
        rescore = _rescore_candidates(vector, k, max_clauses, query.scale)
    elif two_phase and len(vector) > two_phase.top_k:
        _check_two_phase(query, after)
        scoring = [build_sparse_query(query_type, vector.top(two_phase.top_k), max_clauses=max_clauses).clause]
        rescore = _rescore_light_tokens(vector, two_phase, query_type, k, max_clauses, query.scale)
    if query.caption.strip() and query.caption_weight > 0:
        scoring.append({"match": {query.caption_field: {"query": query.caption, "boost": query.caption_weight}}})
    body = {**build_search_body(scoring, query, query_type, k=k), "_source": {"excludes": EXCLUDED_FIELDS}}
    body |= build_pagination(after, ordered=ordered, scale=query.scale) if rescore is None else {"rescore": rescore}
    return SearchRequest(
        body=body, vector=vector, truncated=truncated, query_type=query_type, scale=query.scale, match_cut=query.match_cut
    )


def build_search_body(scoring: list[Clause], query: SearchQuery, query_type: QueryType, *, k: int) -> dict[str, Any]:
    """Build the body of a request from the clauses that score, and the conditions of a query.

    Raises:
        QueryError: If no clause scores.
    """
    body = {"size": k, "track_total_hits": False, "query": _build_query(_apply_scale(scoring, query.scale), query, query_type)}
    return body if query.min_score is None else {**body, "min_score": _scale_score(query.min_score, query.scale)}


def find_seismic_obstacle(query: SearchQuery, k: int, *, after: Cursor | None = None, two_phase: bool = False) -> str | None:
    """Return the reason why SEISMIC can't answer a query, or None.

    SEISMIC finds a few candidates; anything that selects among them afterwards leaves too few hits, or none. Measured on 50,000
    drawn photos with 50 candidates: with a filter that matches a fifth of them, 38 of 100 queries get fewer than 10 hits; with
    one that matches a twentieth, all.
    """
    if k > MAX_HITS // SEISMIC_CANDIDATES_PER_HIT:
        return f"it finds {SEISMIC_CANDIDATES_PER_HIT} candidates for each hit and {MAX_HITS:,} at most, too few for {k:,} hits"
    if query.filters or query.required or query.excluded:
        return "filters, required and excluded tokens would only remove hits from the few documents that it finds"
    if query.caption.strip() and query.caption_weight > 0:
        return "a caption score would favor documents that it didn't find"
    if query.min_score is not None:
        return "the engine would compare its approximate scores with `min_score`"
    if after is not None:
        return "it has no further pages, only the few documents that it finds"
    if two_phase:
        return "two-phase would search a second time with the heaviest tokens"
    return None


def _count_other_clauses(query: SearchQuery, max_clauses: int) -> int:
    """Count the clauses other than those of the vector; raise QueryError if they leave no room for the vector."""
    other_clauses = query.other_clause_count
    if other_clauses > max_clauses - bool(len(query.vector)):
        raise QueryError(
            f"the caption, the filters and the single tokens alone require about {other_clauses:,} clauses, "
            f"more than the {max_clauses:,} that the cluster allows",
            "Shorten them: a `terms` filter puts many values into one clause.",
        )
    return other_clauses


def _apply_scale(scoring: list[Clause], scale: float) -> list[Clause]:
    """Multiply the sum of the scores of clauses.

    A `boost` would multiply each part of the sum: Lucene 8 then misses hits, since its maximum scores overflow.
    """
    if not scoring or scale == 1:
        return scoring
    summed = scoring[0] if len(scoring) == 1 else {"bool": {"should": scoring}}
    return [{"function_score": {"query": summed, "weight": scale}}]


def _scale_score(score: float, scale: float) -> float:
    """Multiply a score of a hit to that in the cluster, within float32."""
    return score if scale == 1 else max(-_MAX_FLOAT32, min(score * scale, _MAX_FLOAT32))


def _rescore_candidates(vector: SparseVector, k: int, max_clauses: int, scale: float) -> Clause:
    """Rescore the candidates of SEISMIC with the exact dot product alone."""
    exact = build_sparse_query("rank_features", vector, max_clauses=max_clauses).clause
    query = {"rescore_query": exact, "query_weight": 0.0, **_build_rescore_weight(scale)}
    return {"window_size": count_candidates(k), "query": query}


def _rescore_light_tokens(
    vector: SparseVector, two_phase: TwoPhase, query_type: QueryType, k: int, max_clauses: int, scale: float
) -> Clause:
    """Add the light tokens to the scores of the documents that the heavy tokens found."""
    light = SparseVector(vector.tokens[two_phase.top_k :], vector.weights[two_phase.top_k :])
    query = {
        "rescore_query": build_sparse_query(query_type, light, max_clauses=max_clauses).clause,
        **_build_rescore_weight(scale),
    }
    return {"window_size": max(two_phase.window_size, k), "query": query}


def _build_rescore_weight(scale: float) -> dict[str, float]:
    return {} if scale == 1 else {"rescore_query_weight": scale}


def build_pagination(
    after: Cursor | None, *, ordered: bool, order: Sequence[Mapping[str, Any]] = SORT_ORDER, scale: float = 1.0
) -> dict[str, Any]:
    """Build the sort order of a request, and where its page begins. `scale` is that of the scores in the cluster.

    Raises:
        QueryError: If there is no total order for the cursor, or `after` is not a cursor.
    """
    if after is not None and not ordered:
        raise QueryError(
            "pagination requires a total order: a search pipeline may rescore, or `uri` and `sha256` are not keyword fields",
            "Use a larger k instead.",
        )
    sort = {"sort": list(order)} if ordered else {}
    if after is None:
        return sort
    values = [_scale_score(value, scale) if isinstance(value, int | float) else value for value in validate_cursor(after)]
    return {**sort, "search_after": values}


def build_token_clause(group: TokenGroup, query_type: QueryType, *, min_weight: float = 0.0) -> Clause:
    """Build a clause that matches documents with all tokens of a group, each with a weight of at least `min_weight`.

    The engine compares quantized weights, so `min_weight` is quantized in the same way: no weight >= `min_weight` is
    missed, and one that is less than 0.39 % below may pass (with `impacts`: one that rounds to the same thousandth).
    """
    if query_type == "seismic":  # an approximate search is not a condition; `tokens` is in the index as well
        query_type = "rank_features"
    clauses = [build_sparse_query(query_type, SparseVector((token,), (1.0,)), max_clauses=1).clause for token in group]
    if min_weight > 0:  # a function score without functions keeps the clause's own score, which is the weight
        min_score = get_impact_bound(min_weight) if query_type == "impacts" else quantize_weight(min_weight)
        clauses = [{"function_score": {"query": clause, "min_score": min_score}} for clause in clauses]
    return clauses[0] if len(clauses) == 1 else {"bool": {"filter": clauses}}


def quantize_weight(weight: float) -> float:
    """Return the weight as an engine stores it: float32 truncated to its upper half, 9 significant bits."""
    bits = np.float32(min(weight, _MAX_FLOAT32)).view(np.uint32) & np.uint32(0xFFFF_8000)
    return float(bits.view(np.float32))


def get_impact_bound(weight: float) -> float:
    """Return the lower bound of a token's score by `impacts` for `weight`: half a thousandth below its quantized weight."""
    return (max(1, round(weight * IMPACT_SCALE)) - 0.5) / IMPACT_SCALE


def _build_query(scoring: list[Clause], query: SearchQuery, query_type: QueryType) -> Clause:
    """Combine the scoring clauses with the conditions, which don't change scores."""
    if not scoring:
        raise QueryError("the query is empty: no part of it has a weight", "Try other words, or a caption weight above 0.")
    must = [build_token_clause(group, query_type, min_weight=query.min_weight) for group in query.required]
    must_not = [build_token_clause(group, query_type, min_weight=query.min_weight) for group in query.excluded]
    filters: list[Mapping[str, Any]] = [*query.filters, *must]
    if not filters and not must_not:
        return scoring[0] if len(scoring) == 1 else {"bool": {"should": scoring}}
    # The two-phase processor of neural-search only looks into `should`. With a filter, `should` would be optional, and documents
    # that match the filter alone would be found: hence minimum_should_match.
    conditions = {name: clauses for name, clauses in (("filter", filters), ("must_not", must_not)) if clauses}
    return {"bool": {"should": scoring, "minimum_should_match": 1, **conditions}}


def _check_seismic(query: SearchQuery, k: int, after: Cursor | None, two_phase: TwoPhase | None) -> None:
    obstacle = find_seismic_obstacle(query, k, after=after, two_phase=two_phase is not None)
    if obstacle:
        raise QueryError(
            f"the query type seismic can't answer this: {obstacle}",
            "Omit --query-type seismic: an exact query type can answer it.",
        )


def _check_two_phase(query: SearchQuery, after: Cursor | None) -> None:
    if after is not None:
        raise QueryError("two-phase has no further pages: its order holds only within the window", "Omit two-phase to paginate.")
    if query.min_score is not None:
        raise QueryError(
            "two-phase and min_score can't be combined: the engine would compare scores of the first phase", "Omit one of them."
        )
