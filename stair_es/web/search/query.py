"""Build the weighted query of search parameters, and the bodies of `_search` requests. Pure, except for the encoder."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stair_es.errors import QueryError
from stair_es.model.vocabularies.unknown_words import find_unknown_words
from stair_es.search.dsl.filters import parse_filter
from stair_es.search.dsl.pagination import NEWEST_ORDER
from stair_es.search.query import EMPTY_VECTOR, SearchQuery, TokenGroup
from stair_es.search.query_encoder import (
    boost_tokens,
    choose_match_thresholds,
    combine_vectors,
    list_named_words,
    resolve_tokens,
)
from stair_es.search.query_parser import ParsedQuery, list_operator_remarks, parse_query
from stair_es.search.request import (
    SearchRequest,
    build_pagination,
    build_search_body,
    build_search_request,
    build_token_clause,
)
from stair_es.search.results import SearchResult, TokenContribution, parse_search_response
from stair_es.types import SparseVector
from stair_es.web.search.facets import TOP_TOKENS_FIELD
from stair_es.web.search.params import build_condition_clauses

if TYPE_CHECKING:
    from stair_es.model.base import Encoder
    from stair_es.search.dsl.mapped_fields import MappedField
    from stair_es.search.dsl.select import QueryType
    from stair_es.token_policy import TokenPolicy
    from stair_es.web.search.params import SearchParams

_UNESCAPED_SLASH = re.compile(r"(?<!\\)((?:\\\\)*)/")
"""An unescaped slash. It would begin a regular expression, which engines compile without a limit:
`/((a{1,100}){1,100}){1,100}/` blocks one of their few search threads until they are restarted."""
_HIT_FIELDS = [
    *("tokens", TOP_TOKENS_FIELD, "uri", "name", "folder", "caption", "width", "height", "bytes", "format", "colors"),
    *("taken_at", "modified_at", "sha256", "perceptual_hash", "fingerprint"),
]
"""The fields of a document that a hit requires."""


@dataclass(frozen=True, kw_only=True)
class QueryToken:
    """A token of a query."""

    token: str
    weight: float
    """Weight without the factor."""
    factor: float = 1.0
    added: bool = False
    """Whether it is in the query only because of its factor."""


@dataclass(frozen=True, kw_only=True)
class WeightedQuery:
    """A search query, with the weight and factor of each token."""

    tokens: tuple[QueryToken, ...]
    """All tokens, heaviest first, including those with a factor of 0."""
    required: tuple[str, ...]
    """The words as typed."""
    excluded: tuple[str, ...]
    query: SearchQuery


@dataclass(frozen=True, kw_only=True)
class TokenNormalizer:
    """Converts words and vectors to the tokens of an index: by its model, then by its token policy."""

    encoder: Encoder
    policy: TokenPolicy | None = None

    def resolve_tokens(self, word: str) -> TokenGroup:
        """Resolve a word to tokens.

        Raises:
            QueryError: If it has none.
        """
        if self.policy is None:
            return resolve_tokens(self.encoder, word)
        if word in self.policy.replacements.values():  # perhaps not in the vocabulary of the model
            return (word,)
        return self.policy.replace_tokens(resolve_tokens(self.encoder, word))

    def list_named_words(self, texts: Sequence[str]) -> list[TokenGroup]:
        """List the words of texts as tokens (see `query_encoder.list_named_words`)."""
        words = list_named_words(self.encoder, texts)
        return words if self.policy is None else list(map(self.policy.replace_tokens, words))

    def apply_policy(self, vector: SparseVector) -> SparseVector:
        """Apply the token policy to a vector of the model."""
        return self.policy.rewrite_query(vector) if self.policy else vector


def build_weighted_query(
    params: SearchParams,
    normalizer: TokenNormalizer,
    encode: Callable[[str], SparseVector],
    *,
    stored: SparseVector | None = None,
    filters: Sequence[Mapping[str, Any]] = (),
) -> WeightedQuery:
    """Build the weighted query of search parameters.

    Args:
        params: The search parameters.
        normalizer: The token normalizer of the index.
        encode: Encodes a text.
        stored: The tokens of the document `params.similar_to`, to which the policy has been applied already.
        filters: The clauses of `build_filters`.

    Raises:
        QueryError: If the query is empty, a word is not in the vocabulary, or parameters contradict each other.
    """
    parsed = parse_query(params.text)
    by_caption = params.method == "bm25"
    tokens = () if by_caption else _collect_tokens(params, parsed, normalizer, encode, stored)
    if by_caption and not parsed.text:
        raise QueryError("bm25 requires a text, and the query has none", "Enter some words, or use another method.")
    required = tuple(dict.fromkeys((*parsed.required, *params.require)))
    excluded = tuple(dict.fromkeys((*parsed.excluded, *params.exclude)))
    weights = {token.token: token.weight * token.factor for token in tokens if token.weight * token.factor > 0}
    if tokens and not weights:
        raise QueryError("all tokens of the query are muted", "Keep at least one of them.")
    if not all(map(math.isfinite, weights.values())):
        raise QueryError("a factor makes a weight too large", "Use a smaller one.")
    texts = [parsed.text] if parsed.text and not by_caption else []
    has_images = stored is not None or bool(params.vector)
    query = SearchQuery(
        vector=SparseVector.from_mapping(weights),
        caption=parsed.text if by_caption else "",
        required=[normalizer.resolve_tokens(word) for word in required],
        excluded=[normalizer.resolve_tokens(word) for word in excluded],
        filters=filters,
        match_thresholds=choose_match_thresholds(normalizer.encoder, texts, has_images=has_images),
        named_words=[] if has_images else normalizer.list_named_words(texts),
        unknown_words=[word for text in texts for word in find_unknown_words(normalizer.encoder, text)],
        remarks=list_operator_remarks(params.text),
    )
    return WeightedQuery(tokens=tokens, required=required, excluded=excluded, query=query)


def build_browsing_query(
    params: SearchParams, normalizer: TokenNormalizer, query_type: QueryType, filters: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Build the query for all images that meet the conditions, without scores.

    Raises:
        QueryError: If a word is not in the vocabulary.
    """
    required, excluded = (
        [build_token_clause(normalizer.resolve_tokens(word), query_type) for word in words]
        for words in (params.require, params.exclude)
    )
    return {"bool": {"filter": [*filters, *required], "must_not": excluded}}


