"""Build the body of a `_search` request from a search query. Pure: any client can send the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from stair_es.cluster.documents.document import IMPACT_SCALE, LABELS_FIELD, is_single_term
from stair_es.errors import QueryError
from stair_es.feature_names import escape_feature
from stair_es.search.dsl.filters import build_text_clause, split_field_names
from stair_es.search.dsl.pagination import SORT_ORDER, Cursor, validate_cursor
from stair_es.search.dsl.select import build_sparse_query
from stair_es.search.dsl.weights import SparseQuery
from stair_es.search.query import EMPTY_VECTOR, CaptionWord, MatchCut, SearchQuery, TokenGroup
from stair_es.taught_words import MATCH_WEIGHT, is_taught_token
from stair_es.types import QueryType, SparseVector

Clause = dict[str, Any]
ClauseBuilder: TypeAlias = Callable[[SparseVector, int], SparseQuery]
"""Builds the clause that scores documents by a vector, with a limit for the number of clauses."""
_MIN_LABEL_WEIGHT = 0.249
"""A label with a confidence below 0.25 isn't searched. Engines store a weight up to 0.39 % smaller."""
_MAX_FLOAT32 = float(np.finfo(np.float32).max)
CAPTION_WORD = "caption:"
"""Begins the name of a clause for a word of a caption, in the `matched_queries` of a hit."""
EXCLUDED_FIELDS = ["thumbnail", "policy_undo", "labels_undo", "text_boxes"]
"""Large or internal fields that are left out of hits."""


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
    """The cut by which hits are weak; None if it isn't known, or if there are no weak hits."""
    by_field: bool = False
    """Whether hits are in the order of a field, not of their scores."""
    labels: tuple[str, ...] = ()
    """The labels that are searched."""
    token_clause: Mapping[str, Any] | None = None
    """The clause whose score is the dot product."""
    remarks: tuple[str, ...] = ()
    """Notes for the user on how the query is sent."""


@dataclass(frozen=True, kw_only=True)
class QueryPlan:
    """The query type and limits for a cluster and an index."""

    query_type: QueryType
    max_clauses: int
    sortable: bool = True
    """Whether hits have a total order."""


def build_search_request(
    query: SearchQuery,
    query_type: QueryType,
    *,
    max_clauses: int,
    k: int = 10,
    after: Cursor | None = None,
    ordered: bool = True,
    order: Sequence[Mapping[str, Any]] | None = None,
    build_clause: ClauseBuilder | None = None,
) -> SearchRequest:
    """Build the body of a `_search` request for the `k` best documents, or in the order of a field, for the first `k` matches.

    The total isn't counted, so that the engine can skip documents that can't be among the best `k`.

    Args:
        query: The search query.
        query_type: The query type.
        max_clauses: The clause limit of the cluster; the lightest tokens above it are truncated.
        k: Number of hits.
        after: The cursor of the previous page.
        ordered: Sort hits in a total order. Requires `uri` and `sha256` to be keywords and no search pipeline that rescores;
            without it there is no pagination.
        order: The order by a field (`build_field_order`). Weak matches are left out: the cheapest would come first.
        build_clause: Builds the clause of the vector, instead of the builder of the query type.

    Raises:
        QueryError: If the builder of the query type fails, or `after` is not a cursor.
    """
    scoring: list[Clause] = []
    vector, truncated, token_clause = EMPTY_VECTOR, EMPTY_VECTOR, None
    if len(query.vector):
        max_vector_clauses = query.count_vector_clauses(max_clauses)
        sparse_query = (
            build_clause(query.vector, max_vector_clauses)
            if build_clause
            else build_sparse_query(query_type, query.vector, max_clauses=max_vector_clauses)
        )
        token_clause, vector, truncated = sparse_query.clause, sparse_query.vector, sparse_query.truncated
        scoring.append(token_clause)
    scoring += _build_caption_clauses(query)
    body = {
        "size": k,
        "track_total_hits": False,
        "query": _build_query(_apply_scale(scoring, query.scale), query, query_type),
        **({} if query.min_score is None else {"min_score": _scale_score(query.min_score, query.scale)}),
        "_source": {"excludes": EXCLUDED_FIELDS},
        **_build_order(order, after, ordered=ordered, scale=query.scale),
    }
    request = SearchRequest(
        body=body,
        vector=vector,
        truncated=truncated,
        query_type=query_type,
        scale=query.scale,
        match_cut=query.match_cut,
        token_clause=token_clause,
        labels=query.searched_labels,
    )
    return request if order is None else replace(restrict_to_matches(request, query), match_cut=None, by_field=True)


