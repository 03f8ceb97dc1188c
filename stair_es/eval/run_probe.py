"""`evaluate probe`: from two folders of classes to a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stair_es.errors import UsageError
from stair_es.eval.contenders import Contender, in_turn
from stair_es.eval.encode import Progress, Vectors, encode_images
from stair_es.eval.probe import Fitted, fit, matrices
from stair_es.eval.run_zero_shot import unread
from stair_es.eval.tables import Report, Table, percent
from stair_es.eval.zero_shot import Accuracy, accuracy

if TYPE_CHECKING:
    from stair_es.eval.class_folders import LabelledSet

_HEAD = ("vectors", "model", "top-1", "top-5", "mean per class", "train", "test", "C")


@dataclass(frozen=True, kw_only=True)
class _Row:
    kind: str
    model: str
    train: int
    found: Accuracy
    fitted: Fitted

    def cells(self) -> tuple[str, ...]:
        shares = (self.found.top1, self.found.top5, self.found.mean_class)
        return (
            self.kind,
            self.model,
            *map(percent, shares),
            str(self.train),
            str(self.found.images),
            f"{self.fitted.strength:g}",
        )

    def to_dict(self) -> dict[str, Any]:
        facts = {"train_images": self.train, "C": self.fitted.strength, "converged": self.fitted.converged}
        return {"vectors": self.kind, "model": self.model, **facts, **asdict(self.found)}


def probe(
    train: LabelledSet, test: LabelledSet, models: Sequence[Contender], *, say: Callable[[str], None], progress: Progress
) -> Report:
    """The accuracy on `test` of a probe fitted to `train`, for the words and for the dense vectors of each model.

    Raises:
        UsageError: The two have no class in common, or not one image can be read.
        MissingExtra: scikit-learn isn't installed.
        ModelError: The first model fails.
    """
    start = time.perf_counter()
    position = {name: label for label, name in enumerate(train.classes)}
    strange = [name for name in test.classes if name not in position]
    if len(strange) == len(test.classes):
        raise UsageError(
            f"no class of {test.name} is one of {train.name}: {', '.join(test.classes[:3])} ...",
            "Both folders must have the same folders in them: FOLDER/train/<class> and FOLDER/test/<class>.",
        )
    problems = [f"{test.name}/{name}: no such class to learn from" for name in strange]

    def work(model: Contender) -> list[_Row]:
        learnt = encode_images(train.places, model, progress)
        asked = encode_images(test.places, model, progress)
        problems.extend([*unread(train, learnt), *unread(test, asked)])
        labels = [train.labels[place] for place in learnt.kept]
        right = [position.get(test.classes[test.labels[place]], -1) for place in asked.kept]
        learnable = set(labels)
        known = [row for row, label in enumerate(right) if label in learnable]
        if not known or len(learnable) < 2:
            raise UsageError("what can be read is too little: two classes to learn from, and an image of one of them to test")
        wanted = [right[row] for row in known]
        return [
            _row(kind, model, rows, labels, tests[known], wanted) for kind, rows, tests in _kinds(learnt.vectors, asked.vectors)
        ]

    rows = in_turn(models, work, problems, say)
    return Report(
        title=f"{train.name} to {test.name}: {train.about()}; {test.about()}",
        about=(
            "Linear probe: logistic regression on vectors of images, C chosen on a fifth of the training images; in percent."
            " Equal scores count against the model."
        ),
        tables=(Table(head=_HEAD, rows=tuple(row.cells() for row in rows)),),
        values={"train": train.name, "test": test.name, "classes": list(train.classes), "rows": [row.to_dict() for row in rows]},
        remarks=tuple(f"{row.kind} of {row.model}: not converged" for row in rows if not row.fitted.converged),
        problems=tuple(dict.fromkeys(problems)),
        packages=("stair-es", "numpy", "scikit-learn"),
        seconds=time.perf_counter() - start,
    )


def _kinds(train: Vectors, test: Vectors) -> Iterator[tuple[str, Any, Any]]:
    if train.words is not None and test.words is not None:
        yield ("words", *matrices(train.words, test.words))
    if train.dense is not None and test.dense is not None:
        yield "dense", train.dense.astype(np.float64), test.dense.astype(np.float64)


def _row(kind: str, model: Contender, rows: Any, labels: list[int], tests: Any, wanted: list[int]) -> _Row:  # noqa: ANN401
    fitted = fit(rows, labels)
    places = {label: place for place, label in enumerate(fitted.model.classes_.tolist())}
    found = accuracy(fitted.scores(tests), [places[label] for label in wanted])
    return _Row(kind=kind, model=model.label, train=len(labels), found=found, fitted=fitted)