def build_filters(params: SearchParams, fields: Mapping[str, MappedField]) -> list[dict[str, Any]]:
    """Build the clauses of the conditions and of the query string.

    Raises:
        QueryError: If one is invalid.
    """
    clauses = build_condition_clauses(params.filters, fields)
    text = params.filter.strip()
    if text[:1] in ("{", "["):  # a clause can run scripts, and read other indices
        raise QueryError("the filter is not a query string", "Write it like width:>800 AND format:JPEG.")
    return [*clauses, parse_filter(_UNESCAPED_SLASH.sub(r"\1\\/", text))] if text else clauses


def _collect_tokens(
    params: SearchParams,
    parsed: ParsedQuery,
    normalizer: TokenNormalizer,
    encode: Callable[[str], SparseVector],
    stored: SparseVector | None,
) -> tuple[QueryToken, ...]:
    vectors = [normalizer.apply_policy(encode(parsed.text))] if parsed.text else []
    vectors += [] if stored is None else [stored]
    vectors += [normalizer.apply_policy(SparseVector.from_mapping(params.vector))] if params.vector else []
    boosts = {token: boost for word, boost in parsed.boosts.items() for token in normalizer.resolve_tokens(word)}
    vector = EMPTY_VECTOR
    if vectors:  # a token with a boost of 0 keeps its weight, but its factor is 0
        combined = combine_vectors((vector, 1.0) for vector in vectors)
        vector = boost_tokens(combined, {token: boost or 1.0 for token, boost in boosts.items()})
    tokens = {token: QueryToken(token=token, weight=weight, factor=float(boosts.get(token) != 0)) for token, weight in vector}
    tokens = _apply_factors(tokens, params.factors, normalizer)
    if not tokens:
        problem = "only excludes words" if parsed.excluded or params.exclude else "is empty"
        raise QueryError(f"the query {problem}", 'Add what to search for: words, an image, or both ("beach -people").')
    return tuple(sorted(tokens.values(), key=lambda token: (-token.weight, token.token)))


