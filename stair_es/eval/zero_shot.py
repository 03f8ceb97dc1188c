"""Zero-shot classification: a class is the embedding of its names in prompts, an image belongs to the nearest class.

Prompts are ensembled as in CLIP (Radford et al., 2021, section 3.1.4): the mean of the unit vectors of a class's texts.

Shape suffixes: N images, K classes, D dimensions.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from stair_es.errors import UsageError
from stair_es.eval.bag_of_words import normalize_vector
from stair_es.eval.encode import EncodedVectors, ReadableImages, encode_images, encode_texts
from stair_es.eval.exact_scores import DenseIndex, InvertedIndex
from stair_es.eval.metrics import Doubles, compute_ranks
from stair_es.eval.models import EvaluatedModel, run_for_each_model
from stair_es.eval.tables import ReportTable, TableReport, format_percent
from stair_es.types import Floats, PartProgressCallback, SparseVector

if TYPE_CHECKING:
    from stair_es.eval.datasets.image_folder import LabeledDataset

_T = TypeVar("_T")

DEFAULT_PROMPTS = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a close-up photo of a {}.",
    "a photo of one {}.",
    "a drawing of a {}.",
    "a {} outdoors.",
    "{}",
)
"""Default prompts; CLIP's 80 for ImageNet can be given as a file."""


@dataclass(frozen=True, kw_only=True)
class ClassAccuracy:
    """Classification accuracy, 0..1."""

    images: int
    top1: float
    top5: float
    """1 with at most 5 classes, except for ties."""
    mean_class: float
    """Mean of the per-class top-1 accuracies, so that large classes don't dominate."""


def fill_prompts(names: Sequence[Sequence[str]], prompts: Sequence[str]) -> list[list[str]]:
    """Return the texts of each class: every name in every prompt.

    Args:
        names: Names of each class.
        prompts: Prompts with the placeholder `{}`.

    Raises:
        UsageError: If a prompt has no `{}`.
    """
    for prompt in prompts:
        if "{}" not in prompt:
            raise UsageError(
                f"the prompt {prompt!r} has no placeholder for the name", "Write {} where the name goes: a photo of a {}."
            )
    return [[prompt.replace("{}", name) for name in own for prompt in prompts] for own in names]


def average_token_vectors(vectors: Sequence[SparseVector], sizes: Sequence[int]) -> list[SparseVector]:
    """Return a vector per class: the mean of its texts' unit vectors, scaled to length 1.

    Args:
        vectors: Vectors of the texts, class by class.
        sizes: Number of texts of each class.
    """
    classes = []
    for part in _split_by_sizes(vectors, sizes):
        total = defaultdict[str, list[float]](list)
        for vector in part:
            for word, weight in normalize_vector(vector):
                total[word].append(weight)
        classes.append(SparseVector.from_pairs((word, math.fsum(weights) / len(part)) for word, weights in total.items()))
    return [normalize_vector(each) for each in classes]


def average_dense_vectors(vectors_ND: Floats, sizes: Sequence[int]) -> Floats:
    """Return dense vectors of classes [K, D]: the mean of their texts' unit vectors, scaled to length 1.

    Args:
        vectors_ND: Vectors of the texts, class by class.
        sizes: Number of texts of each class.
    """
    rows = []
    for part in _split_by_sizes(list(vectors_ND.astype(np.float64)), sizes):
        rows.append(_scale_row(np.mean([_scale_row(row_D) for row_D in part], axis=0)))
    classes_KD: Floats = np.stack(rows).astype(np.float32)
    return classes_KD


def _scale_row(row_D: Doubles) -> Doubles:
    return row_D / max(float(np.linalg.norm(row_D)), 1e-12)


def score_by_tokens(images: Sequence[SparseVector], classes: Sequence[SparseVector]) -> Iterable[Doubles]:
    """Return the dot products [K] of each image, lazily.

    Args:
        images: Vectors of the images.
        classes: Vectors of the classes.
    """
    postings = InvertedIndex(classes)
    return map(postings.compute_scores, images)


def score_by_vectors(images_ND: Floats, classes_KD: Floats) -> Iterable[Doubles]:
    """Return the dot products [K] of each image, lazily.

    Args:
        images_ND: Vectors of the images.
        classes_KD: Vectors of the classes.
    """
    return map(DenseIndex(classes_KD).compute_scores, images_ND)


