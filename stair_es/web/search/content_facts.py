"""Cached facts about an index: counts, the spread of its fields, suggested tokens, values of a field. Thread safe."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from typing import Any, TypeVar

from cachetools import TLRUCache

from stair_es.cluster.documents.document import parse_token_vector
from stair_es.errors import QueryError
from stair_es.model.vocabularies.readable import is_piece
from stair_es.model.vocabularies.stop_words import is_content_token, load_stop_words
from stair_es.search.dsl.mapped_fields import get_mapped_field
from stair_es.search.dsl.pagination import build_random_query
from stair_es.search.index_info import IndexInfo
from stair_es.web.search.facet_scales import FieldProfile, build_profile_request, parse_profiles
from stair_es.web.search.facets import list_facet_fields, make_label, parse_bucket_value
from stair_es.web.search.params import TOP_TOKENS_FIELD

_FactT = TypeVar("_FactT")
_MAX_AGES_S = {"counts": 10.0, "profiles": 300.0, "suggestions": 300.0}
_MAX_FACTS = 5
"""Those of two states of the index: requests are still answered for the former one when it changes."""
MAX_PREFIX_CHARS = 100
_MAX_VALUES = 10
_SPARE_VALUES = 30
"""Number of tokens that may be hidden among the values of `top_tokens`."""
_REGEXP_OPERATOR = re.compile(r'([.?+*|{}\[\]()"\\#@&<>~^$-])')


class ContentFacts:
    """Cached facts about the index of a service."""

    def __init__(self, send: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
        """Create the empty caches; `send` sends the body of a `_search` request."""
        self._send = send
        self._lock = threading.Lock()
        self._facts: TLRUCache[tuple[str, ...], Any] = TLRUCache(
            _MAX_FACTS, ttu=lambda key, _, now_s: now_s + _MAX_AGES_S[key[0]]
        )

    def count_documents(self) -> int:
        """Count images."""

        def fetch() -> int:
            return int(self._send({"size": 0, "track_total_hits": True})["hits"]["total"]["value"])

        return self._get_cached(("counts",), fetch)

    def get_profiles(self, info: IndexInfo) -> dict[str, FieldProfile]:
        """Get the profiles of all fields that can have a facet, by name."""
        fields = list_facet_fields(info.mapped_fields)
        if not fields:
            return {}
        key = ("profiles", *sorted(info.fields), *info.mapped_fields)
        return self._get_cached(key, lambda: parse_profiles(fields, self._send(build_profile_request(fields))))

    def list_suggestions(self, info: IndexInfo) -> list[dict[str, Any]]:
        """List tokens that are worth searching for."""
        if TOP_TOKENS_FIELD not in info.mapped_fields:
            return []
        muted, digest = (frozenset(info.policy.mute), info.policy.digest) if info.policy else (frozenset(), "")
        key = ("suggestions", *sorted(info.fields), digest)
        return self._get_cached(key, lambda: parse_suggestions(self._send(build_suggestions_request()), muted, load_stop_words()))

    def list_values(self, info: IndexInfo, name: str, prefix: str) -> dict[str, Any]:
        """List the most frequent values of a field that begin with a prefix, ignoring case."""
        mapped = get_mapped_field(info.mapped_fields, name, "the address")
        if mapped.kind not in ("keyword", "text", "boolean"):
            raise QueryError(f"the field {name!r} is {mapped.type}, and only strings are completed", code="field-not-completable")
        if len(prefix) > MAX_PREFIX_CHARS:
            raise QueryError(
                f"`prefix` has {len(prefix):,} characters; at most {MAX_PREFIX_CHARS} are allowed",
                "Shorten it.",
                code="prefix-too-long",
            )
        hides = name == TOP_TOKENS_FIELD and not prefix.startswith("#")
        terms: dict[str, Any] = {"field": mapped.path, "size": _MAX_VALUES + (_SPARE_VALUES if hides else 0)}
        if prefix and mapped.kind != "boolean":
            terms["include"] = "".join(map(_match_letter, prefix)) + ".*"
        body = {"size": 0, "track_total_hits": False, "aggs": {"values": {"terms": terms}}}
        buckets = self._send(body)["aggregations"]["values"]["buckets"]
        values = [{"value": parse_bucket_value(mapped, bucket), "count": int(bucket["doc_count"])} for bucket in buckets]
        shown = [value for value in values if not (hides and is_hidden_token(info, value["value"]))]
        return {"values": shown[:_MAX_VALUES]}

    def _get_cached(self, key: tuple[str, ...], fetch: Callable[[], _FactT]) -> _FactT:
        with self._lock:
            fact: _FactT | None = self._facts.get(key)
        if fact is None:
            fact = fetch()
            with self._lock:
                self._facts[key] = fact
        return fact


def list_field_facts(info: IndexInfo) -> list[dict[str, str]]:
    """List the fields that filters can use, for completion."""
    return [{"name": name, "type": mapped.type, "label": make_label(name)} for name, mapped in info.mapped_fields.items()]


def is_hidden_token(info: IndexInfo, token: str) -> bool:
    """Check whether a token is hidden by default: pieces of words, and tokens that the policy mutes."""
    return is_piece(token) or (info.policy is not None and token in info.policy.mute)


def _match_letter(letter: str) -> str:
    cases = sorted({letter, letter.lower(), letter.upper()})
    if len(cases) > 1:
        return "(" + "|".join(cases) + ")"
    return _REGEXP_OPERATOR.sub(r"\\\1", letter)


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
    """Parse the response of `build_suggestions_request` to tokens that are readable, frequent enough, specific and heavy."""
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
    return len(images & others) / min(len(images), len(others))