def _build_order(
    order: Sequence[Mapping[str, Any]] | None, after: Cursor | None, *, ordered: bool, scale: float
) -> dict[str, Any]:
    if order is None:
        return build_pagination(after, ordered=ordered, scale=scale)
    if not ordered:
        raise QueryError(
            "an order by a field requires that `uri` and `sha256` are keyword fields, and no search pipeline, which may rescore",
            "Leave out the order.",
            code="index-not-sortable",
        )
    return {**build_pagination(after, ordered=True, order=order), "track_scores": True}


def restrict_to_matches(request: SearchRequest, query: SearchQuery) -> SearchRequest:
    """Return the request that leaves out weak matches; the request itself if there is no cut."""
    cut = build_match_clause(request, query)
    if cut is None:
        return request
    return replace(request, body={**request.body, "query": {"bool": {"must": [request.body["query"]], "filter": [cut]}}})


def _build_caption_clauses(query: SearchQuery) -> list[Clause]:
    """Build the clauses that score captions and labels: BM25 for captions, or for each word its share.

    By the name of a word's clause a hit tells that it was found. A label gives the share times its weight, if no caption has it.
    """
    field, weight = query.caption_field, query.caption_weight
    if not query.caption.strip() or weight <= 0:
        return []
    if not query.caption_words:
        names = split_field_names(field)
        options = {"query": query.caption, "boost": weight}
        return [{"match": {names[0]: options}} if len(names) == 1 else {"multi_match": {**options, "fields": names}}]
    return [_build_word_score(word, query) for word in query.caption_words]


def _build_word_score(word: CaptionWord, query: SearchQuery) -> Clause:
    boost, name = query.caption_weight * word.share, {"_name": CAPTION_WORD + word.text}
    in_caption = {"filter": build_text_clause(query.caption_field, word.text), "boost": boost}
    if not word.labels:
        return {"constant_score": {**in_caption, **name}}
    return {"dis_max": {"queries": [{"constant_score": in_caption}, *_list_label_clauses(word, boost)], **name}}


def _list_label_clauses(word: CaptionWord, boost: float = 1.0) -> list[Clause]:
    """List the clauses of the labels that stand for a word, each without weights below `_MIN_LABEL_WEIGHT`."""
    fields = [f"{LABELS_FIELD}.{escape_feature(label)}" for label in word.labels]
    weighted = [{"rank_feature": {"field": field, "boost": boost, "linear": {}}} for field in fields]
    return [{"function_score": {"query": clause, "min_score": _MIN_LABEL_WEIGHT * boost}} for clause in weighted]


def build_text_condition(word: CaptionWord, query: SearchQuery) -> Clause:
    """Build a clause that matches documents with a word in their captions or labels."""
    return _build_any([build_text_clause(query.caption_field, word.text), *_list_label_clauses(word)])


_SPARE_BITS = 7
"""A cluster may add up to 127 to a score, 1 for each role of the user; 16 words are left of the 24 bits of a float32."""


def build_word_request(query: SearchQuery, ids: Sequence[str], size: int) -> dict[str, Any]:
    """Build the body of a `_search` request whose scores tell which words the captions of documents have."""
    words = [
        {"constant_score": {"filter": build_text_condition(word, query), "boost": 1 << (place + _SPARE_BITS)}}
        for place, word in enumerate(query.caption_words)
    ]
    clause = {"bool": {"filter": [{"ids": {"values": list(ids)}}], "should": words}}
    return {"size": size, "query": clause, "_source": False, "track_total_hits": False}


def parse_word_score(score: float, words: Sequence[CaptionWord]) -> tuple[str, ...]:
    """Return the words of a document with a score of the request of `build_word_request`."""
    return tuple(word.text for place, word in enumerate(words) if int(score) >> (place + _SPARE_BITS) & 1)


def build_match_clause(request: SearchRequest, query: SearchQuery) -> Clause | None:
    """Build a clause that matches the documents that are not weak matches; None if there is no cut.

    Args:
        request: The request that was built of the query. Its scores are not amplified.
        query: The query.
    """
    cut = request.match_cut
    if cut is None:
        return None
    alternatives: list[Clause] = []
    if cut.weak_below is not None and request.token_clause is not None:
        by_score: Clause = {"function_score": {"query": request.token_clause, "min_score": cut.weak_below}}
        known = {word.text: word for word in query.caption_words}
        needed = [build_text_condition(known.get(text, CaptionWord(text, 0.0)), query) for text in sorted(cut.needed_words)]
        alternatives.append({"bool": {"filter": [by_score, *needed]}} if needed else by_score)
    words = [_list_word_clauses(word, query, request.query_type, cut.named_weight) for word in cut.words]
    if words and all(words):
        alternatives.append({"bool": {"filter": list(map(_build_any, words))}})
    return _build_any(alternatives) if alternatives else {"match_none": {}}


