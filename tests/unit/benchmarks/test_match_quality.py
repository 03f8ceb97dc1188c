"""The benchmark of weak matches: what a cut keeps and loses."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from stair_es.types import SparseVector


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    """The module, which is in a folder that is no package."""
    sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
    try:
        yield importlib.import_module("match_quality")
    finally:
        sys.path.pop(0)


def test_a_cut_is_measured_and_chosen(bench: ModuleType) -> None:
    vector = SparseVector.from_mapping
    labeled = bench.Labeled(
        queries=[vector({"a": 2.0}), vector({"b": 1.0}), vector({"c": 5.0})],
        documents=[vector({"a": 1.0}), vector({"a": 0.6, "b": 0.8}), vector({"b": 0.3, "c": 0.42})],
        answers_QD=np.array([[True, False, False], [False, True, True], [False, False, False]]),
        candidates_QD=np.ones((3, 3), bool),
    )
    cosines = bench.compute_cosines(labeled)
    assert cosines.round(6).tolist() == [[1.0, 0.6, 0.0], [0.0, 0.8, 0.3], [0.0, 0.0, 0.42]]
    figures = bench.measure_cut(labeled, cosines, 0.4)
    assert figures == bench.Figures(precision=2 / 3, recall=2 / 3, answered=1.0, quiet=0.0)
    assert bench.choose_cut(labeled, cosines) == 0.45
    assert bench.choose_cut(labeled, bench.compute_best_shares(labeled)) is None
    named = replace(labeled, words=[[("a",)], [("a",), ("b",)], []])
    assert bench.compute_named_weights(named).tolist() == [[1.0, 0.6, 0.0], [0.0, 0.6, 0.0], [0.0, 0.0, 0.0]]
    assert bench.compute_named_cosines(named).round(6).tolist() == [[1.0, 1.0, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 0.42]]
    assert bench.compute_weight_shares(labeled).tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 1]]
