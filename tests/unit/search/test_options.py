"""Pruning, and rank fusion."""

import math

import pytest
from support.errors import expect_error

from stair_es.errors import QueryError
from stair_es.search.options import SearchOptions, prune_vector
from stair_es.search.ranking import fuse_reciprocal_ranks
from stair_es.types import SparseVector

VECTOR = SparseVector.from_mapping({"dog": 5.0, "beach": 3.0, "sand": 1.5, "the": 0.5})


def test_nothing_is_pruned_by_default() -> None:
    assert prune_vector(VECTOR, None).kept == VECTOR
    assert not len(prune_vector(VECTOR, None).pruned)


@pytest.mark.parametrize(
    ("mass", "kept"), [(0.8, ("dog", "beach")), (0.81, ("dog", "beach", "sand")), (1e-9, ("dog",)), (1.0, VECTOR.tokens)]
)
def test_kept_and_pruned_tokens_are_the_whole_vector(mass: float, kept: tuple[str, ...]) -> None:
    pruned = prune_vector(VECTOR, mass)
    assert pruned.kept.tokens == kept
    assert {**pruned.kept.to_dict(), **pruned.pruned.to_dict()} == VECTOR.to_dict()
    assert len(pruned.kept) + len(pruned.pruned) == len(VECTOR)


def test_invalid_numbers_are_rejected() -> None:
    for mass in (0.0, 1.1, math.nan):
        with expect_error("invalid-weight-mass", QueryError):
            SearchOptions(weight_mass=mass)


def test_fused_ranks_have_no_order_by_a_field() -> None:
    with expect_error("rrf-not-sortable", QueryError):
        SearchOptions(fusion="rrf", sort="price:asc")


def test_fused_ranks_follow_the_formula() -> None:
    fused = dict(fuse_reciprocal_ranks([["a", "b", "c"], ["c", "a"]], [1.0, 0.5]))
    assert fused == {"a": pytest.approx(1 / 61 + 0.5 / 62), "b": pytest.approx(1 / 62), "c": pytest.approx(1 / 63 + 0.5 / 61)}
    assert [id_ for id_, _ in fuse_reciprocal_ranks([["b", "a"], ["a", "b"]], [1.0, 1.0])] == ["a", "b"]
