"""Build the weighted query of search parameters, and the bodies of `_search` requests. Pure, except for the encoder."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stair_es.errors import QueryError
from stair_es.search.dsl.filters import parse_filter
from stair_es.search.query import EMPTY_VECTOR, SearchQuery, TokenGroup
from stair_es.search.query_encoder import boost_tokens, combine_vectors, resolve_tokens
from stair_es.search.query_parser import ParsedQuery, parse_query
from stair_es.search.request import SearchRequest, build_pagination, build_search_body, build_search_request
from stair_es.search.results import TokenContribution
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from stair_es.model.base import Encoder
    from stair_es.search.dsl.select import QueryType
    from stair_es.token_policy import TokenPolicy
    from stair_es.web.search.schemas import SearchParams

TOP_TOKENS_FIELD = "top_tokens"
COLOURS_FIELD = "colours"
_UNESCAPED_SLASH = re.compile(r"(?<!\\)((?:\\\\)*)/")
"""An unescaped slash. It would begin a regular expression, which engines compile without a limit:
`/((a{1,100}){1,100}){1,100}/` blocks one of their few search threads until they are restarted."""
MAX_FACETS = 20
HIT_FIELDS = ["tokens", TOP_TOKENS_FIELD, "uri", "caption", "width", "height", "fingerprint"]
"""The fields of a document that a hit requires."""
_AGGREGATIONS = {
    "tokens": {"terms": {"field": TOP_TOKENS_FIELD, "size": MAX_FACETS}},
    "sources": {"terms": {"field": "source", "size": MAX_FACETS}},
    "indices": {"terms": {"field": "_index"}},
}
_COLOUR_AGGREGATION = {"colours": {"terms": {"field": COLOURS_FIELD, "size": MAX_FACETS}}}


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

    def apply_policy(self, vector: SparseVector) -> SparseVector:
        """Apply the token policy to a vector of the model."""
        return self.policy.rewrite_query(vector) if self.policy else vector


def build_weighted_query(
    params: SearchParams, normalizer: TokenNormalizer, encode: Callable[[str], SparseVector], stored: SparseVector | None = None
) -> WeightedQuery:
    """Build the weighted query of search parameters.

    Args:
        params: The search parameters.
        normalizer: The token normalizer of the index.
        encode: Encodes a text.
        stored: The tokens of the document `params.similar_to`, to which the policy has been applied already.

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
    query = SearchQuery(
        vector=SparseVector.from_mapping(weights),
        caption=parsed.text if by_caption else "",
        required=[normalizer.resolve_tokens(word) for word in required],
        excluded=[normalizer.resolve_tokens(word) for word in excluded],
        filters=_build_filters(params),
    )
    return WeightedQuery(tokens=tokens, required=required, excluded=excluded, query=query)


def build_filter_query(params: SearchParams) -> dict[str, Any] | None:
    """Build the query for all images that match the filters, if there is nothing else in the parameters; otherwise None.

    Raises:
        QueryError: If a filter can't be parsed.
    """
    has_query = params.text.strip() or params.similar_to or params.vector or params.factors
    return None if has_query or params.require or params.exclude else {"bool": {"filter": _build_filters(params)}}


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


def _build_filters(params: SearchParams) -> list[dict[str, Any]]:
    filters: list[dict[str, Any]] = [{"term": {TOP_TOKENS_FIELD: word}} for word in params.top_tokens]
    filters += [{"term": {COLOURS_FIELD: colour}} for colour in params.colours]
    text = params.filter.strip()
    if text[:1] in ("{", "["):  # a clause can run scripts, and read other indices
        raise QueryError("the filter is not a query string", "Write it like width:>800 AND format:JPEG.")
    return [*filters, parse_filter(_UNESCAPED_SLASH.sub(r"\1\\/", text))] if text else filters


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
    return replace(request, body={**request.body, "_source": HIT_FIELDS})


def build_facets_request(query: Mapping[str, Any], *, colours: bool) -> dict[str, Any]:
    """Build the request for the facets of all images that match a query."""
    aggs = {**_AGGREGATIONS, **(_COLOUR_AGGREGATION if colours else {})}
    return {"size": 0, "track_total_hits": True, "query": dict(query), "aggs": aggs}


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
    max_tokens = max(1, plan.max_clauses - query.other_clause_count)
    tokens = query.vector.top(max_tokens)
    clauses = [{"constant_score": {"filter": {"term": {TOP_TOKENS_FIELD: token}}, "boost": 1.0}} for token, _ in tokens]
    body = build_search_body([{"bool": {"should": clauses}}], query, plan.query_type, k=params.k)
    return SearchRequest(
        body={**body, **build_pagination(params.after, ordered=plan.sortable)},
        vector=tokens,
        truncated=SparseVector(query.vector.tokens[max_tokens:], query.vector.weights[max_tokens:]),
        query_type=plan.query_type,
    )
