"""Query strings, and the combination of vectors."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.errors import expect_error
from support.strategies import QUERY_STRINGS, WEIGHTS, build_vectors

from stair_es.errors import QueryError
from stair_es.search.dsl.query_parser import ParsedQuery, parse_query
from stair_es.search.query_encoder import combine_vectors
from stair_es.types import SparseVector

_WORDS = st.tuples(
    st.characters(categories=["L"]), st.text(st.characters(categories=["L", "M", "N", "P", "S"], exclude_characters="^"))
).map("".join)
_PARTS = st.tuples(st.sampled_from(("-", "\u2212", "\u2013")), _WORDS, st.none()) | st.tuples(
    st.sampled_from(("", "+")), _WORDS, st.none() | st.floats(0, allow_infinity=False)
)
"""Sign, word and boost."""


@pytest.mark.parametrize(
    ("query_string", "parsed"),
    [
        ("beach -people", ParsedQuery(text="beach", excluded=("people",))),
        ("+dog on a beach", ParsedQuery(text="dog on a beach", required=("dog",))),
        ("dog^2 cat^0.5", ParsedQuery(text="dog cat", boosts={"dog": 2.0, "cat": 0.5})),
        ("+dog^2 -cat", ParsedQuery(text="dog", required=("dog",), excluded=("cat",), boosts={"dog": 2.0})),
        ("f-16 at -5 degrees - cold", ParsedQuery(text="f-16 at -5 degrees - cold")),
        ("-##ing ^_^ x^^2", ParsedQuery(text="^_^ x^", excluded=("##ing",), boosts={"x^": 2.0})),
        ("beach \u2013people \u2212dog", ParsedQuery(text="beach", excluded=("people", "dog"))),
        ("beach \u2013 people", ParsedQuery(text="beach \u2013 people")),
        ("  ", ParsedQuery(text="")),
        ("über -straße", ParsedQuery(text="über", excluded=("straße",))),
        ("c++ a+b --", ParsedQuery(text="c++ a+b --")),
    ],
)
def test_signs_and_boosts(query_string: str, parsed: ParsedQuery) -> None:
    assert parse_query(query_string) == parsed


@pytest.mark.parametrize("query_string", ["dog^x", "dog^", "dog^-1", "dog^nan", "dog^inf", "dog^1e999", "-dog^2"])
def test_an_invalid_boost_is_rejected(query_string: str) -> None:
    with expect_error("word-boosted-and-excluded" if query_string.startswith("-") else "invalid-boost", QueryError):
        parse_query(query_string)


@given(parts=st.lists(_PARTS))
def test_signs_and_boosts_of_any_words(parts: list[tuple[str, str, float | None]]) -> None:
    words = [sign + word + ("" if boost is None else f"^{boost}") for sign, word, boost in parts]
    assert parse_query(" ".join(words)) == ParsedQuery(
        text=" ".join(word for sign, word, _ in parts if sign in ("", "+")),
        required=tuple(word for sign, word, _ in parts if sign == "+"),
        excluded=tuple(word for sign, word, _ in parts if sign not in ("", "+")),
        boosts={word: boost for _, word, boost in parts if boost is not None},
    )


@given(query_string=QUERY_STRINGS)
def test_each_word_is_either_text_or_excluded(query_string: str) -> None:
    try:
        parsed = parse_query(query_string)
    except QueryError:
        return
    words = parsed.text.split()
    assert len(words) + len(parsed.excluded) == len(query_string.split())
    assert {*parsed.required, *parsed.boosts} <= {*words}
    assert all(0 <= boost < math.inf for boost in parsed.boosts.values())


@given(parts=st.lists(st.tuples(build_vectors(st.sampled_from("abc")), st.sampled_from((1, -1)), WEIGHTS), min_size=1))
def test_inputs_add_up_with_their_weights(parts: list[tuple[SparseVector, int, float]]) -> None:
    """A negative sum is left out, and only if all of them are, there is no vector."""
    sums = {
        token: sum(sign * factor * vector.to_dict().get(token, 0.0) for vector, sign, factor in parts)
        for token in {token for vector, _, _ in parts for token in vector.tokens}
    }
    positive = {token: weight for token, weight in sums.items() if weight > 0}
    try:
        combined = combine_vectors((vector, sign * factor) for vector, sign, factor in parts)
    except QueryError:
        assert not positive
    else:
        assert combined.to_dict() == positive


@pytest.mark.parametrize(
    ("factor", "code"),
    [
        *((factor, "inputs-cancel-out") for factor in (-1.0, 0.0)),
        *((factor, "invalid-input-weight") for factor in (math.nan, math.inf, -math.inf)),
        (1e308, "weights-too-large"),
    ],
)
def test_inputs_without_a_usable_part_are_rejected(factor: float, code: str) -> None:
    with expect_error(code, QueryError):
        combine_vectors([(SparseVector.from_mapping({"a": 10.0}), factor)])
