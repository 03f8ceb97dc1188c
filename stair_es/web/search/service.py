"""The search service behind the routes. Its methods block, and send only searches and metadata requests to the cluster."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from cachetools import LRUCache, TTLCache
from msgspec import structs

from stair_es._version import __version__
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.retry import NO_RETRY
from stair_es.errors import ClusterError, QueryError
from stair_es.feature_names import escape_feature
from stair_es.inspection.stored_document import StoredImage, find_stored_image, get_stored_images
from stair_es.model.base import Encoder
from stair_es.search.dsl.pagination import NEWEST_ORDER, Cursor, build_field_order
from stair_es.search.dsl.query_inputs import QueryInputs
from stair_es.search.dsl.query_parser import list_operator_remarks
from stair_es.search.dsl.understanding import SearchFields, TextCondition
from stair_es.search.index_cache import IndexCache, IndexState
from stair_es.search.query import EMPTY_VECTOR, SearchQuery, explain_no_hits
from stair_es.search.query_encoder import build_search_query, encode_any_text, resolve_tokens
from stair_es.search.ranking import collect_pictures, is_same_picture
from stair_es.search.request import SearchRequest, build_match_clause, build_pagination, build_token_clause
from stair_es.search.results import Hit, SearchResult, TokenContribution, parse_search_response
from stair_es.search.searcher import QueryRunner
from stair_es.sources.image.decode import decode_image
from stair_es.types import SparseVector
from stair_es.web.config import ServerConfig
from stair_es.web.errors import RequestRejected, build_not_found
from stair_es.web.limits import ConcurrencyLimiter
from stair_es.web.search import serializers
from stair_es.web.search.content_facts import ContentFacts, is_hidden_token, list_field_facts
from stair_es.web.search.facets import build_facets_request, list_facet_fields, list_facets, list_orders, serialize_facets
from stair_es.web.search.params import (
    TOP_TOKENS_FIELD,
    SearchMethod,
    SearchParams,
    build_filters,
    build_query_inputs,
    build_search_options,
)

_THUMBNAIL_PX = 128
_SEARCH_TIMEOUT = "8s"
"""Timeout of one search in the cluster, which would otherwise continue after the client has disconnected."""
_SIZES = ("width", "height")
HIT_FIELDS = [
    *("tokens", TOP_TOKENS_FIELD, "labels", "uri", "name", "folder", "title", "caption", "text", "width", "height", "bytes"),
    *("format", "colors", "taken_at", "modified_at", "sha256", "perceptual_hash", "fingerprint", "parent"),
]


class SearchService:
    """The search service of one index. Thread safe."""

    def __init__(
        self, config: ServerConfig, cluster: Cluster, states: IndexCache[IndexState], limiter: ConcurrencyLimiter
    ) -> None:
        self._config, self._cluster, self._states, self._limiter = config, cluster, states, limiter
        self._lock = threading.Lock()
        self._texts: LRUCache[tuple[str, str, str], SparseVector] = LRUCache(512)
        self._images: TTLCache[str, StoredImage] = TTLCache(128, ttl=5.0)
        self._facts = ContentFacts(self._send)
        self._hit_fields = [*HIT_FIELDS, config.price_field]
        self.runner = QueryRunner(self._send, source_fields=self._hit_fields)

    def describe_index(self) -> dict[str, Any]:
        """Describe the index, and what the page may do."""
        state = self._states.get()
        return {
            "title": self._config.title or self._config.index,
            "index": self._config.index,
            "model": state.info.model,
            "version": __version__,
            "documents": self._facts.count_documents(),
            "captions": bool(self.runner.choose_caption_field(state)),
            "originals": bool(self._config.roots),
            "max_upload_bytes": self._config.limits.upload_bytes,
            "policy": state.info.policy.label if state.info.policy else None,
            "coverage": self._config.coverage is not None,
            "teach": self._config.teach,
            "fields": list_field_facts(state.info),
            "orders": list_orders(
                list_facet_fields(state.info.mapped_fields), self._facts.get_profiles(state.info), self._config.price_field
            ),
            "suggestions": self._facts.list_suggestions(state.info),
        }

    def list_field_values(self, name: str, prefix: str) -> dict[str, Any]:
        """List the most frequent values of a field that begin with a prefix."""
        return self._facts.list_values(self._states.get().info, name, prefix)

    def search(self, params: SearchParams) -> dict[str, Any]:
        """Search for the best images; without anything to rank by, list the newest."""
        search = self._browse_index if params.is_browsing else self._search_index
        return self._states.search_with_refresh(lambda state: search(state, params))

    def count_facets(self, params: SearchParams) -> dict[str, Any]:
        """Count the facets of all images that match; without a query, of those that match the filters."""
        return self._states.search_with_refresh(lambda state: self._count_facets(state, params))

    def find_neighbors(self, id_: str, k: int) -> dict[str, Any]:
        """Find the `k` images that are most similar to an image."""
        return self._states.search_with_refresh(lambda state: self._find_neighbors(state, id_, k))

    def get_image(self, id_: str) -> dict[str, Any]:
        """Get one image with all that is shown of it."""
        state = self._states.get()
        image = get_stored_images(self._cluster, self._config.index, [id_]).get(id_)
        if image is None:
            raise build_not_found(id_)
        return serializers.serialize_image(image, self._build_links(state, id_, image.uri, image.source))

    def encode_upload(self, data: bytes) -> dict[str, Any]:
        """Encode an uploaded image, without storing it."""
        state = self._states.get()
        policy = state.info.policy
        with self._limiter():
            decoded = decode_image(data, state.encoder.image_spec, self._config.limits.upload_limits, _THUMBNAIL_PX)
            with self._config.hooks.track_encoding("image"):
                [vector] = state.encoder.encode_images(decoded.pixels_HWC[None])
        return {
            "tokens": serializers.serialize_vector(policy.rewrite_query(vector) if policy else vector),
            "thumbnail": decoded.thumbnail,
            "width": decoded.width,
            "height": decoded.height,
        }

    def _search_index(self, state: IndexState, params: SearchParams) -> tuple[dict[str, Any], set[str]]:
        inputs, query = self._build_query(state, params)
        options = build_search_options(params)
        result = self.runner.search(state, query, params.k, params.after, options)
        if not result.hits and params.after is None:
            reason = explain_no_hits(query, lambda other: self.runner.count(state, other, options))
            result = replace(result, remarks=(*([reason] if reason else []), *result.remarks))
        described = serializers.serialize_query(query.tokens, inputs.required_words, inputs.excluded_words)
        words = query.caption.split() if params.method == "text" else ()  # BM25 doesn't tell which it found
        hits = self.serialize_hits(state, result.hits, params.method, query.vector, words)
        return serializers.serialize_page(described, hits, result, params.method), {hit.index for hit in result.hits}

    def _browse_index(self, state: IndexState, params: SearchParams) -> tuple[dict[str, Any], set[str]]:
        query, ordered = build_browsing_query(params, state), state.info.sortable
        near = _build_near_conditions(params, state)
        order = build_field_order(params.sort, state.info.mapped_fields) if params.sort else NEWEST_ORDER
        build_pagination(params.after, ordered=ordered, order=order)  # checks the cursor

        def fetch(after: Cursor | None) -> SearchResult:
            page = structs.replace(params, after=None if after is None else tuple(after))
            oldest_ms = 0 if params.sort else parse_oldest_date(self._send(build_dates_request(query, page)), page.k)
            request = build_browsing_request(query, page, ordered, oldest_ms, order)
            return parse_browsing_response(self._send({**request.body, "_source": self._hit_fields}), request)

        result = replace(collect_pictures(fetch, params.k, params.after), conditions=near)
        hits = self.serialize_hits(state, result.hits, params.method, EMPTY_VECTOR)
        described = serializers.serialize_query((), params.require, params.exclude)
        return serializers.serialize_page(described, hits, result, params.method), {hit.index for hit in result.hits}

    def _count_facets(self, state: IndexState, params: SearchParams) -> tuple[dict[str, Any], set[str]]:
        exclusive = [condition for condition in params.filters if condition.is_exclusive]
        shared = structs.replace(params, filters=tuple(condition for condition in params.filters if not condition.is_exclusive))
        cut = None
        if params.is_browsing:
            clause = build_browsing_query(shared, state)
        else:
            _, query = self._build_query(state, shared)
            request = self.runner.build_request(state, query, params.k, params.after, build_search_options(params))
            clause, cut = request.body["query"], build_match_clause(request, query)
        fields = state.info.mapped_fields
        facets = list_facets(list_facet_fields(fields), self._facts.get_profiles(state.info), params.filters)
        response = self._send(build_facets_request(clause, cut, facets, exclusive, fields))
        indices = {str(bucket["key"]) for bucket in response["aggregations"]["indices"]["buckets"]}
        return serialize_facets(facets, response, partial(is_hidden_token, state.info)), indices

    def _find_neighbors(self, state: IndexState, id_: str, k: int) -> tuple[dict[str, Any], set[str]]:
        image = self._get_stored_image(state, id_)
        vector = state.info.remove_taught_words(image.vector)
        if not len(vector):
            return {"hits": [], "duplicates": []}, {image.index}
        params = SearchParams(k=k + 1)  # one picture more: its own copies, which are left out
        query = SearchQuery(vector=vector, filters=[{"bool": {"must_not": [{"ids": {"values": [image.id]}}]}}])
        source = {**image.source, "tokens": {escape_feature(token): weight for token, weight in image.vector}}
        found = self.runner.search(state, query, params.k, None, build_search_options(params)).hits
        copies: list[Hit] = []
        others: list[Hit] = []
        for hit in found:
            (copies if is_same_picture(source, hit.source) else others).append(hit)
        answer = {
            "hits": self.serialize_hits(state, others[:k], params.method, query.vector),
            "duplicates": serializers.serialize_duplicates(copy for hit in copies for copy in (hit, *hit.duplicates)),
        }
        return answer, {image.index, *(hit.index for hit in found)}

    def _build_query(self, state: IndexState, params: SearchParams) -> tuple[QueryInputs, SearchQuery]:
        by_caption = params.method == "text"
        image = self._get_stored_image(state, params.similar_to) if params.similar_to and not by_caption else None
        filters = build_filters(params.filters, params.filter, state.info.mapped_fields)
        state.info.check_filter_fields(filters)  # here, too, so that no text is encoded for a filter that can't be sent
        inputs = build_query_inputs(params, state.info.remove_taught_words(image.vector) if image else None, filters)
        fields = self.runner.list_search_fields(state, self._config.price_field)
        if by_caption:
            fields = SearchFields(text=self.runner.choose_caption_field(state), location=fields.location)
        if by_caption and not fields.text:
            raise QueryError("no image of this index has a caption to search", "Rank by words.", code="no-captions")
        encode_text = partial(self._encode_text, state)
        query = build_search_query(state.encoder, inputs, fields=fields, policy=state.info.policy, encode_text=encode_text)
        if by_caption:
            return inputs, replace(query, caption_words=(), remarks=list_operator_remarks(params.text))
        return inputs, self.runner.refine_query(state, query, build_search_options(params))

    def serialize_hits(
        self, state: IndexState, hits: Sequence[Hit], method: SearchMethod, vector: SparseVector, words: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Serialize hits; `vector` is that of the query, for the method `bag`, and `words` are marked in texts."""
        price_field = state.info.list_search_fields(self._config.price_field).price
        return [
            serializers.serialize_hit(
                replace(hit, source=_drop_foreign_sizes(state, hit.source)),
                explain_bag_score(vector, hit.source) if method == "bag" else hit.contributions,
                hit.score if method == "text" else hit.text_score if hit.caption_words else 0.0,  # otherwise, rounding errors
                self._build_links(state, hit.id, hit.uri, hit.source),
                partial(is_hidden_token, state.info),
                price_field,
                words,
            )
            for hit in hits
        ]

    def _build_links(self, state: IndexState, id_: str, uri: str, source: Mapping[str, Any]) -> dict[str, str | None]:
        has_original = self._config.roots.contains(uri)
        has_thumbnail = state.info.has_thumbnails or bool(self._config.roots)
        return serializers.build_image_links(id_, source.get("fingerprint"), has_thumbnail, has_original)

    def _encode_text(self, state: IndexState, encoder: Encoder, text: str) -> SparseVector:
        key = (encoder.model_id, state.info.policy.digest if state.info.policy else "", text)
        with self._lock:
            vector = self._texts.get(key)
        if vector is None:
            with self._limiter(), self._config.hooks.track_encoding("text"):
                vector = encode_any_text(encoder, text)
            with self._lock:
                self._texts[key] = vector
        return vector

    def _get_stored_image(self, state: IndexState, reference: str) -> StoredImage:
        """Get a stored image from a short-lived cache: moving a slider requests the same image many times."""
        with self._lock:
            image = self._images.get(reference)
        if image is None or image.index not in state.info.fields:
            image = find_stored_image(self._cluster, self._config.index, reference)
            if image is None:
                raise build_not_found(reference)
            image = replace(image, source=_drop_foreign_sizes(state, image.source))
            with self._lock:
                self._images[reference] = image
        return image

    def _send(self, body: Mapping[str, Any], _pipeline: str | None = None) -> dict[str, Any]:
        response = self._cluster.search(self._config.index, {**body, "timeout": _SEARCH_TIMEOUT}, retry=NO_RETRY)
        if "hits" not in response:
            raise ClusterError(
                f"{self._cluster.connection.safe_url} returned no search response",
                "Check that it is the port of the cluster.",
                code="not-a-search-response",
            )
        self._config.hooks.record_search_time(response.get("took", 0) / 1000)
        if response.get("timed_out"):  # partial hits are not a result
            raise RequestRejected(
                503, "the search timed out", "Simplify it: a filter with many * is slow.", code="search-timed-out"
            )
        return response


