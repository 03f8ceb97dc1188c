"""A linear probe: multinomial logistic regression on vectors that stay as they are (scikit-learn's). Pure.

Shape suffixes: N images, V words, K classes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stair_es.eval.metrics import Doubles
from stair_es.extras import need
from stair_es.types import SparseVector

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""Values of C to choose from, for vectors of mean length 1."""
_HELD_OUT = 0.2
_MOST_STEPS = 1000
_EXTRA = "eval"


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A probe."""

    model: Any
    """A `LogisticRegression`."""
    strength: float
    """C, the inverse of the regularisation."""
    converged: bool
    scale: float
    """What vectors are multiplied by first, so that those of training have the mean length 1."""

    def scores(self, rows_NV: Any) -> Doubles:  # noqa: ANN401  a dense or a sparse matrix
        """[N, K], higher for likelier classes."""
        found: Doubles = self.model.decision_function(rows_NV * self.scale)
        return np.stack([-found, found], axis=1) if found.ndim == 1 else found


def matrices(train: Sequence[SparseVector], test: Sequence[SparseVector]) -> tuple[Any, Any]:
    """Both as sparse matrices (CSR) over the words of `train`; a word that only `test` has can't have been learnt from.

    Raises:
        MissingExtra: SciPy, which comes with scikit-learn, isn't installed.
    """
    columns = {word: column for column, word in enumerate(sorted({word for vector in train for word in vector.features}))}
    return _matrix(train, columns), _matrix(test, columns)


def fit(
    rows_NV: Any,  # noqa: ANN401
    labels: Sequence[int],
    *,
    steps: int = _MOST_STEPS,
) -> Fitted:
    """A probe whose C did best on a fifth of each class that it wasn't fitted to, fitted again to all.

    C is one of `STRENGTHS`: the middle one where no class has two rows.

    Args:
        rows_NV: A dense or a sparse matrix.
        labels: Of its rows, at least two different ones.
        steps: At most so many; see `Fitted.converged`.

    Raises:
        MissingExtra: scikit-learn isn't installed.
    """
    own_N = np.asarray(labels)
    scale = _scale(rows_NV)
    scaled_NV = rows_NV * scale
    held = held_out(labels)
    strength = STRENGTHS[len(STRENGTHS) // 2]
    if held.any():
        tried = [
            (_held(_fit(scaled_NV[~held], own_N[~held], each, steps)[0], scaled_NV[held], own_N[held]), each)
            for each in STRENGTHS
        ]
        strength = max(tried)[1]
    model, converged = _fit(scaled_NV, own_N, strength, steps)
    return Fitted(model=model, strength=strength, converged=converged, scale=scale)


def held_out(labels: Sequence[int]) -> NDArray[np.bool_]:
    """[N]: a fifth of the rows of each class, at least one, but never its last."""
    rng = np.random.default_rng(0)
    own_N = np.asarray(labels)
    held = np.zeros(len(own_N), dtype=bool)
    for label in np.unique(own_N):
        rows = rng.permutation(np.flatnonzero(own_N == label))
        held[rows[: min(math.ceil(_HELD_OUT * len(rows)), len(rows) - 1)]] = True
    return held


def _fit(rows_NV: Any, labels_N: NDArray[Any], strength: float, steps: int) -> tuple[Any, bool]:  # noqa: ANN401
    linear = need("sklearn.linear_model", _EXTRA)
    unfinished = need("sklearn.exceptions", _EXTRA).ConvergenceWarning
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = linear.LogisticRegression(C=strength, max_iter=steps).fit(rows_NV, labels_N)
    return model, not any(issubclass(each.category, unfinished) for each in said)


def _held(model: Any, rows_NV: Any, labels_N: NDArray[Any]) -> tuple[float, float]:  # noqa: ANN401
    """Accuracy; where that is the same (few rows are held out of a small set), the likelihood decides."""
    right = np.searchsorted(model.classes_, labels_N)
    likely_NK = model.predict_log_proba(rows_NV)
    return float(model.score(rows_NV, labels_N)), float(likely_NK[np.arange(len(right)), right].mean())


def _scale(rows_NV: Any) -> float:  # noqa: ANN401
    squares = rows_NV.multiply(rows_NV) if hasattr(rows_NV, "multiply") else rows_NV * rows_NV
    mean = float(np.sqrt(np.asarray(squares.sum(axis=1), dtype=np.float64)).mean())
    return 1 / mean if mean > 0 else 1.0


def _matrix(vectors: Sequence[SparseVector], columns: dict[str, int]) -> Any:  # noqa: ANN401  scipy has no types
    known = [[(columns[word], weight) for word, weight in vector if word in columns] for vector in vectors]
    starts = np.cumsum([0, *map(len, known)])
    places = np.array([column for row in known for column, _ in row], dtype=np.int64)
    weights = np.array([weight for row in known for _, weight in row], dtype=np.float64)
    return need("scipy.sparse", _EXTRA).csr_matrix((weights, places, starts), shape=(len(vectors), len(columns)))
