"""Query strings, and the combination of vectors."""

import pytest

from stair_es.errors import QueryError
from stair_es.search.query_encoder import combine_vectors
from stair_es.search.query_parser import ParsedQuery, parse_query
from stair_es.types import SparseVector

vector = SparseVector.from_mapping


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
    with pytest.raises(QueryError):
        parse_query(query_string)


def test_inputs_add_up_with_their_weights() -> None:
    assert combine_vectors([(vector({"a": 1.0, "b": 2.0}), 1.0), (vector({"b": 1.0, "c": 4.0}), 0.5)]) == vector(
        {"a": 1.0, "b": 2.5, "c": 2.0}
    )


def test_negative_inputs_lower_weights_to_at_least_0() -> None:
    assert combine_vectors([(vector({"a": 1.0, "b": 2.0}), 1.0), (vector({"a": 3.0, "b": 1.0}), -1.0)]) == vector({"b": 1.0})


@pytest.mark.parametrize("factor", [-1.0, 0.0, float("nan"), float("inf"), 1e308])
def test_inputs_without_a_usable_part_are_rejected(factor: float) -> None:
    with pytest.raises(QueryError):
        combine_vectors([(vector({"a": 10.0}), factor)])
