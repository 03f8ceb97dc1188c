"""Linear probe: multinomial logistic regression (scikit-learn) on fixed vectors, and its report.

Shape suffixes: N images, V tokens, K classes.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stair_es.errors import DatasetError
from stair_es.eval.datasets.image_folder import LabeledDataset
from stair_es.eval.encode import EncodedVectors, encode_images
from stair_es.eval.metrics import Doubles
from stair_es.eval.models import EvaluatedModel, run_for_each_model
from stair_es.eval.tables import ReportTable, TableReport, format_percent
from stair_es.eval.zero_shot import ClassAccuracy, compute_accuracy, list_skipped_images
from stair_es.optional import import_optional
from stair_es.types import PartProgressCallback, SparseVector

PROBE_C_VALUES = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""Candidate values of C, for vectors of mean length 1."""
_HELD_OUT = 0.2
_MAX_ITERATIONS = 1000
_EXTRA = "eval"


@dataclass(frozen=True, kw_only=True)
class FittedProbe:
    """A fitted probe."""

    model: Any
    """A `LogisticRegression`."""
    c: float
    """C of scikit-learn: the inverse of the regularization strength."""
    converged: bool
    scale: float
    """Factor applied to vectors, so that those of the training set have mean length 1."""

    def compute_scores(self, rows_NV: Any) -> Doubles:  # noqa: ANN401  a dense or a sparse matrix
        """Return the scores [N, K]; higher is more likely."""
        scores_N: Doubles = self.model.decision_function(rows_NV * self.scale)
        return np.stack([-scores_N, scores_N], axis=1) if scores_N.ndim == 1 else scores_N


def build_matrices(train: Sequence[SparseVector], test: Sequence[SparseVector]) -> tuple[Any, Any]:
    """Build sparse matrices (CSR) of both sets over the tokens of `train`; tokens only in `test` can't have been learned.

    Raises:
        MissingExtra: If SciPy, which comes with scikit-learn, isn't installed.
    """
    columns = {token: column for column, token in enumerate(sorted({token for vector in train for token in vector.tokens}))}
    return _build_matrix(train, columns), _build_matrix(test, columns)


