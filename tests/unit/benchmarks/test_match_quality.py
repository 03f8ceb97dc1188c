"""The benchmark of weak matches: what a cut keeps and loses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from support.benchmarks import import_benchmark

from stair_es.types import SparseVector

bench = import_benchmark("match_quality")


def test_a_cut_is_measured_and_chosen() -> None:
    build_vector = SparseVector.from_mapping
    labeled = bench.Labeled(
        queries=[build_vector({"a": 2.0}), build_vector({"b": 1.0}), build_vector({"c": 5.0})],
        documents=[build_vector({"a": 1.0}), build_vector({"a": 0.6, "b": 0.8}), build_vector({"b": 0.3, "c": 0.42})],
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
