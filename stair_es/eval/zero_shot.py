"""Zero-shot classification: a class is what a text encoder makes of its names in prompts, an image belongs to the nearest. Pure.

Prompts are ensembled as CLIP does it (Radford et al., 2021, section 3.1.4): the mean of the unit vectors of a class's texts.

Shape suffixes: N images, K classes, D dimensions.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

import numpy as np

from stair_es.errors import UsageError
from stair_es.eval.exact import DenseGallery, Postings
from stair_es.eval.metrics import Doubles, ranks
from stair_es.eval.words import unit
from stair_es.types import Floats, SparseVector

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
        mean_D = np.mean([row_D / max(float(np.linalg.norm(row_D)), 1e-12) for row_D in part], axis=0)
        rows.append(mean_D / max(float(np.linalg.norm(mean_D)), 1e-12))
    classes_KD: Floats = np.stack(rows).astype(np.float32)
    return classes_KD


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
