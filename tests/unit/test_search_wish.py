"""What people type, and what becomes of it."""

import pytest

from stair_es.errors import QueryError
from stair_es.search.inputs import boosted, combined, muted
from stair_es.search.wish import Wish, parse
from stair_es.types import SparseVector

V = SparseVector.from_mapping


@pytest.mark.parametrize(
    ("typed", "wish"),
    [
        ("beach -people", Wish(text="beach", excluded=("people",))),
        ("+dog on a beach", Wish(text="dog on a beach", required=("dog",))),
        ("dog^2 cat^0.5", Wish(text="dog cat", boosts={"dog": 2.0, "cat": 0.5})),
        ("+dog^2 -cat", Wish(text="dog", required=("dog",), excluded=("cat",), boosts={"dog": 2.0})),
        ("f-16 at -5 degrees - cold", Wish(text="f-16 at -5 degrees - cold")),
        ("-##ing ^_^ x^^2", Wish(text="^_^ x^", excluded=("##ing",), boosts={"x^": 2.0})),
        ("beach \u2013people \u2212dog", Wish(text="beach", excluded=("people", "dog"))),
        ("beach \u2013 people", Wish(text="beach \u2013 people")),
        ("  ", Wish(text="")),
        ("über -straße", Wish(text="über", excluded=("straße",))),
        ("c++ a+b --", Wish(text="c++ a+b --")),
    ],
)
def test_signs_and_boosts(typed: str, wish: Wish) -> None:
    assert parse(typed) == wish


@pytest.mark.parametrize("typed", ["dog^x", "dog^", "dog^-1", "dog^nan", "dog^inf", "dog^1e999", "-dog^2"])
def test_a_boost_that_is_none_is_refused(typed: str) -> None:
    with pytest.raises(QueryError):
        parse(typed)


def test_inputs_add_up_with_their_weights() -> None:
    assert combined([(V({"a": 1.0, "b": 2.0}), 1.0), (V({"b": 1.0, "c": 4.0}), 0.5)]) == V({"a": 1.0, "b": 2.5, "c": 2.0})


def test_a_negative_input_takes_away_and_never_below_0() -> None:
    assert combined([(V({"a": 1.0, "b": 2.0}), 1.0), (V({"a": 3.0, "b": 1.0}), -1.0)]) == V({"b": 1.0})


@pytest.mark.parametrize("factor", [-1.0, 0.0, float("nan"), float("inf"), 1e308])
def test_inputs_of_which_nothing_sensible_is_left_are_refused(factor: float) -> None:
    with pytest.raises(QueryError):
        combined([(V({"a": 10.0}), factor)])


def test_boosts_and_muted_words() -> None:
    assert boosted(V({"a": 1.0, "b": 2.0}), {"a": 4.0, "b": 0.0}) == V({"a": 4.0})
    assert muted(V({"a": 1.0, "b": 2.0}), {"a", "z"}) == V({"b": 2.0})
    with pytest.raises(QueryError, match="'z'"):
        boosted(V({"a": 1.0}), {"z": 2.0})
    with pytest.raises(QueryError, match="muted"):
        muted(V({"a": 1.0}), {"a"})
    with pytest.raises(QueryError, match="all tokens"):
        boosted(V({"a": 1.0}), {"a": 0.0})
