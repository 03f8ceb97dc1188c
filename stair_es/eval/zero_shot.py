"""Zero-shot classification: a class is what a text encoder makes of its names in prompts, an image belongs to the nearest. Pure.

Prompts are ensembled as CLIP does it (Radford et al., 2021, section 3.1.4): the mean of the unit vectors of a class's texts.

Shape suffixes: N images, K classes, D dimensions.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from stair_es.errors import UsageError
from stair_es.eval.contenders import Contender, in_turn
from stair_es.eval.encode import Pictures, Progress, Vectors, encode_images, encode_texts
from stair_es.eval.exact import DenseGallery, Postings
from stair_es.eval.metrics import Doubles, ranks
from stair_es.eval.tables import Report, Table, percent
from stair_es.eval.words import unit
from stair_es.types import Floats, SparseVector

if TYPE_CHECKING:
    from stair_es.eval.class_folders import LabelledSet

_T = TypeVar("_T")

PROMPTS = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a close-up photo of a {}.",
    "a photo of one {}.",
    "a drawing of a {}.",
    "a {} outdoors.",
    "{}",
)
"""Our own; CLIP's 80 for ImageNet can be given as a file."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Shares, 0..1."""

    images: int
    top1: float
    top5: float
    """1 where there are no more than 5 classes, but for ties."""
    mean_class: float
    """Mean over the classes of the top-1 accuracy of each: large classes don't outvote small ones."""


def texts_of(names: Sequence[Sequence[str]], prompts: Sequence[str]) -> list[list[str]]:
    """The texts of each class: every name in every prompt.

    Raises:
        UsageError: A prompt has no `{}`.
    """
    for prompt in prompts:
        if "{}" not in prompt:
            raise UsageError(f"the prompt {prompt!r} has no place for the name", "Write {} where the name goes: a photo of a {}.")
    return [[prompt.replace("{}", name) for name in own for prompt in prompts] for own in names]


def word_classes(vectors: Sequence[SparseVector], sizes: Sequence[int]) -> list[SparseVector]:
    """A vector for each class: the mean of its texts' unit vectors. Texts follow class by class, `sizes` of them each."""
    classes = []
    for part in _parts(vectors, sizes):
        total = defaultdict[str, list[float]](list)
        for vector in part:
            for word, weight in unit(vector):
                total[word].append(weight)
        classes.append(SparseVector.from_pairs((word, math.fsum(weights) / len(part)) for word, weights in total.items()))
    return [unit(each) for each in classes]


def dense_classes(vectors_ND: Floats, sizes: Sequence[int]) -> Floats:
    """[K, D], the same of dense vectors; unit vectors again."""
    rows = []
    for part in _parts(list(vectors_ND.astype(np.float64)), sizes):
        rows.append(_scale_row(np.mean([_scale_row(row_D) for row_D in part], axis=0)))
    classes_KD: Floats = np.stack(rows).astype(np.float32)
    return classes_KD


def _scale_row(row_D: Doubles) -> Doubles:
    return row_D / max(float(np.linalg.norm(row_D)), 1e-12)


def word_scores(images: Sequence[SparseVector], classes: Sequence[SparseVector]) -> Iterable[Doubles]:
    """[K] dot products, image after image."""
    postings = Postings(classes)
    return map(postings.scores, images)


def dense_scores(images_ND: Floats, classes_KD: Floats) -> Iterable[Doubles]:
    """[K] dot products, image after image."""
    return map(DenseGallery(classes_KD).scores, images_ND)


def accuracy(scores_NK: Iterable[Doubles], labels: Sequence[int]) -> Accuracy:
    """Of the right classes. One that has the score of a wrong one comes after it.

    Args:
        scores_NK: Of the classes, image after image; at least one image.
        labels: The right class of each image.
    """
    found = [ranks(scores_K, [label])[0] for scores_K, label in zip(scores_NK, labels, strict=True)]
    own = defaultdict[int, list[bool]](list)
    for rank, label in zip(found, labels, strict=True):
        own[label].append(rank <= 1)
    return Accuracy(
        images=len(found),
        top1=fmean(rank <= 1 for rank in found),
        top5=fmean(rank <= 5 for rank in found),
        mean_class=fmean(fmean(each) for each in own.values()),
    )


def _parts(vectors: Sequence[_T], sizes: Sequence[int]) -> Iterator[Sequence[_T]]:
    start = 0
    for size in sizes:
        yield vectors[start : start + size]
        start += size


_HEAD = ("vectors", "model", "top-1", "top-5", "mean per class", "images")


def zero_shot(
    labelled: LabelledSet,
    models: Sequence[Contender],
    prompts: Sequence[str],
    *,
    say: Callable[[str], None],
    progress: Progress,
) -> Report:
    """The accuracy of each model, by its words and by its dense vectors.

    Raises:
        UsageError: Not one image can be read, or a prompt has no place for a name.
        ModelError: The first model fails.
    """
    start = time.perf_counter()
    texts = texts_of(labelled.names, prompts)
    problems: list[str] = []
    remarks: list[str] = []
    flat, sizes = [text for own in texts for text in own], [len(own) for own in texts]

    def work(model: Contender) -> list[tuple[str, str, Accuracy]]:
        pictures = encode_images(labelled.places, model, progress)
        read = encode_texts(flat, model, progress)
        problems.extend(unread(labelled, pictures))
        labels = [labelled.labels[position] for position in pictures.kept]
        rows = []
        for kind, scores_NK, silent in _scores(pictures.vectors, read, sizes):
            rows.append((kind, model.label, accuracy(scores_NK, labels)))
            if silent:
                remarks.append(f"{kind} of {model.label}: {silent} classes have no known word, and are never found")
        return rows

    rows = in_turn(models, work, problems, say)
    return Report(
        title=f"{labelled.name}: {labelled.about()}",
        about=f"Zero-shot, {len(prompts)} prompts, ensembled; in percent. Equal scores count against the model.",
        tables=(Table(head=_HEAD, rows=tuple(_cells(*row) for row in rows)),),
        values=_values(labelled, prompts, rows),
        remarks=tuple(remarks),
        problems=tuple(dict.fromkeys(problems)),
        seconds=time.perf_counter() - start,
    )


def unread(labelled: LabelledSet, pictures: Pictures) -> list[str]:
    """Why images of a set were left out."""
    return [f"{labelled.files[position]}: {reason}" for position, reason in pictures.problems.items()]


def _scores(images: Vectors, texts: Vectors, sizes: Sequence[int]) -> Iterable[tuple[str, Iterable[Doubles], int]]:
    """Kind of the vectors, [K] scores image after image, and how many classes have no vector."""
    if images.words is not None and texts.words is not None:
        classes = word_classes(texts.words, sizes)
        yield "words", word_scores(images.words, classes), sum(not len(each) for each in classes)
    if images.dense is not None and texts.dense is not None:
        yield "dense", dense_scores(images.dense, dense_classes(texts.dense, sizes)), 0


def _cells(kind: str, model: str, found: Accuracy) -> tuple[str, ...]:
    shares = (found.top1, found.top5, found.mean_class)
    return (kind, model, *map(percent, shares), str(found.images))


def _values(labelled: LabelledSet, prompts: Sequence[str], rows: Sequence[tuple[str, str, Accuracy]]) -> dict[str, Any]:
    return {
        "set": labelled.name,
        "images": len(labelled.files),
        "classes": {name: list(names) for name, names in zip(labelled.classes, labelled.names, strict=True)},
        "prompts": list(prompts),
        "rows": [{"vectors": kind, "model": model, **asdict(found)} for kind, model, found in rows],
    }
