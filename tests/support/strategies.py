"""Hypothesis strategies: words, texts, weights, vectors, queries and bytes that tend to break things.

The cases are the same in every run. `--hypothesis-profile=random` draws others, and many.
"""

from __future__ import annotations

from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from stair_es.types import SparseVector

T = TypeVar("T")


def mix_rarely(usual: SearchStrategy[T], rare: SearchStrategy[T]) -> SearchStrategy[T]:
    """Return a strategy that is the rare one in a tenth of the cases: an alternative by `|` has each part as often."""
    return st.integers(0, 9).flatmap(lambda number: rare if number == 9 else usual)


CHARACTERS = (
    "abcXYZ019..%%##%2E %25 ."
    '"\\/{}[]():*?~^+-!&|<>='
    "\x00\x01\x07\x1b\x7f\t\n\r\u2028\x85"
    "e\u0301o\u0308a\u030a\u0336אבגשלום\u202e\u200f"
    "🐕🏳️\u200d🌈𝔘𐎀\U0010fffd犬猫カナひらが"
    "\ufeff\u200b\u00ad\uffff\ufffe\ufdd0ẞßİıſK"
)
"""Characters that mean something to a query, a file or an engine, or that change with case and form."""
NAMES = (
    *("", ".", "..", "%", "%2E", "%25", "##", "##ing", " ", "_id", "tokens", "a.b", "a%2Eb", "*", "null", "é", "e\u0301"),
    *("NaN", "-1", "1e5", "A", "a", "\x00", "it's", "x" * 300, "犬" * 2000, "a b"),
)
TINY_WEIGHTS = (5e-324, 1e-45, 1e-38, 2.0**-101)
BAD_WEIGHTS = (float("nan"), float("inf"), -1.0, 0.0, -0.0, 1e39, 2.0**101, 1e308)

TOKENS = st.sampled_from(NAMES) | st.text(st.sampled_from(CHARACTERS), max_size=20) | st.text(max_size=20)
BROKEN_TEXTS = st.tuples(TOKENS, st.sampled_from("\ud800\udfff\udc80"), TOKENS).map("".join)
"""Texts with an unpaired surrogate."""
WEIGHTS = st.floats(-3, 3).map(lambda exponent: 10.0**exponent)
ENGINE_WEIGHTS = st.floats(2.0**-100, 2.0**100) | st.integers(-100, 100).map(lambda exponent: 2.0**exponent) | WEIGHTS
"""Weights that every query type accepts."""
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TOKENS,
    lambda values: st.lists(values, max_size=4) | st.dictionaries(TOKENS, values, max_size=4),
    max_leaves=12,
)

_SIGNS = st.sampled_from(("", "", "", "-", "+", "--"))
_WORDS = mix_rarely(st.sampled_from(("dog", "beach", "cat", "the", "macaw", "##ing")), TOKENS | BROKEN_TEXTS)
_BOOSTS = mix_rarely(
    st.sampled_from(("", "", "", "", "", "^2", "^0.5", "^0")),
    st.sampled_from(("^", "^-1", "^1e999")) | TOKENS.map("^{}".format),
)
QUERY_STRINGS = st.builds(
    str.join,
    st.sampled_from((" ", "\t", "  ")),
    st.lists(st.tuples(_SIGNS, _WORDS, _BOOSTS).map("".join), max_size=6),
)
_FILTER_PARTS = ("{", "}", "[", "]", '"', ":", ",", '{"term":', '{"bool":{"filter":[', "NaN", "1e999", "null", "a", "width:>8")
FILTER_TEXTS = st.lists(st.sampled_from(_FILTER_PARTS) | TOKENS, max_size=12).map("".join)


def limit_examples(share: float) -> settings:
    """Return settings with a share of the examples that the profile asks for, for properties that take long."""
    return settings(max_examples=max(1, round(settings().max_examples * share)))


def build_vectors(
    tokens: SearchStrategy[str] = TOKENS,
    weights: SearchStrategy[float] = WEIGHTS,
    *,
    min_size: int = 1,
    max_size: int = 30,
) -> SearchStrategy[SparseVector]:
    """Return a strategy for vectors."""
    return st.dictionaries(tokens, weights, min_size=min_size, max_size=max_size).map(SparseVector.from_mapping)


_DATES = st.sampled_from(("2024", "2024-02-30", "9999-12-31", "0000-01-01")) | st.dates().map(str)
_FRACTIONS = st.integers(-999, 999).map(lambda number: number / 4)
_NUMBERS = st.sampled_from((0, 640, -1, 2**31, 2**63, 1e300)) | st.integers(-99, 99) | _FRACTIONS | st.floats()


@st.composite
def draw_condition(draw: st.DrawFn, fields: SearchStrategy[str]) -> dict[str, Any]:
    """Draw a condition on a field, as the page sends it."""
    values = draw(st.sampled_from((TOKENS, _NUMBERS, _NUMBERS.map(str), _DATES, st.booleans())))
    lists = st.lists(values, min_size=1, max_size=3)
    bounds = st.dictionaries(st.sampled_from(("gte", "gt", "lte", "lt")), values, max_size=2)
    return {"field": draw(fields), **draw(st.fixed_dictionaries({"any": lists}) | st.fixed_dictionaries({"all": lists}) | bounds)}


@st.composite
def draw_damaged_bytes(draw: st.DrawFn, files: SearchStrategy[bytes]) -> bytes:
    """Draw a file that is cut, or of which some bytes are others, most of them at its beginning."""
    data = bytearray(draw(files))
    positions = st.integers(0, min(63, len(data) - 1)) | st.integers(0, len(data) - 1)
    for position, value in draw(st.lists(st.tuples(positions, st.integers(0, 255)), max_size=6)):
        data[position] = value
    return bytes(data[: draw(st.just(len(data)) | st.integers(1, len(data)))])
