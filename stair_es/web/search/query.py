"""Convert the parameters of the page to query inputs, and build the requests that only the page sends. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stair_es.errors import QueryError
from stair_es.search.dsl.filters import parse_filter
from stair_es.search.dsl.pagination import NEWEST_ORDER
from stair_es.search.dsl.weights import SparseQuery
from stair_es.search.options import SearchOptions
from stair_es.search.query import EMPTY_VECTOR, SearchQuery
from stair_es.search.query_encoder import QueryInputs, resolve_tokens
from stair_es.search.query_parser import parse_query
from stair_es.search.request import QueryPlan, SearchRequest, build_pagination, build_token_clause
from stair_es.search.results import SearchResult, TokenContribution, parse_search_response
from stair_es.types import SparseVector
from stair_es.web.search.facets import TOP_TOKENS_FIELD
from stair_es.web.search.params import build_condition_clauses

if TYPE_CHECKING:
    from stair_es.search.dsl.mapped_fields import MappedField
    from stair_es.search.index_cache import IndexState
    from stair_es.web.search.params import SearchParams

_UNESCAPED_SLASH = re.compile(r"(?<!\\)((?:\\\\)*)/")
"""An unescaped slash. It would begin a regular expression, which engines compile without a limit:
`/((a{1,100}){1,100}){1,100}/` blocks one of their few search threads until they are restarted."""
HIT_FIELDS = [
    *("tokens", TOP_TOKENS_FIELD, "uri", "name", "folder", "caption", "width", "height", "bytes", "format", "colors"),
    *("taken_at", "modified_at", "sha256", "perceptual_hash", "fingerprint"),
]
"""The fields of a document that a hit requires."""


def build_query_inputs(
    params: SearchParams, stored: SparseVector | None = None, filters: Sequence[Mapping[str, Any]] = ()
) -> QueryInputs:
    """Build the query inputs of search parameters.

    Args:
        params: The search parameters.
        stored: The vector of the document `params.similar_to`.
        filters: The clauses of `build_filters`.
    """
    if params.method == "bm25":
        parsed = parse_query(params.text)
        if not parsed.text:
            raise QueryError("bm25 requires a text, and the query has none", "Enter some words, or use another method.")
        required, excluded = (*parsed.required, *params.require), (*parsed.excluded, *params.exclude)
        return QueryInputs(caption=parsed.text, required=required, excluded=excluded, filters=filters)
    uploaded = SparseVector.from_mapping(params.vector) if params.vector else None
    return QueryInputs(
        query_string=params.text,
        vectors=[vector for vector in (stored, uploaded) if vector is not None],
        factors=params.factors,
        required=params.require,
        excluded=params.exclude,
        filters=filters,
    )


def build_search_options(params: SearchParams) -> SearchOptions:
    """Build the search options of search parameters."""
    return SearchOptions(fold_duplicates=True, build_clause=build_bag_clause if params.method == "bag" else None)


def build_bag_clause(vector: SparseVector, max_clauses: int) -> SparseQuery:
    """Build a bag-of-words clause, for comparison: each query token among the heaviest of an image adds 1.

    Weights are ignored, except that the heaviest tokens are kept if there are too many.
    """
    tokens = vector.top(max_clauses)
    clauses = [{"constant_score": {"filter": {"term": {TOP_TOKENS_FIELD: token}}, "boost": 1.0}} for token, _ in tokens]
    truncated = SparseVector(vector.tokens[max_clauses:], vector.weights[max_clauses:])
    return SparseQuery(clause={"bool": {"should": clauses}}, vector=tokens, truncated=truncated)


def build_filters(params: SearchParams, fields: Mapping[str, MappedField]) -> list[dict[str, Any]]:
    """Build the clauses of the conditions and of the query string."""
    clauses = build_condition_clauses(params.filters, fields)
    text = params.filter.strip()
    if text[:1] in ("{", "["):  # a clause can run scripts, and read other indices
        raise QueryError("the filter is not a query string", "Write it like width:>800 AND format:JPEG.")
    return [*clauses, parse_filter(_UNESCAPED_SLASH.sub(r"\1\\/", text))] if text else clauses


def build_browsing_query(params: SearchParams, state: IndexState, filters: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Build the query for all images that meet the conditions, without scores."""
    required, excluded = (
        [build_token_clause(resolve_tokens(state.encoder, word, state.info.policy), state.plan.query_type) for word in words]
        for words in (params.require, params.exclude)
    )
    return {"bool": {"filter": [*filters, *required], "must_not": excluded}}


def build_dates_request(query: Mapping[str, Any], params: SearchParams) -> dict[str, Any]:
    """Build the request for the dates of the newest `k` images that are older than the cursor.

    They bound the dates of a page, for `build_browsing_request`. Sorted by date and URI at once, an engine looks up the URI of
    each image that is newer than all before it, and images are written in the order of their dates: 1.5 s for 100,000.
    """
    older = [{"range": {"ingested_at": {"lt": int(params.after[0]), "format": "epoch_millis"}}}] if params.after else []
    bounded = {"bool": {"filter": [query, *older]}}
    return {"size": params.k, "track_total_hits": False, "query": bounded, "sort": NEWEST_ORDER[:1], "_source": False}


def parse_oldest_date(response: Mapping[str, Any], k: int) -> int:
    """Parse the response to `build_dates_request` to the oldest date in milliseconds.

    Returns:
        0 if there are fewer than `k`, or if it is before 1970: images without a date come first there, and no range has them.
    """
    hits = response["hits"]["hits"]
    return max(0, int(hits[-1]["sort"][0])) if len(hits) == k else 0


def build_browsing_request(query: Mapping[str, Any], params: SearchParams, plan: QueryPlan, oldest_ms: int) -> SearchRequest:
    """Build the request for the newest images, none older than `oldest_ms`; 0 for no bound."""
    pagination = build_pagination(params.after, ordered=plan.sortable, order=NEWEST_ORDER) or {"sort": NEWEST_ORDER[:1]}
    newer = {"range": {"ingested_at": {"gte": oldest_ms, "format": "epoch_millis"}}}
    bounded = {"bool": {"filter": [query, newer]}} if oldest_ms else query
    body = {"size": params.k, "track_total_hits": False, "query": bounded, **pagination, "_source": HIT_FIELDS}
    return SearchRequest(body=body, vector=EMPTY_VECTOR, truncated=EMPTY_VECTOR, query_type=plan.query_type)


def parse_browsing_response(response: Mapping[str, Any], request: SearchRequest) -> SearchResult:
    """Parse the response to `build_browsing_request`: all scores are 0, and without a total order there is no cursor."""
    hits = [{**hit, "_score": 0.0} for hit in response["hits"]["hits"]]
    result = parse_search_response({**response, "hits": {"hits": hits}}, replace(request, query_type="rank_features"))
    return result if request.body["sort"] == NEWEST_ORDER else replace(result, after=None)


def explain_bag_score(query: SearchQuery, source: Mapping[str, Any]) -> tuple[TokenContribution, ...]:
    """Return the matching tokens, each with a contribution of 1."""
    top_tokens = source.get(TOP_TOKENS_FIELD)
    heaviest = set(map(str, top_tokens)) if isinstance(top_tokens, list) else {str(top_tokens)}
    common = sorted(token for token in query.vector.tokens if token in heaviest)
    return tuple(TokenContribution(token=token, query_weight=1.0, document_weight=1.0, contribution=1.0) for token in common)
