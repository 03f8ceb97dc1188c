"""Rows of weights -> vectors of words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stair_es.errors import ModelError
from stair_es.types import SparseVector

_DECIMALS = 5


def sparse(weights_F: NDArray[np.floating[Any]], words: Sequence[str], ranks_F: NDArray[np.int64], *, unit: bool) -> SparseVector:
    """The words of one row that have a weight, rounded to 5 decimals; what rounds to 0 is dropped.

    A GPU computes thousands of rows a second, so this sorts in numpy and skips `SparseVector.from_pairs`.

    Args:
        weights_F: Not below 0.
        words: The features, each another.
        ranks_F: The place of each among all, by name.
        unit: Whether the row is scaled to length 1, so that a dot product is a cosine.

    Raises:
        ModelError: A weight isn't a finite number.
    """
    places = np.flatnonzero(~(weights_F <= 0))  # not `> 0`, which would hide what isn't a number
    kept = weights_F[places].astype(np.float64)
    if not np.isfinite(kept).all():
        raise ModelError("the model computes weights that are no finite numbers", "Use --precision fp32, or train it again.")
    if unit and len(kept):
        kept = kept / np.linalg.norm(kept)
    rounded = np.round(kept, _DECIMALS)
    order = np.lexsort((ranks_F[places], -rounded))[: np.count_nonzero(rounded)]
    return SparseVector(tuple(words[place] for place in places[order].tolist()), tuple(rounded[order].tolist()))