def fit_probe(
    rows_NV: Any,  # noqa: ANN401
    labels: Sequence[int],
    *,
    steps: int = _MAX_ITERATIONS,
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
    labels_N = np.asarray(labels)
    scale = _compute_scale(rows_NV)
    scaled_NV = rows_NV * scale
    held_out = select_held_out(labels)
    c = PROBE_C_VALUES[len(PROBE_C_VALUES) // 2]
    if held_out.any():
        train_NV, train_N = scaled_NV[~held_out], labels_N[~held_out]
        test_NV, test_N = scaled_NV[held_out], labels_N[held_out]
        # a generator keeps one model at a time: they hold a weight per class and token
        models = (_fit_model(train_NV, train_N, each, steps)[0] for each in PROBE_C_VALUES)
        scored = [(_score_held_out(model, test_NV, test_N), each) for model, each in zip(models, PROBE_C_VALUES, strict=True)]
        c = max(scored)[1]
    model, converged = _fit_model(scaled_NV, labels_N, c, steps)
    return FittedProbe(model=model, c=c, converged=converged, scale=scale)


def select_held_out(labels: Sequence[int]) -> NDArray[np.bool_]:
    """Return a mask [N] of a fifth of the rows of each class, at least one, but never all."""
    rng = np.random.default_rng(0)
    labels_N = np.asarray(labels)
    held_out = np.zeros(len(labels_N), dtype=bool)
    for label in np.unique(labels_N):
        rows = rng.permutation(np.flatnonzero(labels_N == label))
        held_out[rows[: min(math.ceil(_HELD_OUT * len(rows)), len(rows) - 1)]] = True
    return held_out


def _fit_model(rows_NV: Any, labels_N: NDArray[Any], c: float, steps: int) -> tuple[Any, bool]:  # noqa: ANN401
    linear = import_optional("sklearn.linear_model", _EXTRA)
    warning_class = import_optional("sklearn.exceptions", _EXTRA).ConvergenceWarning
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = linear.LogisticRegression(C=c, max_iter=steps).fit(rows_NV, labels_N)
    return model, not any(issubclass(each.category, warning_class) for each in caught)


def _score_held_out(model: Any, rows_NV: Any, labels_N: NDArray[Any]) -> tuple[float, float]:  # noqa: ANN401
    """Return the accuracy and, as a tie-breaker for small held-out sets, the mean log-likelihood."""
    columns = np.searchsorted(model.classes_, labels_N)
    log_probs_NK = model.predict_log_proba(rows_NV)
    return float(model.score(rows_NV, labels_N)), float(log_probs_NK[np.arange(len(columns)), columns].mean())


def _compute_scale(rows_NV: Any) -> float:  # noqa: ANN401
    squares = rows_NV.multiply(rows_NV) if hasattr(rows_NV, "multiply") else rows_NV * rows_NV
    mean = float(np.sqrt(np.asarray(squares.sum(axis=1), dtype=np.float64)).mean())
    return 1 / mean if mean > 0 else 1.0


def _build_matrix(vectors: Sequence[SparseVector], columns: dict[str, int]) -> Any:  # noqa: ANN401  scipy has no types
    rows = [[(columns[token], weight) for token, weight in vector if token in columns] for vector in vectors]
    indptr = np.cumsum([0, *map(len, rows)])
    indices = np.array([column for row in rows for column, _ in row], dtype=np.int64)
    data = np.array([weight for row in rows for _, weight in row], dtype=np.float64)
    return import_optional("scipy.sparse", _EXTRA).csr_matrix((data, indices, indptr), shape=(len(vectors), len(columns)))


_HEAD = ("vectors", "model", "top-1", "top-5", "mean per class", "train", "test", "C")


@dataclass(frozen=True, kw_only=True)
class _Row:
    kind: str
    model: str
    train: int
    accuracy: ClassAccuracy
    fitted: FittedProbe

    def format_cells(self) -> tuple[str, ...]:
        shares = (self.accuracy.top1, self.accuracy.top5, self.accuracy.mean_class)
        return (
            self.kind,
            self.model,
            *map(format_percent, shares),
            str(self.train),
            str(self.accuracy.images),
            f"{self.fitted.c:g}",
        )

    def to_dict(self) -> dict[str, Any]:
        facts = {"train_images": self.train, "C": self.fitted.c, "converged": self.fitted.converged}
        return {"vectors": self.kind, "model": self.model, **facts, **asdict(self.accuracy)}


def evaluate_linear_probe(
    train: LabeledDataset, test: LabeledDataset, models: Sequence[EvaluatedModel], *, progress: PartProgressCallback
) -> TableReport:
    """Measure the accuracy on `test` of a probe fitted to `train`, for token weights and for dense vectors of each model.

    Raises:
        UsageError: If the sets have no class in common, or no image is readable.
        MissingExtra: If scikit-learn isn't installed.
        ModelError: If the first model fails.
    """
    start = time.perf_counter()
    label_of_class = {name: label for label, name in enumerate(train.classes)}
    unknown_classes = [name for name in test.classes if name not in label_of_class]
    if len(unknown_classes) == len(test.classes):
        raise DatasetError(
            f"no class of {test.name} is also in {train.name}: {', '.join(test.classes[:3])} ...",
            "Both folders must contain the same classes: FOLDER/train/<class> and FOLDER/test/<class>.",
        )
    problems = [f"{test.name}/{name}: not a class of the training set" for name in unknown_classes]

    def measure_model(model: EvaluatedModel) -> list[_Row]:
        train_images = encode_images(train.locators, model, progress)
        test_images = encode_images(test.locators, model, progress)
        problems.extend([*list_skipped_images(train, train_images), *list_skipped_images(test, test_images)])
        labels = [train.labels[position] for position in train_images.kept]
        test_labels = [label_of_class.get(test.classes[test.labels[position]], -1) for position in test_images.kept]
        trained_labels = set(labels)
        known_rows = [row for row, label in enumerate(test_labels) if label in trained_labels]
        if not known_rows or len(trained_labels) < 2:
            raise DatasetError(
                "too few readable images: at least two training classes, and a test image of one of them, are needed"
            )
        known_labels = [test_labels[row] for row in known_rows]
        return [
            _build_row(kind, model, rows, labels, tests[known_rows], known_labels)
            for kind, rows, tests in _iterate_kinds(train_images.vectors, test_images.vectors)
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


def _build_row(kind: str, model: EvaluatedModel, rows: Any, labels: list[int], tests: Any, test_labels: list[int]) -> _Row:  # noqa: ANN401
    fitted = fit_probe(rows, labels)
    column_of_label = {label: column for column, label in enumerate(fitted.model.classes_.tolist())}
    accuracy = compute_accuracy(fitted.compute_scores(tests), [column_of_label[label] for label in test_labels])
    return _Row(kind=kind, model=model.label, train=len(labels), accuracy=accuracy, fitted=fitted)
