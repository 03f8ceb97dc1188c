"""Parse the body of a search request: untrusted JSON -> values of checked type and size. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import orjson

from stair_es.errors import QueryError
from stair_es.web.search.conditions import Condition, parse_conditions

SearchMethod: TypeAlias = Literal["stair", "bag", "bm25"]
SEARCH_METHODS: tuple[SearchMethod, ...] = get_args(SearchMethod)

MAX_TEXT_CHARS = 2000
MAX_TOKEN_CHARS = 512
MAX_ID_CHARS = 2048
MAX_LIST_ITEMS = 64
MAX_VECTOR_TOKENS = 4096
MAX_K = 200
MAX_FACTOR = 1e6
DEFAULT_K = 24


@dataclass(frozen=True, kw_only=True)
class SearchParams:
    """The parameters of a search on the page."""

    text: str = ""
    """A query string: `beach -people +dog^2`."""
    similar_to: str = ""
    """Id of a document whose tokens are added to the query."""
    vector: Mapping[str, float] = field(default_factory=dict)
    """Tokens with weights, such as those of a dropped image."""
    factors: Mapping[str, float] = field(default_factory=dict)
    """Token -> factor of its weight; for a token that the query lacks, its weight."""
    require: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    filters: tuple[Condition, ...] = ()
    """Conditions on fields, all of which an image must meet."""
    filter: str = ""
    """A query string."""
    k: int = DEFAULT_K
    after: tuple[Any, ...] | None = None
    method: SearchMethod = "stair"

    @property
    def is_browsing(self) -> bool:
        """Whether there is nothing to rank by, so that the newest images are wanted."""
        return not (self.text.strip() or self.similar_to or self.vector or self.factors)


def parse_search_params(body: bytes) -> SearchParams:
    """Parse the body of a search request.

    Raises:
        QueryError: If it is not JSON, has an unknown field, or a value of another type or size.
    """
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:  # includes nesting that is too deep, NaN and unpaired surrogates
        raise QueryError(f"the body is not JSON: {error}", 'Send an object, such as {"text": "red car"}.') from None
    if not isinstance(fields, dict):
        raise QueryError("the body is not an object", 'Send an object, such as {"text": "red car"}.')
    unknown = sorted(fields.keys() - _PARSERS.keys())
    if unknown:
        raise QueryError(f"unknown field {unknown[0][:80]!r}", f"Available: {', '.join(_PARSERS)}.")
    return SearchParams(**{name: _PARSERS[name](name, value) for name, value in fields.items() if value is not None})


def _parse_text(name: str, value: object, max_chars: int = MAX_TEXT_CHARS) -> str:
    if not isinstance(value, str):
        raise QueryError(f"`{name}` is not a string")
    if len(value) > max_chars:
        raise QueryError(f"`{name}` has {len(value):,} characters; at most {max_chars:,} are allowed", "Shorten it.")
    return value


def _parse_id(name: str, value: object) -> str:
    return _parse_text(name, value, MAX_ID_CHARS)


def _parse_tokens(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise QueryError(f"`{name}` is not a list of words")
    if len(value) > MAX_LIST_ITEMS:
        raise QueryError(f"`{name}` has {len(value):,} words; at most {MAX_LIST_ITEMS} are allowed", "Use fewer words.")
    return tuple(dict.fromkeys(_parse_text(name, token, MAX_TOKEN_CHARS) for token in value))


def _parse_weights(name: str, value: object) -> Mapping[str, float]:
    weights = _parse_numbers(name, value)
    return {word: weight for word, weight in weights.items() if weight > 0}


def _parse_factors(name: str, value: object) -> Mapping[str, float]:
    factors = _parse_numbers(name, value)
    if any(factor > MAX_FACTOR for factor in factors.values()):
        raise QueryError(f"factors must be at most {MAX_FACTOR:g}", "Use a smaller one.")
    return factors


def _parse_numbers(name: str, value: object) -> dict[str, float]:
    if not isinstance(value, dict):
        raise QueryError(f"`{name}` is not an object that maps words to numbers")
    if len(value) > MAX_VECTOR_TOKENS:
        raise QueryError(f"`{name}` has {len(value):,} words; at most {MAX_VECTOR_TOKENS:,} are allowed", "Omit the lightest.")
    for word, number in value.items():
        _parse_text(name, word, MAX_TOKEN_CHARS)
        if isinstance(number, bool) or not isinstance(number, int | float) or not (math.isfinite(number) and number >= 0):
            raise QueryError(f"`{name}`: the value of {word[:80]!r} is not a number >= 0")
    return {word: float(number) for word, number in value.items()}


def _parse_k(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_K:
        raise QueryError(f"`{name}` is not an integer from 1 to {MAX_K}", "Use `after` for further pages.")
    return value


def _parse_cursor(name: str, value: object) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise QueryError(f"`{name}` is not a cursor", "Use `after` of the previous page.")
    return tuple(value)  # its values are checked where they are used


def _parse_method(name: str, value: object) -> SearchMethod:
    for method in SEARCH_METHODS:
        if value == method:
            return method
    raise QueryError(f"`{name}` is unknown", f"Available: {', '.join(SEARCH_METHODS)}.")


_PARSERS: Mapping[str, Callable[[str, object], Any]] = {
    "text": _parse_text,
    "similar_to": _parse_id,
    "vector": _parse_weights,
    "factors": _parse_factors,
    "require": _parse_tokens,
    "exclude": _parse_tokens,
    "filters": parse_conditions,
    "filter": _parse_text,
    "k": _parse_k,
    "after": _parse_cursor,
    "method": _parse_method,
}
