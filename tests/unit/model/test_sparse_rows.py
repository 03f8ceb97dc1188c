"""Sparse vectors from rows of token weights, in numpy and in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.errors import expect_error

from stair_es.model.sparse_rows import SparseRowBuilder, select_top_weights
from stair_es.types import SparseVector

LETTERS = SparseRowBuilder("abcde")


def test_rows_become_vectors_without_zero_weights() -> None:
    rows_BV = np.array([[0, 0.5, 1e-7, 2, 0], [-1, 0, 0, 0, 0], [0.123456, 0, 0, 0, 0]], np.float32)
    assert [vector.to_dict() for vector in LETTERS.build_rows(rows_BV)] == [{"d": 2.0, "b": 0.5}, {}, {"a": 0.12346}]
    unit = SparseRowBuilder("abcde", unit=True).build_rows(rows_BV)
    assert [vector.to_dict() for vector in unit] == [{"d": 0.97014, "b": 0.24254}, {}, {"a": 1.0}]
    assert LETTERS.build_rows(rows_BV[:0]) == []


def test_ties_are_in_alphabetical_order() -> None:
    ties_BV = np.array([[0.5, 0, 0.5, 0.7, 0.500001]], np.float32)
    expected = SparseVector.from_pairs([("e", 0.5), ("c", 0.5), ("b", 0.7), ("a", 0.5)])
    assert SparseRowBuilder(["e", "d", "c", "b", "a"]).build_rows(ties_BV) == [expected]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_rejected(value: float) -> None:
    torch: Any = pytest.importorskip("torch")
    rows_BV = np.array([[0, 0.5, 0, 2, 1], [0, 0.5, 0, 2, value]], np.float32)
    with expect_error("weight-not-finite"):
        LETTERS.build_rows(rows_BV)
    for top_k in (0, 1):
        values_BK, indices_BK = select_top_weights(torch.from_numpy(rows_BV), top_k)
        with expect_error("weight-not-finite"):
            LETTERS.build_top_weights(values_BK.numpy(), indices_BK.numpy())


@pytest.mark.parametrize("top_k", [0, 1, 3, 50, 400])
def test_the_largest_weights_are_selected_on_the_device(top_k: int) -> None:
    torch: Any = pytest.importorskip("torch")
    tokens = [f"t{number}" for number in range(300)]
    rows_BV = np.random.default_rng(0).normal(size=(7, 300)).astype(np.float32)
    rows_BV[2] = -1
    builder = SparseRowBuilder(tokens)
    values_BK, indices_BK = select_top_weights(torch.from_numpy(rows_BV), top_k)
    assert values_BK.shape[1] <= (top_k or 300)
    assert builder.build_top_weights(values_BK.numpy(), indices_BK.numpy()) == [
        vector.top(top_k or 300) for vector in builder.build_rows(rows_BV)
    ]
    shapes = select_top_weights(torch.empty(7, 300, device="meta", dtype=torch.bfloat16), top_k or 5)
    assert [(tuple(each.shape), each.dtype) for each in shapes] == [
        ((7, min(top_k or 5, 300)), torch.float32),
        ((7, min(top_k or 5, 300)), torch.int64),
    ]