def compute_accuracy(scores_NK: Iterable[Doubles], labels: Sequence[int]) -> ClassAccuracy:
    """Compute the accuracy; a class with the same score as a wrong one is ranked after it.

    Args:
        scores_NK: Scores of the classes, image by image; at least one image.
        labels: Right class of each image.
    """
    found = [compute_ranks(scores_K, [label])[0] for scores_K, label in zip(scores_NK, labels, strict=True)]
    own = defaultdict[int, list[bool]](list)
    for rank, label in zip(found, labels, strict=True):
        own[label].append(rank <= 1)
    return ClassAccuracy(
        images=len(found),
        top1=fmean(rank <= 1 for rank in found),
        top5=fmean(rank <= 5 for rank in found),
        mean_class=fmean(fmean(each) for each in own.values()),
    )


def _split_by_sizes(vectors: Sequence[_T], sizes: Sequence[int]) -> Iterator[Sequence[_T]]:
    start = 0
    for size in sizes:
        yield vectors[start : start + size]
        start += size


_HEAD = ("vectors", "model", "top-1", "top-5", "mean per class", "images")


def evaluate_zero_shot(
    labelled: LabeledDataset, models: Sequence[EvaluatedModel], prompts: Sequence[str], *, progress: PartProgressCallback
) -> TableReport:
    """Measure the accuracy of each model, by token weights and by dense vectors.

    Args:
        labelled: Images with classes.
        models: Models to compare.
        prompts: Prompts for the class names.
        progress: Progress callback.

    Raises:
        UsageError: If no image is readable, or a prompt has no placeholder.
        ModelError: If the first model fails.
    """
    start = time.perf_counter()
    texts = fill_prompts(labelled.names, prompts)
    problems: list[str] = []
    remarks: list[str] = []
    flat, sizes = [text for own in texts for text in own], [len(own) for own in texts]

    def measure_model(model: EvaluatedModel) -> list[tuple[str, str, ClassAccuracy]]:
        pictures = encode_images(labelled.locators, model, progress)
        read = encode_texts(flat, model, progress)
        problems.extend(list_skipped_images(labelled, pictures))
        labels = [labelled.labels[position] for position in pictures.kept]
        rows = []
        for kind, scores_NK, silent in _score_kinds(pictures.vectors, read, sizes):
            rows.append((kind, model.label, compute_accuracy(scores_NK, labels)))
            if silent:
                remarks.append(f"{kind} of {model.label}: {silent} classes have no known token, and are never found")
        return rows

    rows = run_for_each_model(models, measure_model, problems)
    return TableReport(
        title=f"{labelled.name}: {labelled.describe_size()}",
        about=f"Zero-shot, {len(prompts)} prompts, ensembled; in percent. Equal scores count against the model.",
        tables=(ReportTable(head=_HEAD, rows=tuple(_format_cells(*row) for row in rows)),),
        values=_build_values(labelled, prompts, rows),
        remarks=tuple(remarks),
        problems=tuple(dict.fromkeys(problems)),
        seconds=time.perf_counter() - start,
    )


def list_skipped_images(labelled: LabeledDataset, pictures: ReadableImages) -> list[str]:
    """List the skipped images of a dataset, and why.

    Args:
        labelled: The dataset.
        pictures: Its readable images.
    """
    return [f"{labelled.files[position]}: {reason}" for position, reason in pictures.problems.items()]


def _score_kinds(
    images: EncodedVectors, texts: EncodedVectors, sizes: Sequence[int]
) -> Iterable[tuple[str, Iterable[Doubles], int]]:
    """Yield the kind of the vectors, the scores [K] of each image, and the number of classes without a vector."""
    if images.sparse is not None and texts.sparse is not None:
        classes = average_token_vectors(texts.sparse, sizes)
        yield "tokens", score_by_tokens(images.sparse, classes), sum(not len(each) for each in classes)
    if images.dense is not None and texts.dense is not None:
        yield "dense", score_by_vectors(images.dense, average_dense_vectors(texts.dense, sizes)), 0


def _format_cells(kind: str, model: str, found: ClassAccuracy) -> tuple[str, ...]:
    shares = (found.top1, found.top5, found.mean_class)
    return (kind, model, *map(format_percent, shares), str(found.images))


def _build_values(
    labelled: LabeledDataset, prompts: Sequence[str], rows: Sequence[tuple[str, str, ClassAccuracy]]
) -> dict[str, Any]:
    return {
        "dataset": labelled.name,
        "images": len(labelled.files),
        "classes": {name: list(names) for name, names in zip(labelled.classes, labelled.names, strict=True)},
        "prompts": list(prompts),
        "rows": [{"vectors": kind, "model": model, **asdict(found)} for kind, model, found in rows],
    }
