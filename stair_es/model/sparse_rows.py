"""Sparse vectors from rows of token weights: the largest weights are selected where they were computed, and only they are copied.

Shape suffixes: B rows, V tokens of the vocabulary, K selected weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stair_es.errors import ModelError
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from torch import Tensor

_DECIMALS = 5


def select_top_weights(weights_BV: Tensor, top_k: int = 0) -> tuple[Tensor, Tensor]:
    """Return the largest weights [B, K] of each row, and their indices, on the device of the weights.

    Args:
        weights_BV: Weights, of which those above 0 count.
        top_k: Weights to keep per row; 0 for all, which waits for the device.
    """
    # `> 0` would hide NaN, which is the largest for `topk`
    width = top_k or int((~(weights_BV <= 0)).sum(1).amax())
    values_BK, indices_BK = weights_BV.float().topk(min(width, weights_BV.shape[1]), dim=1)
    return values_BK, indices_BK


class SparseRowBuilder:
    """Builds sparse vectors over the tokens of a vocabulary, for a whole batch at once: a GPU computes thousands per second."""

    def __init__(self, tokens: Sequence[str], *, unit: bool = False) -> None:
        """Sort the vocabulary.

        Args:
            tokens: Tokens of the vocabulary, all different.
            unit: Whether each row is scaled to length 1, so that a dot product is a cosine.
        """
        self._tokens_V = np.empty(len(tokens), object)
        self._tokens_V[:] = list(tokens)
        self._ranks_V = np.empty(len(tokens), np.int64)
        self._ranks_V[sorted(range(len(tokens)), key=tokens.__getitem__)] = np.arange(len(tokens))
        self._unit = unit

    def build_rows(self, weights_BV: NDArray[np.floating[Any]]) -> list[SparseVector]:
        """Return the vectors of rows in numpy; as for `build_top_weights`."""
        indices = [np.flatnonzero(~(weights_V <= 0)) for weights_V in weights_BV]  # not `> 0`, which would hide NaN
        indices_BK = np.zeros((len(indices), max(map(len, indices), default=0)), np.int64)
        values_BK = np.zeros(indices_BK.shape)
        for row, indices_K in enumerate(indices):
            indices_BK[row, : len(indices_K)] = indices_K
            values_BK[row, : len(indices_K)] = weights_BV[row, indices_K]
        return self.build_top_weights(values_BK, indices_BK)

    def build_chunks(self, chunks: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> list[SparseVector]:
        """Return the vectors of chunks of `select_top_weights`, in their order."""
        return [vector for values_BK, indices_BK in chunks for vector in self.build_top_weights(values_BK, indices_BK)]

    def build_top_weights(self, values_BK: NDArray[np.floating[Any]], indices_BK: NDArray[np.integer[Any]]) -> list[SparseVector]:
        """Return the tokens of each row with a positive weight, rounded to 5 decimals; weights that round to 0 are dropped.

        Args:
            values_BK: Weights, in any order; those that aren't above 0 are no tokens of the row.
            indices_BK: Their tokens.

        Raises:
            ModelError: If a weight isn't a finite number: the precision is too low for this model, or its weights are broken.
        """
        if not np.isfinite(values_BK).all():
            raise ModelError(
                "the model produced a weight that isn't finite",
                "Use --precision fp32; if it is used, get or train the model again.",
                code="weight-not-finite",
            )
        values_BK = np.maximum(values_BK, 0, dtype=np.float64)
        if self._unit:
            lengths_B1 = np.linalg.norm(values_BK, axis=1, keepdims=True)
            values_BK = np.divide(values_BK, lengths_B1, out=values_BK, where=lengths_B1 > 0)
        values_BK = np.round(values_BK, _DECIMALS)
        order_BK = np.lexsort((self._ranks_V[indices_BK], -values_BK), axis=1)
        values_BK = np.take_along_axis(values_BK, order_BK, axis=1)
        tokens_BK = self._tokens_V[np.take_along_axis(indices_BK, order_BK, axis=1)]
        rows = zip(tokens_BK, values_BK, np.count_nonzero(values_BK, axis=1).tolist(), strict=True)
        return [SparseVector(tuple(tokens_K[:n].tolist()), tuple(values_K[:n].tolist())) for tokens_K, values_K, n in rows]


def scale_to_unit(weights_V: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale a row to length 1, so that a dot product is a cosine; zeros stay zeros."""
    positive = weights_V[weights_V > 0]
    return weights_V / np.linalg.norm(positive) if len(positive) else weights_V


def keep_top_k(weights_V: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Keep the `count` largest of weights that aren't below 0, ties by index; the others become 0."""
    ids = np.flatnonzero(weights_V > 0)
    if len(ids) <= count:
        return weights_V * (weights_V > 0)
    kept = ids[np.argsort(-weights_V[ids], kind="stable")[:count]]
    kept_V = np.zeros_like(weights_V)
    kept_V[kept] = weights_V[kept]
    return kept_V
