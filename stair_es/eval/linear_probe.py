"""Linear probe: multinomial logistic regression (scikit-learn) on fixed vectors, and its report.

Shape suffixes: N images, V tokens, K classes.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stair_es.errors import UsageError
from stair_es.eval.encode import EncodedVectors, encode_images
from stair_es.eval.metrics import Doubles
from stair_es.eval.models import EvaluatedModel, run_for_each_model
from stair_es.eval.tables import ReportTable, TableReport, format_percent
from stair_es.eval.zero_shot import ClassAccuracy, compute_accuracy, list_skipped_images
from stair_es.optional import import_optional
from stair_es.types import PartProgressCallback, SparseVector

if TYPE_CHECKING:
    from stair_es.eval.datasets.image_folder import LabeledDataset

PROBE_C_VALUES = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""Candidate values of C, for vectors of mean length 1."""
_HELD_OUT = 0.2
_MOST_STEPS = 1000
_EXTRA = "eval"


@dataclass(frozen=True, kw_only=True)
class FittedProbe:
    """A fitted probe."""

    model: Any
    """A `LogisticRegression`."""
    strength: float
    """C, the inverse of the regularization strength."""
    converged: bool
    scale: float
    """Factor applied to vectors, so that those of the training set have mean length 1."""

    def compute_scores(self, rows_NV: Any) -> Doubles:  # noqa: ANN401  a dense or a sparse matrix
        """Return the scores [N, K]; higher is more likely."""
        found: Doubles = self.model.decision_function(rows_NV * self.scale)
        return np.stack([-found, found], axis=1) if found.ndim == 1 else found


def build_matrices(train: Sequence[SparseVector], test: Sequence[SparseVector]) -> tuple[Any, Any]:
    """Build sparse matrices (CSR) of both sets over the tokens of `train`; tokens only in `test` can't have been learned.

    Args:
        train: Vectors of the training set.
        test: Vectors of the test set.

    Raises:
        MissingExtra: If SciPy, which comes with scikit-learn, isn't installed.
    """
    columns = {word: column for column, word in enumerate(sorted({word for vector in train for word in vector.tokens}))}
    return _build_matrix(train, columns), _build_matrix(test, columns)


