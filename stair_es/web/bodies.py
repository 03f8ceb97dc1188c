"""A weighed question -> the body of a `_search` request, for each method. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stair_es.errors import QueryError
from stair_es.search.body import has_word, request_body
from stair_es.search.cursor import ORDER, checked
from stair_es.search.explain import Reason
from stair_es.types import SparseVector
from stair_es.web.weighed import COLOURS_FIELD, WORDS_FIELD

if TYPE_CHECKING:
    from stair_es.search.question import Question
    from stair_es.search.shapes import Shape
    from stair_es.web.asked import Asked

FACETS = 20
SHOWN = ["tokens", WORDS_FIELD, "uri", "caption", "width", "height", "fingerprint"]
"""What a hit is made of."""
_AGGREGATIONS = {
    "words": {"terms": {"field": WORDS_FIELD, "size": FACETS}},
    "sources": {"terms": {"field": "source", "size": FACETS}},
    "indices": {"terms": {"field": "_index"}},
}


_COLOURS = {"colours": {"terms": {"field": COLOURS_FIELD, "size": FACETS}}}


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a cluster and an index want to be asked."""

    shape: Shape
    max_clauses: int
    ordered: bool = True
    """Whether hits can be put in a total order."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A body, and what became of the words."""

    body: dict[str, Any]
    words: SparseVector
    """With the weights as the engine reads them."""
    cut: SparseVector
    """Those that the cluster has no room for."""


def sent_of(question: Question, asked: Asked, way: Way) -> Sent:
    """The request for the best images.

    Raises:
        QueryError: The question can't be asked so.
    """
    if asked.method == "bag":
        return _bag(question, asked, way)
    made = request_body(question, way.shape, max_clauses=way.max_clauses, k=asked.k, after=asked.after, ordered=way.ordered)
    return Sent(body={**made.body, "_source": SHOWN}, words=made.sent, cut=made.cut)


def facets_of(query: Mapping[str, Any], *, colours: bool) -> dict[str, Any]:
    """Return the request for what all images have that match a query; `colours`: where the index has that field."""
    aggs = {**_AGGREGATIONS, **(_COLOURS if colours else {})}
    return {"size": 0, "track_total_hits": True, "query": dict(query), "aggs": aggs}


def counts() -> dict[str, Any]:
    """The request for how many images there are, and how many of them have a caption."""
    captions = {"captions": {"filter": {"exists": {"field": "caption"}}}}
    return {"size": 0, "track_total_hits": True, "aggs": captions}


def bag_why(question: Question, source: Mapping[str, Any]) -> tuple[Reason, ...]:
    """The words in common, each of which adds 1."""
    has = source.get(WORDS_FIELD)
    heaviest = set(map(str, has)) if isinstance(has, list) else {str(has)}
    common = sorted(word for word in question.vector.features if word in heaviest)
    return tuple(Reason(feature=word, query_weight=1.0, image_weight=1.0, contribution=1.0) for word in common)


def _bag(question: Question, asked: Asked, way: Way) -> Sent:
    """Bag of words, to compare with: a word of the query counts 1 where an image has it among its heaviest.

    The weights don't matter, but where there are too many words the heaviest stay.
    """
    if asked.after is not None and not way.ordered:
        raise QueryError("there are no pages without a total order", "Ask for a larger k instead.")
    room = max(1, way.max_clauses - question.clauses_beside_the_vector)
    words = question.vector.top(room)
    counted = [{"constant_score": {"filter": {"term": {WORDS_FIELD: word}}, "boost": 1.0}} for word, _ in words]
    around = {
        "must": [{"bool": {"should": counted}}],
        "filter": [*question.filters, *(has_word(word, way.shape) for word in question.required)],
        "must_not": [has_word(word, way.shape) for word in question.excluded],
    }
    body: dict[str, Any] = {"size": asked.k, "track_total_hits": False, "_source": SHOWN}
    body["query"] = {"bool": {name: clauses for name, clauses in around.items() if clauses}}
    body |= {"sort": ORDER} if way.ordered else {}
    body |= {"search_after": checked(asked.after)} if asked.after is not None else {}
    return Sent(body=body, words=words, cut=SparseVector(question.vector.features[room:], question.vector.weights[room:]))
