"""The search service behind the routes. Its methods block, and send only searches and metadata requests to the cluster."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from cachetools import LRUCache, TTLCache

from stair_es._version import __version__
from stair_es.cluster.connect import translated
from stair_es.errors import ClusterError, ClusterUnreachable, QueryError
from stair_es.inspection.stored import stored, stored_many
from stair_es.search.hits import Hit, hit_of
from stair_es.search.inputs import text_vector
from stair_es.search.question import Question
from stair_es.sources.decode import decode
from stair_es.web import answers
from stair_es.web.asked import Asked
from stair_es.web.faults import AGAIN_S, Refused, not_found
from stair_es.web.weighed import Weighed, bag_why, counts, facets_of, narrowed, sent_of, weighed

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from stair_es.cluster.connect import Connection
    from stair_es.inspection.stored import StoredImage
    from stair_es.types import SparseVector
    from stair_es.web.limits import Gate, Limits
    from stair_es.web.originals import Roots
    from stair_es.web.view import View, Views
    from stair_es.web.watch import Watch

_T = TypeVar("_T")
_THUMBNAIL_PX = 128
_LONGEST = "8s"
"""Timeout of one search in the cluster, which would otherwise continue after the client has disconnected."""


class Engine:
    """The search service of one index. Thread safe."""

    def __init__(
        self,
        client: OpenSearch,
        connection: Connection,
        index: str,
        *,
        views: Views,
        gate: Gate,
        limits: Limits,
        roots: Roots,
        watch: Watch,
    ) -> None:
        """Create the service.

        Args:
            client: The client of the cluster.
            connection: The connection of the client.
            index: An alias or index.
            views: The cached state of the index.
            gate: The limiter for the encoder.
            limits: The limits of the server.
            roots: Folders whose files may be shown.
            watch: The telemetry hooks.
        """
        self._client, self._connection, self._index = client, connection, index
        self._states, self._limiter, self._limits, self._roots = views, gate, limits, roots
        self._hooks = watch
        self._lock = threading.Lock()
        self._texts: LRUCache[tuple[str, str], SparseVector] = LRUCache(512)
        self._images: TTLCache[str, StoredImage] = TTLCache(128, ttl=5.0)
        self._counted: TTLCache[str, tuple[int, int]] = TTLCache(1, ttl=10.0)

    def about(self, title: str) -> dict[str, Any]:
        """Describe the index; `title` is shown instead of its name."""
        view = self._states.now()
        documents, captions = self._counts()
        return {
            "title": title or self._index,
            "index": self._index,
            "model": view.known.model,
            "version": __version__,
            "documents": documents,
            "captions": captions > 0,
            "originals": bool(self._roots),
            "max_upload_bytes": self._limits.upload_bytes,
            "policy": view.known.policy.label if view.known.policy else None,
        }

    def search(self, asked: Asked) -> dict[str, Any]:
        """Search for the best images."""
        return self._of_the_moment(lambda view: self._search(view, asked))

    def facets(self, asked: Asked) -> dict[str, Any]:
        """Count the facets of all images that match; without a query, of those that match the filters."""
        return self._of_the_moment(lambda view: self._facets(view, asked))

    def neighbours(self, id_: str, k: int) -> dict[str, Any]:
        """Find the `k` images that are most similar to an image."""
        return self._of_the_moment(lambda view: self._neighbours(view, id_, k))

    def image(self, id_: str) -> dict[str, Any]:
        """Get one image with all that is shown of it."""
        view = self._states.now()
        image = stored_many(self._client, self._connection, self._index, [id_]).get(id_)
        if image is None:
            raise not_found(id_)
        original = answers.original_url(id_) if self._roots.hold(image.uri) else None
        return answers.image_json(image, self._thumbnail(view, id_, image.source), original)

    def seen(self, data: bytes) -> dict[str, Any]:
        """Encode an uploaded image, without storing it."""
        view = self._states.now()
        with self._limiter():
            decoded = decode(data, view.encoder.image_spec, self._limits.decode, _THUMBNAIL_PX)
            with self._hooks.encoding("image"):
                [vector] = view.encoder.encode_images(decoded.pixels_HWC[None])
        return {
            "words": answers.pairs(view.wording.steered(vector)),
            "thumbnail": decoded.thumbnail,
            "width": decoded.width,
            "height": decoded.height,
        }

    def _of_the_moment(self, ask: Callable[[View], tuple[_T, set[str]]]) -> _T:
        """Run a request; run it again if the alias points to another index now, or its token policy has changed."""
        view = self._states.now()
        try:
            response, indices = ask(view)
            if indices and indices <= set(view.known.fields):
                return response
            newer = self._states.after(view)  # no hits: the tokens may be those of another model
            if newer is view:
                return response
        except ClusterUnreachable:
            raise
        except (QueryError, ClusterError):
            newer = self._states.after(view)
            if newer is view:
                raise
        return ask(newer)[0]

    def _search(self, view: View, asked: Asked) -> tuple[dict[str, Any], set[str]]:
        weighted = self._weighed(view, asked)
        request = sent_of(weighted.question, asked, view.way)
        response = self._send(request.body)
        found = response["hits"]["hits"]
        page = {
            **answers.query_json(weighted),
            "hits": self._hits(view, weighted, asked, [hit_of(hit, request.words) for hit in found]),
            "after": found[-1].get("sort") if len(found) == asked.k else None,
            "took_ms": int(response["took"]),
            "cut": list(request.cut.features),
            "method": asked.method,
        }
        return page, {hit["_index"] for hit in found}

    def _facets(self, view: View, asked: Asked) -> tuple[dict[str, Any], set[str]]:
        query = narrowed(asked) or sent_of(self._weighed(view, asked).question, asked, view.way).body["query"]
        answer = self._send(facets_of(query, colours=view.colours))
        return answers.facets_json(answer), {str(bucket["key"]) for bucket in answer["aggregations"]["indices"]["buckets"]}

    def _neighbours(self, view: View, id_: str, k: int) -> tuple[dict[str, Any], set[str]]:
        image = self._stored(view, id_)
        if not len(image.vector):
            return {"hits": []}, {image.index}
        params = Asked(k=k)
        query = Question(vector=image.vector, filters=[{"bool": {"must_not": [{"ids": {"values": [image.id]}}]}}])
        weighted = Weighed(words=(), required=(), excluded=(), question=query)
        request = sent_of(query, params, view.way)
        found = [hit_of(hit, request.words) for hit in self._send(request.body)["hits"]["hits"]]
        return {"hits": self._hits(view, weighted, params, found)}, {image.index, *(hit.index for hit in found)}

    def _weighed(self, view: View, asked: Asked) -> Weighed:
        image = self._stored(view, asked.like) if asked.like and asked.method != "bm25" else None
        weighted = weighed(asked, view.wording, lambda text: self._encoded(view, text), image.vector if image else None)
        if asked.method == "bm25":
            view.known.check_caption(weighted.question)
            if not self._counts()[1]:
                raise QueryError("bm25 searches captions, and no image of this index has one", "Use another method.")
        return weighted

    def _hits(self, view: View, made: Weighed, asked: Asked, found: Sequence[Hit]) -> list[dict[str, Any]]:
        if not all(math.isfinite(hit.score) for hit in found):
            raise QueryError("scores overflow float32, so the ranking is undefined", "Use smaller weights.")
        return [
            answers.hit_json(
                hit,
                bag_why(made.question, hit.source) if asked.method == "bag" else hit.why,
                hit.score if asked.method == "bm25" else 0.0,  # otherwise the score is that of its tokens, apart from rounding
                self._thumbnail(view, hit.id, hit.source),
            )
            for hit in found
        ]

    def _thumbnail(self, view: View, id_: str, source: Mapping[str, Any]) -> str | None:
        return answers.thumbnail_url(id_, source.get("fingerprint")) if view.thumbnails or self._roots else None

    def _encoded(self, view: View, text: str) -> SparseVector:
        key = (view.encoder.model_id, text)
        with self._lock:
            vector = self._texts.get(key)
        if vector is None:
            with self._limiter(), self._hooks.encoding("text"):
                vector = text_vector(view.encoder, text)
            with self._lock:
                self._texts[key] = vector
        return vector

    def _stored(self, view: View, reference: str) -> StoredImage:
        """Get a stored image from a short-lived cache: moving a slider requests the same image many times."""
        with self._lock:
            image = self._images.get(reference)
        if image is None or image.index not in view.known.fields:
            image = stored(self._client, self._connection, self._index, reference)
            if image is None:
                raise not_found(reference)
            with self._lock:
                self._images[reference] = image
        return image

    def _counts(self) -> tuple[int, int]:
        """Count images, and images with a caption."""
        with self._lock:
            counted = self._counted.get("")
        if counted is None:
            response = self._send(counts())
            counted = int(response["hits"]["total"]["value"]), int(response["aggregations"]["captions"]["doc_count"])
            with self._lock:
                self._counted[""] = counted
        return counted

    def _send(self, body: Mapping[str, Any]) -> dict[str, Any]:
        with translated(self._connection):
            response: dict[str, Any] = self._client.search(
                index=self._index, body={**body, "timeout": _LONGEST}, params={"allow_partial_search_results": "false"}
            )
        if "hits" not in response:
            raise ClusterError(
                f"{self._connection.safe_url} returned no search response", "Check that it is the port of the cluster."
            )
        self._hooks.took(response.get("took", 0) / 1000)
        if response.get("timed_out"):  # partial hits are not a result
            headers = {"retry-after": str(AGAIN_S)}
            raise Refused(503, "the search timed out", "Simplify it: a filter with many * is slow.", headers)
        return response
