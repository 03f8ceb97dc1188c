"""Build the weighted query of search parameters, and the bodies of `_search` requests. Pure, except for the encoder."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stair_es.errors import QueryError
from stair_es.search.body import has_word, request_body
from stair_es.search.cursor import ORDER, checked
from stair_es.search.filter_fields import parse_filter
from stair_es.search.hits import Reason
from stair_es.search.inputs import combined, spelled
from stair_es.search.question import NOTHING, Question, Spelling
from stair_es.search.wish import Wish, parse
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from stair_es.model.encoder import Encoder
    from stair_es.policy import WordPolicy
    from stair_es.search.shapes import Shape
    from stair_es.web.asked import Asked

WORDS_FIELD = "top_tokens"
COLOURS_FIELD = "colours"
_SLASH = re.compile(r"(?<!\\)((?:\\\\)*)/")
"""An unescaped slash. It would begin a regular expression, which engines compile without a limit:
`/((a{1,100}){1,100}){1,100}/` blocks one of their few search threads until they are restarted."""
FACETS = 20
SHOWN = ["tokens", WORDS_FIELD, "uri", "caption", "width", "height", "fingerprint"]
"""The fields of a document that a hit requires."""
_AGGREGATIONS = {
    "words": {"terms": {"field": WORDS_FIELD, "size": FACETS}},
    "sources": {"terms": {"field": "source", "size": FACETS}},
    "indices": {"terms": {"field": "_index"}},
}
_COLOURS = {"colours": {"terms": {"field": COLOURS_FIELD, "size": FACETS}}}


@dataclass(frozen=True, kw_only=True)
class Word:
    """A token of a query."""

    word: str
    weight: float
    """Weight without the factor."""
    factor: float = 1.0
    added: bool = False
    """Whether it is in the query only because of its factor."""


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """A search query, with the weight and factor of each token."""

    words: tuple[Word, ...]
    """All tokens, heaviest first, including those with a factor of 0."""
    required: tuple[str, ...]
    """The words as typed."""
    excluded: tuple[str, ...]
    question: Question


@dataclass(frozen=True, kw_only=True)
class Wording:
    """Converts words and vectors to the tokens of an index: by its model, then by its token policy."""

    encoder: Encoder
    policy: WordPolicy | None = None

    def spelled(self, word: str) -> Spelling:
        """Resolve a word to tokens.

        Raises:
            QueryError: If it has none.
        """
        becomes: Mapping[str, str] = self.policy.becomes if self.policy else {}
        if word in becomes.values():  # created by the policy, so perhaps not in the vocabulary of the model
            return (word,)
        return tuple(dict.fromkeys(becomes.get(feature, feature) for feature in spelled(self.encoder, word)))

    def steered(self, vector: SparseVector) -> SparseVector:
        """Apply the token policy to a vector of the model."""
        return self.policy.asked(vector) if self.policy else vector


def weighed(asked: Asked, wording: Wording, encode: Callable[[str], SparseVector], stored: SparseVector | None = None) -> Weighed:
    """Build the weighted query of search parameters.

    Args:
        asked: The search parameters.
        wording: The token normalizer of the index.
        encode: Encodes a text.
        stored: The tokens of the document `asked.like`, to which the policy has been applied already.

    Raises:
        QueryError: If the query is empty, a word is not in the vocabulary, or parameters contradict each other.
    """
    parsed = parse(asked.text)
    by_caption = asked.method == "bm25"
    words = () if by_caption else _words(asked, parsed, wording, encode, stored)
    if by_caption and not parsed.text:
        raise QueryError("bm25 requires a text, and the query has none", "Enter some words, or use another method.")
    required = tuple(dict.fromkeys((*parsed.required, *asked.require)))
    excluded = tuple(dict.fromkeys((*parsed.excluded, *asked.exclude)))
    weights = {word.word: word.weight * word.factor for word in words if word.weight * word.factor > 0}
    if words and not weights:
        raise QueryError("all tokens of the query are muted", "Keep at least one of them.")
    if not all(map(math.isfinite, weights.values())):
        raise QueryError("a factor makes a weight too large", "Use a smaller one.")
    query = Question(
        vector=SparseVector.from_mapping(weights),
        caption=parsed.text if by_caption else "",
        required=[wording.spelled(word) for word in required],
        excluded=[wording.spelled(word) for word in excluded],
        filters=_filters(asked),
    )
    return Weighed(words=words, required=required, excluded=excluded, question=query)


def narrowed(asked: Asked) -> dict[str, Any] | None:
    """Build the query for all images that match the filters, if there is nothing else in the parameters; otherwise None.

    Raises:
        QueryError: If a filter can't be parsed.
    """
    ranks = asked.text.strip() or asked.like or asked.vector or asked.factors
    return None if ranks or asked.require or asked.exclude else {"bool": {"filter": _filters(asked)}}


def _words(
    asked: Asked, wish: Wish, wording: Wording, encode: Callable[[str], SparseVector], stored: SparseVector | None
) -> tuple[Word, ...]:
    vectors = [wording.steered(encode(wish.text))] if wish.text else []
    vectors += [] if stored is None else [stored]
    vectors += [wording.steered(SparseVector.from_mapping(asked.vector))] if asked.vector else []
    vector = combined((vector, 1.0) for vector in vectors) if vectors else NOTHING
    words = _boosted({word: Word(word=word, weight=weight) for word, weight in vector}, wish, wording)
    words = _factored(words, asked.factors, wording)
    if not words:
        what = "only excludes words" if wish.excluded or asked.exclude else "is empty"
        raise QueryError(f"the query {what}", 'Add what to search for: words, an image, or both ("beach -people").')
    return tuple(sorted(words.values(), key=lambda word: (-word.weight, word.word)))


def _boosted(words: Mapping[str, Word], wish: Wish, wording: Wording) -> dict[str, Word]:
    """Apply the typed boosts to the weights; `dog^0` sets the factor to 0."""
    boosted = dict(words)
    for written, boost in wish.boosts.items():
        for feature in wording.spelled(written):
            if feature not in boosted:
                raise QueryError(f"the query has no token {feature!r} to boost", f"Its tokens are: {', '.join(words)}.")
            word = boosted[feature]
            boosted[feature] = replace(word, weight=word.weight * boost) if boost > 0 else replace(word, factor=0.0)
    return boosted


def _factored(words: Mapping[str, Word], factors: Mapping[str, float], wording: Wording) -> dict[str, Word]:
    weighted = dict(words)
    for written, factor in factors.items():
        for feature in (written,) if written in words else wording.spelled(written):
            if feature in words and (feature == written or feature not in factors):
                weighted[feature] = replace(words[feature], factor=factor)
            elif feature not in words:
                weighted[feature] = Word(word=feature, weight=1.0, factor=factor, added=True)
    return weighted


def _filters(asked: Asked) -> list[dict[str, Any]]:
    filters: list[dict[str, Any]] = [{"term": {WORDS_FIELD: word}} for word in asked.words]
    filters += [{"term": {COLOURS_FIELD: colour}} for colour in asked.colours]
    text = asked.filter.strip()
    if text[:1] in ("{", "["):  # a clause can run scripts, and read other indices
        raise QueryError("the filter is not a query string", "Write it like width:>800 AND format:JPEG.")
    return [*filters, parse_filter(_SLASH.sub(r"\1\\/", text))] if text else filters


@dataclass(frozen=True, kw_only=True)
class Way:
    """The query type and limits for a cluster and an index."""

    shape: Shape
    max_clauses: int
    ordered: bool = True
    """Whether hits have a total order."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """The body of a `_search` request, and the tokens that are in it."""

    body: dict[str, Any]
    words: SparseVector
    """The tokens that are sent, with the weights as the engine reads them."""
    cut: SparseVector
    """The tokens that exceed the clause limit."""


def sent_of(question: Question, asked: Asked, way: Way) -> Sent:
    """Build the request for the best images.

    Args:
        question: The search query.
        asked: The parameters of the search.
        way: The query plan.

    Raises:
        QueryError: If the query is not supported.
    """
    if asked.method == "bag":
        return _bag(question, asked, way)
    request = request_body(question, way.shape, max_clauses=way.max_clauses, k=asked.k, after=asked.after, ordered=way.ordered)
    return Sent(body={**request.body, "_source": SHOWN}, words=request.sent, cut=request.cut)


def facets_of(query: Mapping[str, Any], *, colours: bool) -> dict[str, Any]:
    """Build the request for the facets of all images that match a query.

    Args:
        query: The query clause.
        colours: Whether the index has the field `colours`.
    """
    aggs = {**_AGGREGATIONS, **(_COLOURS if colours else {})}
    return {"size": 0, "track_total_hits": True, "query": dict(query), "aggs": aggs}


def counts() -> dict[str, Any]:
    """Build the request that counts images, and images with a caption."""
    captions = {"captions": {"filter": {"exists": {"field": "caption"}}}}
    return {"size": 0, "track_total_hits": True, "aggs": captions}


def bag_why(question: Question, source: Mapping[str, Any]) -> tuple[Reason, ...]:
    """Return the matching tokens, each with a contribution of 1."""
    has = source.get(WORDS_FIELD)
    heaviest = set(map(str, has)) if isinstance(has, list) else {str(has)}
    common = sorted(word for word in question.vector.features if word in heaviest)
    return tuple(Reason(feature=word, query_weight=1.0, image_weight=1.0, contribution=1.0) for word in common)


def _bag(question: Question, asked: Asked, way: Way) -> Sent:
    """Build a bag-of-words request, for comparison: each query token among the heaviest of an image adds 1.

    Weights are ignored, except that the heaviest tokens are kept if there are too many.
    """
    if asked.after is not None and not way.ordered:
        raise QueryError("pagination requires a total order", "Use a larger k instead.")
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
