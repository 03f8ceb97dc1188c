"""Confidence intervals by resampling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stair_es.eval.metrics import bootstrap_interval


def compute_interval(
    ours: Sequence[NDArray[np.bool_]], theirs: Sequence[NDArray[np.bool_]], rounds: int = 10_000
) -> tuple[float, ...]:
    """Return the difference of two recalls in points, and its 95 % interval: a paired bootstrap over queries, seeds averaged.

    Args:
        ours: For each seed the hits of each query.
        theirs: The same of the other.
        rounds: Resamplings.
    """
    apart = np.mean(ours, axis=0, dtype=float) - np.mean(theirs, axis=0, dtype=float)
    low, high = bootstrap_interval(apart, rounds)
    return 100 * float(apart.mean()), 100 * low, 100 * high