def build_browsing_query(params: SearchParams, state: IndexState) -> dict[str, Any]:
    """Build the query for all images that meet the conditions, without scores."""
    filters = build_filters(params.filters, params.filter, state.info.mapped_fields)
    state.info.check_filter_fields(filters)
    query_type = state.plan_query().query_type
    required, excluded = (
        [build_token_clause(resolve_tokens(state.encoder, word, state.info.policy), query_type) for word in words]
        for words in (params.require, params.exclude)
    )
    near = [dict(condition.clause) for condition in _build_near_conditions(params, state)]
    return {"bool": {"filter": [*filters, *near, *required], "must_not": excluded}}


def _build_near_conditions(params: SearchParams, state: IndexState) -> tuple[TextCondition, ...]:
    return QueryInputs(query_string=params.text).build_near_conditions(state.info.list_search_fields())


def build_dates_request(query: Mapping[str, Any], params: SearchParams) -> dict[str, Any]:
    """Build the request for the dates of the newest `k` images that are older than the cursor.

    They bound the dates of a page, for `build_browsing_request`. Sorted by date and URI at once, an engine looks up the URI of
    each image that is newer than all before it, and images are written in the order of their dates: 1.5 s for 100,000.
    """
    older = [{"range": {"ingested_at": {"lt": int(params.after[0]), "format": "epoch_millis"}}}] if params.after else []
    bounded = {"bool": {"filter": [query, *older]}}
    return {"size": params.k, "track_total_hits": False, "query": bounded, "sort": NEWEST_ORDER[:1], "_source": False}