def _list_word_clauses(word: CaptionWord, query: SearchQuery, query_type: QueryType, min_weight: float) -> list[Clause]:
    """List the clauses of which a document that has a word, in its caption, its labels or by its tokens, matches one."""
    by_caption = [build_text_condition(word, query)] if word.text else []
    has_tokens = bool(word.tokens) and has_clauses(word.tokens, query_type)
    return [*by_caption, *([build_token_clause(word.tokens, query_type, min_weight=min_weight)] if has_tokens else [])]


def build_word_condition(word: CaptionWord, query: SearchQuery, query_type: QueryType) -> Clause:
    """Build a clause that matches documents with a word of `required_words` or `excluded_words`."""
    clauses = [build_text_condition(word, query)]
    if word.tokens:  # an error by `impacts` for pieces of words, which it doesn't have
        clauses.append(build_token_clause(word.tokens, query_type, min_weight=choose_min_weight(word.tokens, query)))
    return _build_any(clauses)


def choose_min_weight(tokens: TokenGroup, query: SearchQuery) -> float:
    """Choose the minimum weight of a required or excluded word: images have a taught word from the weight of a match."""
    is_taught = len(tokens) == 1 and is_taught_token(tokens[0])
    return query.min_weight or (MATCH_WEIGHT if is_taught else 0.0)


def _build_any(clauses: Sequence[Clause]) -> Clause:
    return clauses[0] if len(clauses) == 1 else {"bool": {"should": list(clauses), "minimum_should_match": 1}}


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
            code="index-not-pageable",
        )
    sort = {"sort": list(order)} if ordered else {}
    if after is None:
        return sort
    [first] = order[0].values()
    cursor = validate_cursor(after, first.get("unmapped_type", ""))
    values = [_scale_score(value, scale) if isinstance(value, int | float) else value for value in cursor]
    return {**sort, "search_after": values}


def build_token_clause(group: TokenGroup, query_type: QueryType, *, min_weight: float = 0.0) -> Clause:
    """Build a clause that matches documents with all tokens of a group, each with a weight of at least `min_weight`.

    The engine compares quantized weights, so `min_weight` is quantized in the same way: no weight >= `min_weight` is
    missed, and one that is less than 0.39 % below may pass (with `impacts`: one that rounds to the same thousandth).
    """
    clauses = [build_sparse_query(query_type, SparseVector((token,), (1.0,)), max_clauses=1).clause for token in group]
    if min_weight > 0:  # a function score without functions keeps the clause's own score, which is the weight
        min_score = get_impact_bound(min_weight) if query_type == "impacts" else quantize_weight(min_weight)
        clauses = [{"function_score": {"query": clause, "min_score": min_score}} for clause in clauses]
    return clauses[0] if len(clauses) == 1 else {"bool": {"filter": clauses}}


def has_clauses(tokens: TokenGroup, query_type: QueryType) -> bool:
    """Return whether each of some tokens has a clause: `impacts` has none for word pieces and symbols."""
    return query_type != "impacts" or all(map(is_single_term, tokens))


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
        raise QueryError(
            "the query is empty: no part of it has a weight", "Try other words, or a caption weight above 0.", code="query-empty"
        )
    must = [build_token_clause(group, query_type, min_weight=choose_min_weight(group, query)) for group in query.required]
    must_not = [build_token_clause(group, query_type, min_weight=choose_min_weight(group, query)) for group in query.excluded]
    must += [build_word_condition(word, query, query_type) for word in query.required_words]
    must_not += [build_word_condition(word, query, query_type) for word in query.excluded_words]
    filters: list[Mapping[str, Any]] = [*query.filters, *(condition.clause for condition in query.conditions), *must]
    if not filters and not must_not:
        return scoring[0] if len(scoring) == 1 else {"bool": {"should": scoring}}
    # Search pipelines of neural-search only look into `should`. With a filter, `should` would be optional, and documents that
    # match the filter alone would be found: hence minimum_should_match.
    conditions = {name: clauses for name, clauses in (("filter", filters), ("must_not", must_not)) if clauses}
    return {"bool": {"should": scoring, "minimum_should_match": 1, **conditions}}