def fit_probe(
    rows_NV: Any,  # noqa: ANN401
    labels: Sequence[int],
    *,
    steps: int = _MOST_STEPS,
) -> FittedProbe:
    """Fit a probe with the C that is best on a held-out fifth of each class, refitted to all rows.

    C is one of `PROBE_C_VALUES`; the middle one if no class has two rows.

    Args:
        rows_NV: A dense or a sparse matrix.
        labels: Labels of its rows, at least two different ones.
        steps: Maximum number of iterations; see `FittedProbe.converged`.

    Raises:
        MissingExtra: If scikit-learn isn't installed.
    """
    own_N = np.asarray(labels)
    scale = _compute_scale(rows_NV)
    scaled_NV = rows_NV * scale
    held = select_held_out(labels)
    strength = PROBE_C_VALUES[len(PROBE_C_VALUES) // 2]
    if held.any():
        tried = [
            (_score_held_out(_fit_model(scaled_NV[~held], own_N[~held], each, steps)[0], scaled_NV[held], own_N[held]), each)
            for each in PROBE_C_VALUES
        ]
        strength = max(tried)[1]
    model, converged = _fit_model(scaled_NV, own_N, strength, steps)
    return FittedProbe(model=model, strength=strength, converged=converged, scale=scale)


def select_held_out(labels: Sequence[int]) -> NDArray[np.bool_]:
    """Return a mask [N] of a fifth of the rows of each class, at least one, but never all.

    Args:
        labels: Labels of the rows.
    """
    rng = np.random.default_rng(0)
    own_N = np.asarray(labels)
    held = np.zeros(len(own_N), dtype=bool)
    for label in np.unique(own_N):
        rows = rng.permutation(np.flatnonzero(own_N == label))
        held[rows[: min(math.ceil(_HELD_OUT * len(rows)), len(rows) - 1)]] = True
    return held


def _fit_model(rows_NV: Any, labels_N: NDArray[Any], strength: float, steps: int) -> tuple[Any, bool]:  # noqa: ANN401
    linear = import_optional("sklearn.linear_model", _EXTRA)
    unfinished = import_optional("sklearn.exceptions", _EXTRA).ConvergenceWarning
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = linear.LogisticRegression(C=strength, max_iter=steps).fit(rows_NV, labels_N)
    return model, not any(issubclass(each.category, unfinished) for each in said)


def _score_held_out(model: Any, rows_NV: Any, labels_N: NDArray[Any]) -> tuple[float, float]:  # noqa: ANN401
    """Return the accuracy and, as a tie-breaker for small held-out sets, the mean log-likelihood."""
    right = np.searchsorted(model.classes_, labels_N)
    likely_NK = model.predict_log_proba(rows_NV)
    return float(model.score(rows_NV, labels_N)), float(likely_NK[np.arange(len(right)), right].mean())


def _compute_scale(rows_NV: Any) -> float:  # noqa: ANN401
    squares = rows_NV.multiply(rows_NV) if hasattr(rows_NV, "multiply") else rows_NV * rows_NV
    mean = float(np.sqrt(np.asarray(squares.sum(axis=1), dtype=np.float64)).mean())
    return 1 / mean if mean > 0 else 1.0


def _build_matrix(vectors: Sequence[SparseVector], columns: dict[str, int]) -> Any:  # noqa: ANN401  scipy has no types
    known = [[(columns[word], weight) for word, weight in vector if word in columns] for vector in vectors]
    starts = np.cumsum([0, *map(len, known)])
    places = np.array([column for row in known for column, _ in row], dtype=np.int64)
    weights = np.array([weight for row in known for _, weight in row], dtype=np.float64)
    return import_optional("scipy.sparse", _EXTRA).csr_matrix((weights, places, starts), shape=(len(vectors), len(columns)))


_HEAD = ("vectors", "model", "top-1", "top-5", "mean per class", "train", "test", "C")


@dataclass(frozen=True, kw_only=True)
class _Row:
    kind: str
    model: str
    train: int
    found: ClassAccuracy
    fitted: FittedProbe

    def format_cells(self) -> tuple[str, ...]:
        shares = (self.found.top1, self.found.top5, self.found.mean_class)
        return (
            self.kind,
            self.model,
            *map(format_percent, shares),
            str(self.train),
            str(self.found.images),
            f"{self.fitted.strength:g}",
        )

    def to_dict(self) -> dict[str, Any]:
        facts = {"train_images": self.train, "C": self.fitted.strength, "converged": self.fitted.converged}
        return {"vectors": self.kind, "model": self.model, **facts, **asdict(self.found)}


def evaluate_linear_probe(
    train: LabeledDataset, test: LabeledDataset, models: Sequence[EvaluatedModel], *, progress: PartProgressCallback
) -> TableReport:
    """Measure the accuracy on `test` of a probe fitted to `train`, for token weights and for dense vectors of each model.

    Args:
        train: Training set.
        test: Test set.
        models: Models to compare.
        progress: Progress callback.

    Raises:
        UsageError: If the sets have no class in common, or no image is readable.
        MissingExtra: If scikit-learn isn't installed.
        ModelError: If the first model fails.
    """
    start = time.perf_counter()
    position = {name: label for label, name in enumerate(train.classes)}
    strange = [name for name in test.classes if name not in position]
    if len(strange) == len(test.classes):
        raise UsageError(
            f"no class of {test.name} is also in {train.name}: {', '.join(test.classes[:3])} ...",
            "Both folders must contain the same classes: FOLDER/train/<class> and FOLDER/test/<class>.",
        )
    problems = [f"{test.name}/{name}: not a class of the training set" for name in strange]

    def measure_model(model: EvaluatedModel) -> list[_Row]:
        learnt = encode_images(train.locators, model, progress)
        asked = encode_images(test.locators, model, progress)
        problems.extend([*list_skipped_images(train, learnt), *list_skipped_images(test, asked)])
        labels = [train.labels[place] for place in learnt.kept]
        right = [position.get(test.classes[test.labels[place]], -1) for place in asked.kept]
        learnable = set(labels)
        known = [row for row, label in enumerate(right) if label in learnable]
        if not known or len(learnable) < 2:
            raise UsageError(
                "too few readable images: at least two training classes, and a test image of one of them, are needed"
            )
        wanted = [right[row] for row in known]
        return [
            _build_row(kind, model, rows, labels, tests[known], wanted)
            for kind, rows, tests in _iterate_kinds(learnt.vectors, asked.vectors)
        ]

    rows = run_for_each_model(models, measure_model, problems)
    return TableReport(
        title=f"{train.name} to {test.name}: {train.describe_size()}; {test.describe_size()}",
        about=(
            "Linear probe: logistic regression on vectors of images, C chosen on a fifth of the training images; in percent."
            " Equal scores count against the model."
        ),
        tables=(ReportTable(head=_HEAD, rows=tuple(row.format_cells() for row in rows)),),
        values={"train": train.name, "test": test.name, "classes": list(train.classes), "rows": [row.to_dict() for row in rows]},
        remarks=tuple(f"{row.kind} of {row.model}: not converged" for row in rows if not row.fitted.converged),
        problems=tuple(dict.fromkeys(problems)),
        packages=("stair-es", "numpy", "scikit-learn"),
        seconds=time.perf_counter() - start,
    )


def _iterate_kinds(train: EncodedVectors, test: EncodedVectors) -> Iterator[tuple[str, Any, Any]]:
    if train.sparse is not None and test.sparse is not None:
        yield ("tokens", *build_matrices(train.sparse, test.sparse))
    if train.dense is not None and test.dense is not None:
        yield "dense", train.dense.astype(np.float64), test.dense.astype(np.float64)


def _build_row(kind: str, model: EvaluatedModel, rows: Any, labels: list[int], tests: Any, wanted: list[int]) -> _Row:  # noqa: ANN401
    fitted = fit_probe(rows, labels)
    places = {label: place for place, label in enumerate(fitted.model.classes_.tolist())}
    found = compute_accuracy(fitted.compute_scores(tests), [places[label] for label in wanted])
    return _Row(kind=kind, model=model.label, train=len(labels), found=found, fitted=fitted)
