"""Parse the body of a search request: untrusted JSON -> values of checked type and size. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import orjson

from stair_es.errors import QueryError

Method: TypeAlias = Literal["stair", "bag", "bm25"]
METHODS: tuple[Method, ...] = get_args(Method)

MAX_TEXT = 2000
MAX_WORD = 512
MAX_ID = 2048
MAX_LISTED = 64
MAX_WORDS = 4096
MAX_K = 200
MAX_FACTOR = 1e6
DEFAULT_K = 24


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The parameters of a search on the page."""

    text: str = ""
    """A query string: `beach -people +dog^2`."""
    like: str = ""
    """Id of a document whose tokens are added to the query."""
    vector: Mapping[str, float] = field(default_factory=dict)
    """Tokens with weights, such as those of a dropped image."""
    factors: Mapping[str, float] = field(default_factory=dict)
    """Token -> factor of its weight; for a token that the query lacks, its weight."""
    require: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    """Tokens that must be among the heaviest of an image."""
    colours: tuple[str, ...] = ()
    """Colours that an image must have."""
    filter: str = ""
    """A query string."""
    k: int = DEFAULT_K
    after: tuple[Any, ...] | None = None
    method: Method = "stair"


def asked_of(body: bytes) -> Asked:
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
    unknown = sorted(fields.keys() - _READERS.keys())
    if unknown:
        raise QueryError(f"unknown field {unknown[0][:80]!r}", f"Available: {', '.join(_READERS)}.")
    return Asked(**{name: _READERS[name](name, value) for name, value in fields.items() if value is not None})


def _text(name: str, value: object, longest: int = MAX_TEXT) -> str:
    if not isinstance(value, str):
        raise QueryError(f"`{name}` is not a string")
    if len(value) > longest:
        raise QueryError(f"`{name}` has {len(value):,} characters, {longest:,} are allowed", "Shorten it.")
    return value


def _id(name: str, value: object) -> str:
    return _text(name, value, MAX_ID)


def _words(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise QueryError(f"`{name}` is not a list of words")
    if len(value) > MAX_LISTED:
        raise QueryError(f"`{name}` has {len(value):,} words, {MAX_LISTED} are allowed", "Use fewer.")
    return tuple(dict.fromkeys(_text(name, word, MAX_WORD) for word in value))


def _weights(name: str, value: object) -> Mapping[str, float]:
    weights = _numbers(name, value)
    return {word: weight for word, weight in weights.items() if weight > 0}


def _factors(name: str, value: object) -> Mapping[str, float]:
    factors = _numbers(name, value)
    if any(factor > MAX_FACTOR for factor in factors.values()):
        raise QueryError(f"factors must be at most {MAX_FACTOR:g}", "Use a smaller one.")
    return factors


def _numbers(name: str, value: object) -> dict[str, float]:
    if not isinstance(value, dict):
        raise QueryError(f"`{name}` is not an object that maps words to numbers")
    if len(value) > MAX_WORDS:
        raise QueryError(f"`{name}` has {len(value):,} words, {MAX_WORDS:,} are allowed", "Omit the lightest.")
    for word, number in value.items():
        _text(name, word, MAX_WORD)
        if isinstance(number, bool) or not isinstance(number, int | float) or not (math.isfinite(number) and number >= 0):
            raise QueryError(f"`{name}`: the value of {word[:80]!r} is not a number >= 0")
    return {word: float(number) for word, number in value.items()}


def _k(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_K:
        raise QueryError(f"`{name}` is not an integer from 1 to {MAX_K}", "Use `after` for further pages.")
    return value


def _after(name: str, value: object) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise QueryError(f"`{name}` is not a cursor", "Use `after` of the previous page.")
    return tuple(value)  # its values are checked where they are used


def _method(name: str, value: object) -> Method:
    for method in METHODS:
        if value == method:
            return method
    raise QueryError(f"`{name}` is unknown", f"Available: {', '.join(METHODS)}.")


_READERS: Mapping[str, Callable[[str, object], Any]] = {
    "text": _text,
    "like": _id,
    "vector": _weights,
    "factors": _factors,
    "require": _words,
    "exclude": _words,
    "words": _words,
    "colours": _words,
    "filter": _text,
    "k": _k,
    "after": _after,
    "method": _method,
}
