"""Suggest tokens to search for: readable, frequent enough, specific and heavy. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Set
from typing import Any

from stair_es.inspection.stored_document import parse_token_vector
from stair_es.model.vocabularies.stop_words import is_content_token
from stair_es.search.dsl.pagination import build_random_query
from stair_es.web.search.facets import TOP_TOKENS_FIELD

MAX_SUGGESTIONS = 24
_SAMPLE_DOCUMENTS = 1000
_CANDIDATES = 1000
_MIN_COUNT = 2
_MIN_SHARE = 0.002
_MAX_SHARE = 0.2
"""A token with more images than this is not specific."""
_MAX_OVERLAP = 0.5
"""A token whose images are mostly those of a heavier suggestion, as with `cat` and `cats`, adds nothing."""
_LEADING_TOKENS, _MIN_LEADING_SHARE = 3, 0.5
"""A token must be among this many heaviest in this share of its images. Otherwise it is background, such as `sky`."""
_MIN_RELATIVE_SCORE = 0.45
"""A token must have this share of the best score: a few good suggestions are better than many."""
_MIN_LETTERS = 3


def build_suggestions_request() -> dict[str, Any]:
    """Build the request for a sample of documents with their tokens, and for the number of images with each token."""
    return {
        "size": _SAMPLE_DOCUMENTS,
        "track_total_hits": True,
        "query": build_random_query({"exists": {"field": TOP_TOKENS_FIELD}}),
        "_source": ["tokens", TOP_TOKENS_FIELD],
        "aggs": {"tokens": {"terms": {"field": TOP_TOKENS_FIELD, "size": _CANDIDATES}}},
    }


def parse_suggestions(response: Mapping[str, Any], muted: frozenset[str], stop_words: frozenset[str]) -> list[dict[str, Any]]:
    """Parse the response of `build_suggestions_request` to suggestions, best first."""
    total = int(response["hits"]["total"]["value"])
    buckets = (response.get("aggregations") or {}).get("tokens", {}).get("buckets", ())
    counts = {str(bucket["key"]): int(bucket["doc_count"]) for bucket in buckets}
    smallest, largest = max(_MIN_COUNT, _MIN_SHARE * total), max(_MIN_COUNT, _MAX_SHARE * total)
    images: dict[str, dict[int, tuple[float, bool]]] = {}
    for place, hit in enumerate(response["hits"]["hits"]):
        for token, weight, leads in _list_weights(hit.get("_source") or {}):
            images.setdefault(token, {})[place] = weight, leads
    scores = {
        token: _compute_score(images[token].values())
        for token, count in counts.items()
        if smallest <= count <= largest and token in images and token not in muted and is_readable(token, stop_words)
    }
    lowest = _MIN_RELATIVE_SCORE * max(scores.values(), default=0.0)
    chosen: list[str] = []
    for token in sorted(scores, key=lambda token: (-scores[token], token)):
        if scores[token] <= lowest or len(chosen) == MAX_SUGGESTIONS:
            break
        if not any(_compute_overlap(images[token].keys(), images[other].keys()) > _MAX_OVERLAP for other in chosen):
            chosen.append(token)
    return [{"token": token, "count": counts[token]} for token in chosen]


def is_readable(token: str, stop_words: frozenset[str]) -> bool:
    """Check whether a token is a meaningful word: letters only, and no stop word."""
    long_enough = len(token) >= _MIN_LETTERS or not token.isascii()  # a word of one ideograph is a word
    return token.isalpha() and long_enough and is_content_token(token, stop_words)


def _list_weights(source: Mapping[str, Any]) -> Iterator[tuple[str, float, bool]]:
    """Yield the heaviest tokens of a document with their weight, and whether they lead."""
    tokens, top = source.get("tokens"), source.get(TOP_TOKENS_FIELD)
    if not isinstance(top, list):
        return
    heaviest = set(map(str, top))
    for place, (token, weight) in enumerate(parse_token_vector(tokens)):
        if token in heaviest:
            yield token, weight, place < _LEADING_TOKENS


def _compute_score(images: Collection[tuple[float, bool]]) -> float:
    """Return the mean weight of a token in its images, less for few images; 0 if it rarely leads."""
    leading = sum(leads for _, leads in images)
    if leading < _MIN_LEADING_SHARE * len(images):
        return 0.0
    return sum(weight for weight, _ in images) / (len(images) + 1)


def _compute_overlap(images: Set[int], others: Set[int]) -> float:
    """Return the share of common images in the smaller of two sets."""
    return len(images & others) / min(len(images), len(others))
