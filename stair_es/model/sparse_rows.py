"""Convert rows of token weights to sparse vectors, those of numpy and those of PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stair_es.errors import ModelError
from stair_es.types import Floats, SparseVector

if TYPE_CHECKING:
    from torch import Tensor

_DECIMALS = 5


def build_sparse_vector(
    weights_F: NDArray[np.floating[Any]], tokens: Sequence[str], ranks_F: NDArray[np.int64], *, unit: bool
) -> SparseVector:
    """Return the tokens of one row with a positive weight, rounded to 5 decimals; weights that round to 0 are dropped.

    A GPU computes thousands of rows per second, so this sorts in numpy and skips `SparseVector.from_pairs`.

    Args:
        weights_F: Weights, not below 0.
        tokens: Tokens of the vocabulary, all different.
        ranks_F: Alphabetical rank of each token.
        unit: Whether the row is scaled to length 1, so that a dot product is a cosine.

    Raises:
        ModelError: If a weight isn't a finite number.
    """
    indices = np.flatnonzero(~(weights_F <= 0))  # not `> 0`, which would hide NaN
    weights = weights_F[indices].astype(np.float64)
    if not np.isfinite(weights).all():
        raise ModelError(
            "the model produced a weight that isn't finite", "Use --precision fp32, or train it again.", code="weight-not-finite"
        )
    if unit and len(weights):
        weights = weights / np.linalg.norm(weights)
    rounded = np.round(weights, _DECIMALS)
    order = np.lexsort((ranks_F[indices], -rounded))[: np.count_nonzero(rounded)]
    return SparseVector(tuple(tokens[index] for index in indices[order].tolist()), tuple(rounded[order].tolist()))


def build_sparse_vectors(weights_BV: Tensor, tokens: Sequence[str]) -> list[SparseVector]:
    """Return one sparse vector per row, of the weights above 0.

    Raises:
        ModelError: If a weight isn't finite: the precision is too low for this model, or its weights are broken.
    """
    rows: Floats = weights_BV.float().cpu().numpy()
    if not np.isfinite(rows).all():
        raise ModelError(
            "the model produced a weight that isn't finite", "Use --precision fp32 or bf16.", code="weight-not-finite"
        )
    return [_build_vector(row_V, tokens) for row_V in rows]


def _build_vector(weights_V: Floats, tokens: Sequence[str]) -> SparseVector:
    indices = np.flatnonzero(weights_V > 0)
    return SparseVector.from_pairs((tokens[index], float(weights_V[index])) for index in indices.tolist())
