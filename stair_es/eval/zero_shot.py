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
from typing import Any, TypeVar

import numpy as np

from stair_es.errors import ConfigError
from stair_es.eval.bag_of_words import normalize_vector
from stair_es.eval.datasets.image_folder import LabeledDataset
from stair_es.eval.encode import EncodedVectors, ReadableImages, encode_images, encode_texts
from stair_es.eval.metrics import DenseIndex, Doubles, InvertedIndex, compute_ranks
from stair_es.eval.models import EvaluatedModel, run_for_each_model
from stair_es.eval.tables import ReportTable, TableReport, format_percent
from stair_es.types import Floats, PartProgressCallback, SparseVector

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

    Raises:
        UsageError: If a prompt has no `{}`.
    """
    for prompt in prompts:
        if "{}" not in prompt:
            raise ConfigError(
                f"the prompt {prompt!r} has no placeholder for the name", "Write {} where the name goes: a photo of a {}."
            )
    return [[prompt.replace("{}", name) for name in class_names for prompt in prompts] for class_names in names]


def average_token_vectors(vectors: Sequence[SparseVector], sizes: Sequence[int]) -> list[SparseVector]:
    """Return a vector per class: the mean of its texts' unit vectors, scaled to length 1."""
    classes = []
    for part in _split_by_sizes(vectors, sizes):
        weights_of_token = defaultdict[str, list[float]](list)
        for vector in part:
            for token, weight in normalize_vector(vector):
                weights_of_token[token].append(weight)
        classes.append(
            SparseVector.from_pairs((token, math.fsum(weights) / len(part)) for token, weights in weights_of_token.items())
        )
    return [normalize_vector(vector) for vector in classes]


def average_dense_vectors(vectors_ND: Floats, sizes: Sequence[int]) -> Floats:
    """Return dense vectors of classes [K, D]: the mean of their texts' unit vectors, scaled to length 1."""
    rows = []
    for part in _split_by_sizes(list(vectors_ND.astype(np.float64)), sizes):
        rows.append(_scale_row(np.mean([_scale_row(row_D) for row_D in part], axis=0)))
    classes_KD: Floats = np.stack(rows).astype(np.float32)
    return classes_KD


def _scale_row(row_D: Doubles) -> Doubles:
    return row_D / max(float(np.linalg.norm(row_D)), 1e-12)


def score_by_tokens(images: Sequence[SparseVector], classes: Sequence[SparseVector]) -> Iterable[Doubles]:
    """Return the dot products [K] of each image, lazily."""
    postings = InvertedIndex(classes)
    return map(postings.compute_scores, images)


def score_by_vectors(images_ND: Floats, classes_KD: Floats) -> Iterable[Doubles]:
    """Return the dot products [K] of each image, lazily."""
    return map(DenseIndex(classes_KD).compute_scores, images_ND)


def compute_accuracy(scores_NK: Iterable[Doubles], labels: Sequence[int]) -> ClassAccuracy:
    """Compute the accuracy; a class with the same score as a wrong one is ranked after it.

    Args:
        scores_NK: Scores of the classes, image by image; at least one image.
        labels: Right class of each image.
    """
    ranks = [compute_ranks(scores_K, [label])[0] for scores_K, label in zip(scores_NK, labels, strict=True)]
    correct = defaultdict[int, list[bool]](list)
    for rank, label in zip(ranks, labels, strict=True):
        correct[label].append(rank <= 1)
    return ClassAccuracy(
        images=len(ranks),
        top1=fmean(rank <= 1 for rank in ranks),
        top5=fmean(rank <= 5 for rank in ranks),
        mean_class=fmean(fmean(each) for each in correct.values()),
    )


def _split_by_sizes(vectors: Sequence[_T], sizes: Sequence[int]) -> Iterator[Sequence[_T]]:
    start = 0
    for size in sizes:
        yield vectors[start : start + size]
        start += size


_HEAD = ("vectors", "model", "top-1", "top-5", "mean per class", "images")


def evaluate_zero_shot(
    labeled: LabeledDataset, models: Sequence[EvaluatedModel], prompts: Sequence[str], *, progress: PartProgressCallback
) -> TableReport:
    """Measure the accuracy of each model, by token weights and by dense vectors.

    Raises:
        UsageError: If no image is readable, or a prompt has no placeholder.
        ModelError: If the first model fails.
    """
    start = time.perf_counter()
    texts = fill_prompts(labeled.names, prompts)
    problems: list[str] = []
    remarks: list[str] = []
    all_texts, sizes = [text for class_texts in texts for text in class_texts], [len(class_texts) for class_texts in texts]

    def measure_model(model: EvaluatedModel) -> list[tuple[str, str, ClassAccuracy]]:
        readable = encode_images(labeled.locators, model, progress)
        text_vectors = encode_texts(all_texts, model, progress)
        problems.extend(list_skipped_images(labeled, readable))
        labels = [labeled.labels[position] for position in readable.kept]
        rows = []
        for kind, scores_NK, empty in _score_kinds(readable.vectors, text_vectors, sizes):
            rows.append((kind, model.label, compute_accuracy(scores_NK, labels)))
            if empty:
                remarks.append(f"{kind} of {model.label}: {empty} classes have no known token, and are never found")
        return rows

    rows = run_for_each_model(models, measure_model, problems)
    return TableReport(
        title=f"{labeled.name}: {labeled.describe_size()}",
        about=f"Zero-shot, {len(prompts)} prompts, ensembled; in percent. Equal scores count against the model.",
        tables=(ReportTable(head=_HEAD, rows=tuple(_format_cells(*row) for row in rows)),),
        values=_build_values(labeled, prompts, rows),
        remarks=tuple(remarks),
        problems=tuple(dict.fromkeys(problems)),
        seconds=time.perf_counter() - start,
    )


def list_skipped_images(labeled: LabeledDataset, readable: ReadableImages) -> list[str]:
    """List the skipped images of a dataset, and why."""
    return [f"{labeled.files[position]}: {reason}" for position, reason in readable.problems.items()]


def _score_kinds(
    images: EncodedVectors, texts: EncodedVectors, sizes: Sequence[int]
) -> Iterable[tuple[str, Iterable[Doubles], int]]:
    """Yield the kind of the vectors, the scores [K] of each image, and the number of classes without a vector."""
    if images.sparse is not None and texts.sparse is not None:
        classes = average_token_vectors(texts.sparse, sizes)
        yield "tokens", score_by_tokens(images.sparse, classes), sum(not len(each) for each in classes)
    if images.dense is not None and texts.dense is not None:
        yield "dense", score_by_vectors(images.dense, average_dense_vectors(texts.dense, sizes)), 0


def _format_cells(kind: str, model: str, accuracy: ClassAccuracy) -> tuple[str, ...]:
    shares = (accuracy.top1, accuracy.top5, accuracy.mean_class)
    return (kind, model, *map(format_percent, shares), str(accuracy.images))


def _build_values(
    labeled: LabeledDataset, prompts: Sequence[str], rows: Sequence[tuple[str, str, ClassAccuracy]]
) -> dict[str, Any]:
    return {
        "dataset": labeled.name,
        "images": len(labeled.files),
        "classes": {name: list(names) for name, names in zip(labeled.classes, labeled.names, strict=True)},
        "prompts": list(prompts),
        "rows": [{"vectors": kind, "model": model, **asdict(accuracy)} for kind, model, accuracy in rows],
    }
