"""Validation during training, spread over the workers: recall by exact scores, and zero-shot classification.

Each worker encodes every n-th batch, and gets the rows of the others: batches, and so results, are those of one worker.

Shape suffixes: N images, M texts, E dimensions of the compared vectors, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from stair_es.eval.metrics import RECALL_CUTS, compute_ranks
from stair_es.eval.zero_shot import compute_accuracy
from stair_es.model.stair.configuration import TextMask
from stair_es.model.stair.modeling import StairModel
from stair_es.training.config.schema import ValidationConfig
from stair_es.training.data.collate import ImageLoader, TextLoader
from stair_es.training.losses import normalize_rows
from stair_es.training.workers import WorkerGroup

MIN_IMAGES_TO_CHOOSE = 100
"""With fewer images in all sets, chance decides which recall is the best."""
_BATCH_SIZE = 64


class ValidationSet(Protocol):
    """A set to validate on."""

    @property
    def name(self) -> str:
        """Return the name in logs."""

    @property
    def image_count(self) -> int:
        """Return the number of images."""

    @property
    def is_labeled(self) -> bool:
        """Return whether the images have classes instead of captions."""

    def compute_metrics(self, model: StairModel, autocast: AbstractContextManager[Any], workers: WorkerGroup) -> dict[str, float]:
        """Compute the metrics by name, the same on each worker."""


@dataclass(frozen=True, kw_only=True)
class CaptionValidation:
    """Images, each with its first caption."""

    name: str
    captions: tuple[str, ...]
    images: ImageLoader
    texts: TextLoader
    mask: TextMask = "none"
    is_labeled = False

    @property
    def image_count(self) -> int:
        """Return the number of images."""
        return len(self.captions)

    def compute_metrics(self, model: StairModel, autocast: AbstractContextManager[Any], workers: WorkerGroup) -> dict[str, float]:
        """Compute `t2i@k` and `i2t@k` in 0..1, mean tokens per image and text, and how often an own token is in the top 20."""
        queries = tuple(dict.fromkeys(self.captions))
        with _set_eval_mode(model), torch.inference_mode(), autocast:
            images_NE = torch.cat(list(_encode_batches(partial(_encode_images, model, self.images), len(self.captions), workers)))
            encode_texts = partial(_encode_texts, model, self.texts, queries, self.mask)
            texts_ME = torch.cat(list(_encode_batches(encode_texts, len(queries), workers)))
        return {
            **_compute_recalls(images_NE, texts_ME, self.captions, queries),
            **self._measure_tokens(model, images_NE, texts_ME),
        }

    def _measure_tokens(self, model: StairModel, weights_NF: Tensor, weights_MF: Tensor) -> dict[str, float]:
        if not model.config.is_scored_by_tokens:
            return {}
        top_NK = weights_NF.topk(min(20, weights_NF.shape[1])).indices.numpy()
        weights_NK = weights_NF.gather(1, torch.from_numpy(top_NK)).numpy()
        tokens = model.tokens
        hits = []
        for caption, top, weights in zip(self.captions, top_NK, weights_NK, strict=True):
            present = {int(index) for index in tokens.encode([caption]).features_BL[0] if index >= 0}
            hits.append(bool(present & set(top[weights > 0].tolist())))
        return {
            "tokens": float((weights_NF > 0).sum(dim=1).float().mean()),
            "text_tokens": float((weights_MF > 0).sum(dim=1).float().mean()),
            "own@20": fmean(hits),
        }


@dataclass(frozen=True, kw_only=True)
class ClassValidation:
    """Images with classes, whose names in prompts are the texts: zero-shot classification as in `stair-es evaluate zero-shot`."""

    name: str
    labels: tuple[int, ...]
    """Class of each image."""
    class_texts: Sequence[Sequence[str]]
    """Texts of each class."""
    images: ImageLoader
    texts: TextLoader
    mask: TextMask = "none"
    is_labeled = True

    @property
    def image_count(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def compute_metrics(self, model: StairModel, autocast: AbstractContextManager[Any], workers: WorkerGroup) -> dict[str, float]:
        """Compute the accuracies `top1` and `top5` in 0..1."""
        texts = [text for each in self.class_texts for text in each]
        class_of_text = torch.tensor([number for number, each in enumerate(self.class_texts) for _ in each])
        with _set_eval_mode(model), torch.inference_mode(), autocast:
            classes_KE, begin = torch.zeros(0), 0
            for rows_BE in _encode_batches(partial(_encode_texts, model, self.texts, texts, self.mask), len(texts), workers):
                if not begin:
                    classes_KE = torch.zeros(len(self.class_texts), rows_BE.shape[1])
                classes_KE.index_add_(0, class_of_text[begin : begin + len(rows_BE)], normalize_rows(rows_BE))
                begin += len(rows_BE)
            unit_KE = normalize_rows(classes_KE)

            def score_images(batch: range) -> Tensor:
                return _encode_images(model, self.images, batch) @ unit_KE.T

            scores_NK = torch.cat(list(_encode_batches(score_images, len(self.labels), workers))).numpy().astype(np.float64)
        accuracy = compute_accuracy(scores_NK, self.labels)
        return {"top1": accuracy.top1, "top5": accuracy.top5}


def _encode_batches(encode: Callable[[range], Tensor], count: int, workers: WorkerGroup) -> Iterator[Tensor]:
    """Yield the rows of all items, in order and in batches of all workers; each of these encodes one batch at a time."""
    for begin in range(0, count, _BATCH_SIZE * workers.count):
        own = begin + workers.rank * _BATCH_SIZE
        batch = range(min(own, count), min(own + _BATCH_SIZE, count))
        # Without items of its own, a worker encodes one to know the width; its rows are cut off below.
        rows_BE = encode(batch or range(1))
        padded_BE = torch.zeros(_BATCH_SIZE, rows_BE.shape[1])
        padded_BE[: len(rows_BE)] = rows_BE
        yield workers.gather_rows(padded_BE)[: count - begin]


def _encode_images(model: StairModel, loader: ImageLoader, batch: range) -> Tensor:
    images, unreadable = loader.load_batch(batch, [0] * len(batch))
    vectors = _select_vectors(model, model.encode_images(images.to(model.log_scale.device)))
    vectors[unreadable] = 0.0  # counted as never found
    return vectors


def _encode_texts(model: StairModel, loader: TextLoader, texts: Sequence[str], mask: TextMask, batch: range) -> Tensor:
    loaded = loader.load_batch([texts[item] for item in batch]).to(model.log_scale.device)
    return _select_vectors(model, model.encode_texts(loaded, mask=mask))


@contextmanager
def _set_eval_mode(model: StairModel) -> Iterator[None]:
    """Disable dropout within the context. Afterwards restore the mode of each part: frozen parts stay in evaluation mode."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _select_vectors(model: StairModel, output: Any) -> Tensor:  # noqa: ANN401  an Out
    vectors: Tensor = output.weights_BF if model.config.is_scored_by_tokens else output.dense_BE
    cosine = not model.config.is_scored_by_tokens or model.config.similarity == "cosine"
    return (normalize_rows(vectors.float()) if cosine else vectors.float()).cpu()


