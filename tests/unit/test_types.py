import math

import pytest

from stair_es import SparseVector


def test_vector_is_sorted_heaviest_first_with_ties_by_name() -> None:
    vector = SparseVector.from_mapping({"cat": 0.5, "dog": 1.0, "ant": 0.5})
    assert list(vector) == [("dog", 1.0), ("ant", 0.5), ("cat", 0.5)]
    assert vector.top(2).tokens == ("dog", "ant")
    assert vector.to_dict() == {"dog": 1.0, "ant": 0.5, "cat": 0.5}


@pytest.mark.parametrize("weight", [0.0, -1.0, math.inf, math.nan])
def test_weights_that_an_engine_would_reject_are_rejected(weight: float) -> None:
    with pytest.raises(ValueError, match="dog"):
        SparseVector.from_mapping({"dog": weight})


def test_tokens_are_unique() -> None:
    with pytest.raises(ValueError, match="duplicated"):
        SparseVector.from_pairs([("dog", 1.0), ("dog", 2.0)])


def test_dot_counts_common_words_only() -> None:
    left = SparseVector.from_mapping({"dog": 2.0, "cat": 1.0})
    right = SparseVector.from_mapping({"dog": 0.25, "bird": 8.0})
    assert left.dot(right) == right.dot(left) == 0.5
    assert left.dot(SparseVector((), ())) == 0.0