def parse_oldest_date(response: Mapping[str, Any], k: int) -> int:
    """Parse the response to `build_dates_request` to the oldest date in milliseconds; 0 if there are fewer than `k`.

    Also 0 if it is before 1970: images without a date come first there, and no range has them.
    """
    hits = response["hits"]["hits"]
    return max(0, int(hits[-1]["sort"][0])) if len(hits) == k else 0


def build_browsing_request(
    query: Mapping[str, Any],
    params: SearchParams,
    ordered: bool,
    oldest_ms: int,
    order: Sequence[Mapping[str, Any]] = NEWEST_ORDER,
) -> SearchRequest:
    """Build the request for the first images in an order, none older than `oldest_ms`; 0 for no bound."""
    pagination = build_pagination(params.after, ordered=ordered, order=order) or {"sort": list(order[:1])}
    newer = {"range": {"ingested_at": {"gte": oldest_ms, "format": "epoch_millis"}}}
    bounded = {"bool": {"filter": [query, newer]}} if oldest_ms else query
    body = {"size": params.k, "track_total_hits": False, "query": bounded, **pagination}
    return SearchRequest(body=body, vector=EMPTY_VECTOR, truncated=EMPTY_VECTOR, query_type="rank_features")


def parse_browsing_response(response: Mapping[str, Any], request: SearchRequest) -> SearchResult:
    """Parse the response to `build_browsing_request`: all scores are 0, and without a total order there is no cursor."""
    hits = [{**hit, "_score": 0.0} for hit in response["hits"]["hits"]]
    result = parse_search_response({**response, "hits": {"hits": hits}}, request)
    return result if len(request.body["sort"]) > 1 else replace(result, after=None)


def explain_bag_score(vector: SparseVector, source: Mapping[str, Any]) -> tuple[TokenContribution, ...]:
    """Return the matching tokens, each with a contribution of 1."""
    top_tokens = source.get(TOP_TOKENS_FIELD)
    heaviest = set(map(str, top_tokens)) if isinstance(top_tokens, list) else {str(top_tokens)}
    common = sorted(token for token in vector.tokens if token in heaviest)
    return tuple(TokenContribution(token=token, query_weight=1.0, document_weight=1.0, contribution=1.0) for token in common)


def _drop_foreign_sizes(state: IndexState, source: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields of a document without a width and height that aren't those of its image."""
    return source if state.info.has_image_sizes else {name: value for name, value in source.items() if name not in _SIZES}
