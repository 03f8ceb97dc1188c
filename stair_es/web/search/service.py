"""The search service behind the routes. Its methods block, and send only searches and metadata requests to the cluster."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cachetools import LRUCache, TTLCache

from stair_es._version import __version__
from stair_es.cluster.client.retry import NO_RETRY
from stair_es.errors import ClusterError, QueryError
from stair_es.inspection.stored_document import find_stored_image, get_stored_images
from stair_es.search.query import SearchQuery
from stair_es.search.query_encoder import encode_query_text
from stair_es.search.results import parse_search_response
from stair_es.sources.image.decode import decode_image
from stair_es.web.errors import RETRY_AFTER_S, RequestRejected, build_not_found
from stair_es.web.search import serializers
from stair_es.web.search.query import (
    WeightedQuery,
    build_counts_request,
    build_facets_request,
    build_filter_query,
    build_page_request,
    build_weighted_query,
    explain_bag_score,
)
from stair_es.web.search.schemas import SearchParams

if TYPE_CHECKING:
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.inspection.stored_document import StoredImage
    from stair_es.search.index_cache import IndexCache
    from stair_es.search.results import Hit, SearchResult
    from stair_es.types import SparseVector
    from stair_es.web.hooks import ServerHooks
    from stair_es.web.images.file_access import AllowedRoots
    from stair_es.web.index_state import IndexState
    from stair_es.web.limits import ConcurrencyLimiter, ServerLimits

_THUMBNAIL_PX = 128
_SEARCH_TIMEOUT = "8s"
"""Timeout of one search in the cluster, which would otherwise continue after the client has disconnected."""


class SearchService:
    """The search service of one index. Thread safe."""

    def __init__(
        self,
        cluster: Cluster,
        index: str,
        *,
        states: IndexCache[IndexState],
        limiter: ConcurrencyLimiter,
        limits: ServerLimits,
        roots: AllowedRoots,
        hooks: ServerHooks,
    ) -> None:
        self._cluster, self._index = cluster, index
        self._states, self._limiter, self._limits, self._roots = states, limiter, limits, roots
        self._hooks = hooks
        self._lock = threading.Lock()
        self._texts: LRUCache[tuple[str, str], SparseVector] = LRUCache(512)
        self._images: TTLCache[str, StoredImage] = TTLCache(128, ttl=5.0)
        self._counts: TTLCache[str, tuple[int, int]] = TTLCache(1, ttl=10.0)

    def describe_index(self, title: str) -> dict[str, Any]:
        """Describe the index; `title` is shown instead of its name."""
        state = self._states.get()
        documents, captions = self._count_documents()
        return {
            "title": title or self._index,
            "index": self._index,
            "model": state.info.model,
            "version": __version__,
            "documents": documents,
            "captions": captions > 0,
            "originals": bool(self._roots),
            "max_upload_bytes": self._limits.upload_bytes,
            "policy": state.info.policy.label if state.info.policy else None,
        }

    def search(self, params: SearchParams) -> dict[str, Any]:
        """Search for the best images."""
        return self._states.search_with_refresh(lambda state: self._search_index(state, params))

    def count_facets(self, params: SearchParams) -> dict[str, Any]:
        """Count the facets of all images that match; without a query, of those that match the filters."""
        return self._states.search_with_refresh(lambda state: self._count_facets(state, params))

    def find_neighbors(self, id_: str, k: int) -> dict[str, Any]:
        """Find the `k` images that are most similar to an image."""
        return self._states.search_with_refresh(lambda state: self._find_neighbors(state, id_, k))

    def get_image(self, id_: str) -> dict[str, Any]:
        """Get one image with all that is shown of it."""
        state = self._states.get()
        image = get_stored_images(self._cluster, self._index, [id_]).get(id_)
        if image is None:
            raise build_not_found(id_)
        original = serializers.build_original_url(id_) if self._roots.contains(image.uri) else None
        return serializers.serialize_image(image, self._get_thumbnail_url(state, id_, image.source), original)

    def encode_upload(self, data: bytes) -> dict[str, Any]:
        """Encode an uploaded image, without storing it."""
        state = self._states.get()
        with self._limiter():
            decoded = decode_image(data, state.encoder.image_spec, self._limits.decode_limits, _THUMBNAIL_PX)
            with self._hooks.track_encoding("image"):
                [vector] = state.encoder.encode_images(decoded.pixels_HWC[None])
        return {
            "tokens": serializers.serialize_vector(state.normalizer.apply_policy(vector)),
            "thumbnail": decoded.thumbnail,
            "width": decoded.width,
            "height": decoded.height,
        }

    def _search_index(self, state: IndexState, params: SearchParams) -> tuple[dict[str, Any], set[str]]:
        weighted = self._build_query(state, params)
        result = self._send_query(state, weighted.query, params)
        page = {
            **serializers.serialize_query(weighted),
            "hits": self._serialize_hits(state, weighted.query, params, result.hits),
            "after": result.after,
            "took_ms": result.took_ms,
            "truncated": list(result.truncated.tokens),
            "method": params.method,
        }
        return page, {hit.index for hit in result.hits}

    def _send_query(self, state: IndexState, query: SearchQuery, params: SearchParams) -> SearchResult:
        request = build_page_request(query, params, state.plan)
        return parse_search_response(self._send(request.body), request)

    def _count_facets(self, state: IndexState, params: SearchParams) -> tuple[dict[str, Any], set[str]]:
        query = (
            build_filter_query(params)
            or build_page_request(self._build_query(state, params).query, params, state.plan).body["query"]
        )
        response = self._send(build_facets_request(query, colours=state.info.has_colours))
        return serializers.serialize_facets(response), {
            str(bucket["key"]) for bucket in response["aggregations"]["indices"]["buckets"]
        }

    def _find_neighbors(self, state: IndexState, id_: str, k: int) -> tuple[dict[str, Any], set[str]]:
        image = self._get_stored_image(state, id_)
        if not len(image.vector):
            return {"hits": []}, {image.index}
        params = SearchParams(k=k)
        query = SearchQuery(vector=image.vector, filters=[{"bool": {"must_not": [{"ids": {"values": [image.id]}}]}}])
        hits = self._send_query(state, query, params).hits
        return {"hits": self._serialize_hits(state, query, params, hits)}, {image.index, *(hit.index for hit in hits)}

    def _build_query(self, state: IndexState, params: SearchParams) -> WeightedQuery:
        image = self._get_stored_image(state, params.similar_to) if params.similar_to and params.method != "bm25" else None
        weighted = build_weighted_query(
            params, state.normalizer, lambda text: self._encode_text(state, text), image.vector if image else None
        )
        if params.method == "bm25":
            state.info.check_caption_field(weighted.query)
            if not self._count_documents()[1]:
                raise QueryError("bm25 searches captions, and no image of this index has one", "Use another method.")
        return weighted

    def _serialize_hits(
        self, state: IndexState, query: SearchQuery, params: SearchParams, hits: Sequence[Hit]
    ) -> list[dict[str, Any]]:
        return [
            serializers.serialize_hit(
                hit,
                explain_bag_score(query, hit.source) if params.method == "bag" else hit.contributions,
                hit.score if params.method == "bm25" else 0.0,  # otherwise the score is that of its tokens, apart from rounding
                self._get_thumbnail_url(state, hit.id, hit.source),
            )
            for hit in hits
        ]

    def _get_thumbnail_url(self, state: IndexState, id_: str, source: Mapping[str, Any]) -> str | None:
        has_thumbnail = state.info.has_thumbnails or self._roots
        return serializers.build_thumbnail_url(id_, source.get("fingerprint")) if has_thumbnail else None

    def _encode_text(self, state: IndexState, text: str) -> SparseVector:
        key = (state.encoder.model_id, text)
        with self._lock:
            vector = self._texts.get(key)
        if vector is None:
            with self._limiter(), self._hooks.track_encoding("text"):
                vector = encode_query_text(state.encoder, text)
            with self._lock:
                self._texts[key] = vector
        return vector

    def _get_stored_image(self, state: IndexState, reference: str) -> StoredImage:
        """Get a stored image from a short-lived cache: moving a slider requests the same image many times."""
        with self._lock:
            image = self._images.get(reference)
        if image is None or image.index not in state.info.fields:
            image = find_stored_image(self._cluster, self._index, reference)
            if image is None:
                raise build_not_found(reference)
            with self._lock:
                self._images[reference] = image
        return image

    def _count_documents(self) -> tuple[int, int]:
        """Count images, and images with a caption."""
        with self._lock:
            counts = self._counts.get("")
        if counts is None:
            response = self._send(build_counts_request())
            counts = int(response["hits"]["total"]["value"]), int(response["aggregations"]["captions"]["doc_count"])
            with self._lock:
                self._counts[""] = counts
        return counts

    def _send(self, body: Mapping[str, Any]) -> dict[str, Any]:
        response = self._cluster.search(self._index, {**body, "timeout": _SEARCH_TIMEOUT}, retry=NO_RETRY)
        if "hits" not in response:
            raise ClusterError(
                f"{self._cluster.connection.safe_url} returned no search response", "Check that it is the port of the cluster."
            )
        self._hooks.record_search_time(response.get("took", 0) / 1000)
        if response.get("timed_out"):  # partial hits are not a result
            headers = {"retry-after": str(RETRY_AFTER_S)}
            raise RequestRejected(503, "the search timed out", "Simplify it: a filter with many * is slow.", headers)
        return response
