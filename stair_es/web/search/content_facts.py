"""Cached facts about an index: counts, the spread of its fields, suggested tokens, values of a field. Thread safe."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from cachetools import TTLCache

from stair_es.errors import QueryError
from stair_es.model.vocabularies.stop_words import load_stop_words
from stair_es.search.dsl.mapped_fields import get_mapped_field
from stair_es.web.search.facet_scales import FieldProfile, build_profile_request, parse_profiles
from stair_es.web.search.facets import TOP_TOKENS_FIELD, is_piece, list_facet_fields, make_label, parse_bucket_value
from stair_es.web.search.query import build_counts_request
from stair_es.web.search.suggestions import build_suggestions_request, parse_suggestions

if TYPE_CHECKING:
    from stair_es.search.index_info import IndexInfo

_FactT = TypeVar("_FactT")
_COUNTS_MAX_AGE_S = 10.0
_PROFILES_MAX_AGE_S = 300.0
_SUGGESTIONS_MAX_AGE_S = 300.0
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
        self._counts: TTLCache[object, tuple[int, int]] = TTLCache(1, ttl=_COUNTS_MAX_AGE_S)
        self._profiles: TTLCache[object, dict[str, FieldProfile]] = TTLCache(2, ttl=_PROFILES_MAX_AGE_S)
        self._suggestions: TTLCache[object, list[dict[str, Any]]] = TTLCache(2, ttl=_SUGGESTIONS_MAX_AGE_S)

    def count_documents(self) -> tuple[int, int]:
        """Count images, and images with a caption."""
        return self._get_cached(self._counts, "", self._fetch_counts)

    def get_profiles(self, info: IndexInfo) -> dict[str, FieldProfile]:
        """Get the profiles of all fields that can have a facet, by name."""
        key = (*sorted(info.fields), *info.mapped_fields)
        return self._get_cached(self._profiles, key, partial(self._fetch_profiles, info))

    def list_suggestions(self, info: IndexInfo) -> list[dict[str, Any]]:
        """List tokens that are worth searching for."""
        if TOP_TOKENS_FIELD not in info.mapped_fields:
            return []
        key = (*sorted(info.fields), info.policy.digest if info.policy else "")
        return self._get_cached(self._suggestions, key, partial(self._fetch_suggestions, info))

    def list_values(self, info: IndexInfo, name: str, prefix: str) -> dict[str, Any]:
        """List the most frequent values of a field that begin with a prefix, ignoring case.

        Raises:
            QueryError: If the field doesn't exist or has no string values, or if the prefix is too long.
        """
        mapped = get_mapped_field(info.mapped_fields, name, "the address")
        if mapped.kind not in ("keyword", "text", "boolean"):
            raise QueryError(f"the field {name!r} is {mapped.type}, and only strings are completed")
        if len(prefix) > MAX_PREFIX_CHARS:
            raise QueryError(f"`prefix` has {len(prefix):,} characters; at most {MAX_PREFIX_CHARS} are allowed", "Shorten it.")
        hides = name == TOP_TOKENS_FIELD and not prefix.startswith("#")
        terms: dict[str, Any] = {"field": mapped.path, "size": _MAX_VALUES + (_SPARE_VALUES if hides else 0)}
        if prefix and mapped.kind != "boolean":
            terms["include"] = "".join(map(_match_letter, prefix)) + ".*"
        body = {"size": 0, "track_total_hits": False, "aggs": {"values": {"terms": terms}}}
        buckets = self._send(body)["aggregations"]["values"]["buckets"]
        values = [{"value": parse_bucket_value(mapped, bucket), "count": int(bucket["doc_count"])} for bucket in buckets]
        shown = [value for value in values if not (hides and is_hidden_token(info, value["value"]))]
        return {"values": shown[:_MAX_VALUES]}

    def _fetch_counts(self) -> tuple[int, int]:
        response = self._send(build_counts_request())
        return int(response["hits"]["total"]["value"]), int(response["aggregations"]["captions"]["doc_count"])

    def _fetch_profiles(self, info: IndexInfo) -> dict[str, FieldProfile]:
        fields = list_facet_fields(info.mapped_fields)
        return parse_profiles(fields, self._send(build_profile_request(fields))) if fields else {}

    def _fetch_suggestions(self, info: IndexInfo) -> list[dict[str, Any]]:
        muted = frozenset(info.policy.mute if info.policy else ())
        return parse_suggestions(self._send(build_suggestions_request()), muted, load_stop_words())

    def _get_cached(self, cache: TTLCache[object, _FactT], key: object, fetch: Callable[[], _FactT]) -> _FactT:
        with self._lock:
            fact = cache.get(key)
        if fact is None:
            fact = fetch()
            with self._lock:
                cache[key] = fact
        return fact


def list_field_facts(info: IndexInfo) -> list[dict[str, str]]:
    """List the fields that filters can use, for completion."""
    return [{"name": name, "type": mapped.type, "label": make_label(name)} for name, mapped in info.mapped_fields.items()]


def is_hidden_token(info: IndexInfo, token: str) -> bool:
    """Check whether a token is hidden by default: pieces of words, and tokens that the policy mutes."""
    return is_piece(token) or (info.policy is not None and token in info.policy.mute)


def _match_letter(letter: str) -> str:
    """Return a regular expression for a letter in upper and lower case."""
    cases = sorted({letter, letter.lower(), letter.upper()})
    if len(cases) > 1:
        return "(" + "|".join(cases) + ")"
    return _REGEXP_OPERATOR.sub(r"\\\1", letter)