def _apply_factors(
    tokens: Mapping[str, QueryToken], factors: Mapping[str, float], normalizer: TokenNormalizer
) -> dict[str, QueryToken]:
    weighted = dict(tokens)
    for name, factor in factors.items():
        for token in (name,) if name in tokens else normalizer.resolve_tokens(name):
            if token in tokens and (token == name or token not in factors):
                weighted[token] = replace(tokens[token], factor=factor)
            elif token not in tokens:
                weighted[token] = QueryToken(token=token, weight=1.0, factor=factor, added=True)
    return weighted


@dataclass(frozen=True, kw_only=True)
class QueryPlan:
    """The query type and limits for a cluster and an index."""

    query_type: QueryType
    max_clauses: int
    sortable: bool = True
    """Whether hits have a total order."""


def build_page_request(query: SearchQuery, params: SearchParams, plan: QueryPlan) -> SearchRequest:
    """Build the request for the best images.

    Raises:
        QueryError: If the query is not supported.
    """
    if params.method == "bag":
        request = _build_bag_request(query, params, plan)
    else:
        request = build_search_request(
            query, plan.query_type, max_clauses=plan.max_clauses, k=params.k, after=params.after, ordered=plan.sortable
        )
    return replace(request, body={**request.body, "_source": _HIT_FIELDS})


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
    """Build the request for the newest images, none older than `oldest_ms`; 0 for no bound.

    Raises:
        QueryError: If `params.after` is not a cursor, or there is no total order.
    """
    pagination = build_pagination(params.after, ordered=plan.sortable, order=NEWEST_ORDER) or {"sort": NEWEST_ORDER[:1]}
    newer = {"range": {"ingested_at": {"gte": oldest_ms, "format": "epoch_millis"}}}
    bounded = {"bool": {"filter": [query, newer]}} if oldest_ms else query
    body = {"size": params.k, "track_total_hits": False, "query": bounded, **pagination, "_source": _HIT_FIELDS}
    return SearchRequest(body=body, vector=EMPTY_VECTOR, truncated=EMPTY_VECTOR, query_type=plan.query_type)


def parse_browsing_response(response: Mapping[str, Any], request: SearchRequest) -> SearchResult:
    """Parse the response to `build_browsing_request`: all scores are 0, and without a total order there is no cursor."""
    hits = [{**hit, "_score": 0.0} for hit in response["hits"]["hits"]]
    result = parse_search_response({**response, "hits": {"hits": hits}}, replace(request, query_type="rank_features"))
    return result if request.body["sort"] == NEWEST_ORDER else replace(result, after=None)


def build_counts_request() -> dict[str, Any]:
    """Build the request that counts images, and images with a caption."""
    captions = {"captions": {"filter": {"exists": {"field": "caption"}}}}
    return {"size": 0, "track_total_hits": True, "aggs": captions}


def explain_bag_score(query: SearchQuery, source: Mapping[str, Any]) -> tuple[TokenContribution, ...]:
    """Return the matching tokens, each with a contribution of 1."""
    top_tokens = source.get(TOP_TOKENS_FIELD)
    heaviest = set(map(str, top_tokens)) if isinstance(top_tokens, list) else {str(top_tokens)}
    common = sorted(token for token in query.vector.tokens if token in heaviest)
    return tuple(TokenContribution(token=token, query_weight=1.0, document_weight=1.0, contribution=1.0) for token in common)


def _build_bag_request(query: SearchQuery, params: SearchParams, plan: QueryPlan) -> SearchRequest:
    """Build a bag-of-words request, for comparison: each query token among the heaviest of an image adds 1.

    Weights are ignored, except that the heaviest tokens are kept if there are too many.
    """
    max_tokens = query.count_vector_clauses(plan.max_clauses)
    tokens = query.vector.top(max_tokens)
    clauses = [{"constant_score": {"filter": {"term": {TOP_TOKENS_FIELD: token}}, "boost": 1.0}} for token, _ in tokens]
    body = build_search_body([{"bool": {"should": clauses}}], query, plan.query_type, k=params.k)
    return SearchRequest(
        body={**body, **build_pagination(params.after, ordered=plan.sortable, scale=query.scale)},
        vector=tokens,
        truncated=SparseVector(query.vector.tokens[max_tokens:], query.vector.weights[max_tokens:]),
        query_type=plan.query_type,
        scale=query.scale,
    )
