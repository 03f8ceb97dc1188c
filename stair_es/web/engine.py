"""Between the page and the cluster: each method answers one route. They block; the only requests are searches and looks."""

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
from stair_es.web.bodies import bag_why, counts, facets_of, sent_of
from stair_es.web.faults import AGAIN_S, Refused
from stair_es.web.weighed import Weighed, narrowed, weighed

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from stair_es.cluster.connect import Connection
    from stair_es.inspection.stored import StoredImage
    from stair_es.types import SparseVector
    from stair_es.web.gate import Gate
    from stair_es.web.limits import Limits
    from stair_es.web.originals import Roots
    from stair_es.web.view import View, Views
    from stair_es.web.watch import Watch

_T = TypeVar("_T")
_THUMBNAIL_PX = 128
_LONGEST = "8s"
"""How long the cluster works on one search: what it goes on with after we have hung up helps nobody."""


class Engine:
    """One index, asked for one page."""

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
        """Nothing is asked yet.

        Args:
            client: Of the cluster.
            connection: Of the client.
            index: An alias or index.
            views: Of it.
            gate: Around the encoder.
            limits: What is refused.
            roots: Folders whose files may be shown.
            watch: Is told.
        """
        self._client, self._connection, self._index = client, connection, index
        self._views, self._gate, self._limits, self._roots = views, gate, limits, roots
        self._watch = watch
        self._lock = threading.Lock()
        self._texts: LRUCache[tuple[str, str], SparseVector] = LRUCache(512)
        self._images: TTLCache[str, StoredImage] = TTLCache(128, ttl=5.0)
        self._counted: TTLCache[str, tuple[int, int]] = TTLCache(1, ttl=10.0)

    def about(self, title: str) -> dict[str, Any]:
        """What the page is of."""
        view = self._views.now()
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
        """The best images."""
        return self._of_the_moment(lambda view: self._search(view, asked))

    def facets(self, asked: Asked) -> dict[str, Any]:
        """What all images have that match; without a question, those that the filters leave."""
        return self._of_the_moment(lambda view: self._facets(view, asked))

    def neighbours(self, id_: str, k: int) -> dict[str, Any]:
        """The images that are most alike."""
        return self._of_the_moment(lambda view: self._neighbours(view, id_, k))

    def image(self, id_: str) -> dict[str, Any]:
        """One image."""
        view = self._views.now()
        image = stored_many(self._client, self._connection, self._index, [id_]).get(id_)
        if image is None:
            raise not_found(id_)
        original = answers.original_url(id_) if self._roots.hold(image.uri) else None
        return answers.image_json(image, self._thumbnail(view, id_, image.source), original)

    def seen(self, data: bytes) -> dict[str, Any]:
        """The words of an image that isn't in the index, and stays out of it."""
        view = self._views.now()
        with self._gate():
            decoded = decode(data, view.encoder.image_spec, self._limits.decode, _THUMBNAIL_PX)
            with self._watch.encoding("image"):
                [vector] = view.encoder.encode_images(decoded.pixels_HWC[None])
        return {
            "words": answers.pairs(view.wording.steered(vector)),
            "thumbnail": decoded.thumbnail,
            "width": decoded.width,
            "height": decoded.height,
        }

    def _of_the_moment(self, ask: Callable[[View], tuple[_T, set[str]]]) -> _T:
        """The answer; asked again if the name has come to stand for another index, or that has another policy."""
        view = self._views.now()
        try:
            answer, indices = ask(view)
            if indices and indices <= set(view.known.fields):
                return answer
            newer = self._views.after(view)  # nothing found: the words may be those of another model
            if newer is view:
                return answer
        except ClusterUnreachable:
            raise
        except (QueryError, ClusterError):
            newer = self._views.after(view)
            if newer is view:
                raise
        return ask(newer)[0]

    def _search(self, view: View, asked: Asked) -> tuple[dict[str, Any], set[str]]:
        made = self._weighed(view, asked)
        sent = sent_of(made.question, asked, view.way)
        answer = self._send(sent.body)
        found = answer["hits"]["hits"]
        page = {
            **answers.query_json(made),
            "hits": self._hits(view, made, asked, [hit_of(hit, sent.words) for hit in found]),
            "after": found[-1].get("sort") if len(found) == asked.k else None,
            "took_ms": int(answer["took"]),
            "cut": list(sent.cut.features),
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
        asked = Asked(k=k)
        question = Question(vector=image.vector, filters=[{"bool": {"must_not": [{"ids": {"values": [image.id]}}]}}])
        made = Weighed(words=(), required=(), excluded=(), question=question)
        sent = sent_of(question, asked, view.way)
        found = [hit_of(hit, sent.words) for hit in self._send(sent.body)["hits"]["hits"]]
        return {"hits": self._hits(view, made, asked, found)}, {image.index, *(hit.index for hit in found)}

    def _weighed(self, view: View, asked: Asked) -> Weighed:
        image = self._stored(view, asked.like) if asked.like and asked.method != "bm25" else None
        made = weighed(asked, view.wording, lambda text: self._encoded(view, text), image.vector if image else None)
        if asked.method == "bm25":
            view.known.check_caption(made.question)
            if not self._counts()[1]:
                raise QueryError("bm25 compares captions, and no image of this index has one", "Take another method.")
        return made

    def _hits(self, view: View, made: Weighed, asked: Asked, found: Sequence[Hit]) -> list[dict[str, Any]]:
        if not all(math.isfinite(hit.score) for hit in found):
            raise QueryError("scores leave float32, in which the engine counts: they have no order", "Take smaller weights.")
        return [
            answers.hit_json(
                hit,
                bag_why(made.question, hit.source) if asked.method == "bag" else hit.why,
                hit.score if asked.method == "bm25" else 0.0,  # else the score is its words': the engine only rounds
                self._thumbnail(view, hit.id, hit.source),
            )
            for hit in found
        ]

    def _thumbnail(self, view: View, id_: str, source: Mapping[str, Any]) -> str | None:
        return answers.thumbnail_url(id_, source.get("fingerprint")) if view.thumbnails or self._roots else None

    def _encoded(self, view: View, text: str) -> SparseVector:
        key = (view.encoder.model_id, text)
        with self._lock:
            known = self._texts.get(key)
        if known is None:
            with self._gate(), self._watch.encoding("text"):
                known = text_vector(view.encoder, text)
            with self._lock:
                self._texts[key] = known
        return known

    def _stored(self, view: View, reference: str) -> StoredImage:
        """A slider asks for the same image again and again: the last ones are kept for a moment."""
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
        """How many images there are, and how many of them have a caption."""
        with self._lock:
            known = self._counted.get("")
        if known is None:
            answer = self._send(counts())
            known = int(answer["hits"]["total"]["value"]), int(answer["aggregations"]["captions"]["doc_count"])
            with self._lock:
                self._counted[""] = known
        return known

    def _send(self, body: Mapping[str, Any]) -> dict[str, Any]:
        with translated(self._connection):
            answer: dict[str, Any] = self._client.search(
                index=self._index, body={**body, "timeout": _LONGEST}, params={"allow_partial_search_results": "false"}
            )
        if "hits" not in answer:
            raise ClusterError(f"{self._connection.safe_url} answers a search with something else", "Is it the cluster's port?")
        self._watch.took(answer.get("took", 0) / 1000)
        if answer.get("timed_out"):  # what it has found so far isn't the answer
            again = {"retry-after": str(AGAIN_S)}
            raise Refused(503, "the search takes too long", "Ask for less: a filter with many * is slow.", again)
        return answer


def not_found(id_: str) -> Refused:
    """The answer where there is no such image."""
    return Refused(404, f"there is no image {id_[:200]!r} in this index", "It may have been taken out since.")