def _compute_recalls(images_NE: Tensor, texts_ME: Tensor, captions: Sequence[str], queries: Sequence[str]) -> dict[str, float]:
    scores_MN = (texts_ME @ images_NE.T).numpy().astype(np.float64)
    row_of_query = {text: row for row, text in enumerate(queries)}
    images_of_row: dict[int, list[int]] = {}
    for image, caption in enumerate(captions):
        images_of_row.setdefault(row_of_query[caption], []).append(image)
    to_image = [compute_ranks(scores_MN[row], relevant)[0] for row, relevant in images_of_row.items()]
    to_text = [compute_ranks(scores_MN[:, image], [row_of_query[caption]])[0] for image, caption in enumerate(captions)]
    return {
        **{f"t2i@{cut}": fmean(rank <= cut for rank in to_image) for cut in RECALL_CUTS},
        **{f"i2t@{cut}": fmean(rank <= cut for rank in to_text) for cut in RECALL_CUTS},
    }


def compute_selection_metric(metrics: Mapping[str, Mapping[str, float]]) -> float:
    """Return the metric that chooses the checkpoint, by set: the mean recall at 1 of both directions.

    Sets with classes only count if there are no others, by their accuracy.
    """
    recalls = [(each["t2i@1"] + each["i2t@1"]) / 2 for each in metrics.values() if "t2i@1" in each]
    return fmean(recalls or [each["top1"] for each in metrics.values()])


def count_selection_images(sets: Sequence[ValidationSet]) -> int:
    """Return the number of images in the sets that choose the checkpoint."""
    with_captions = [dataset.image_count for dataset in sets if not dataset.is_labeled]
    return sum(with_captions or [dataset.image_count for dataset in sets])


def has_enough_images(sets: Sequence[ValidationSet]) -> bool:
    """Return whether there are enough images to choose a checkpoint, and the end of the training, by their metric."""
    return count_selection_images(sets) >= MIN_IMAGES_TO_CHOOSE


def warn_of_few_images(sets: Sequence[ValidationSet], config: ValidationConfig, on_message: Callable[[str], None]) -> None:
    """Say so if a choice is configured, but the sets have too few images for it."""
    if sets and (config.keep == "best" or config.patience) and not has_enough_images(sets):
        on_message(
            f"{count_selection_images(sets)} images for validation are too few to choose a checkpoint by"
            f" ({MIN_IMAGES_TO_CHOOSE} are needed): the last one is kept, and training does not stop early"
        )
