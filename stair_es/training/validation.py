"""Recall on validation sets during training: exact scores, both directions.

Shape suffixes: N images, M texts, E dimensions of the compared vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stair_es.eval.metrics import RECALL_CUTS, compute_ranks
from stair_es.model.stair.configuration import TextMask
from stair_es.model.stair.modeling import StairModel
from stair_es.training.config.schema import ValidationConfig
from stair_es.training.data.collate import ImageLoader, TextLoader
from stair_es.training.losses import normalize_rows

MIN_IMAGES_TO_CHOOSE = 100
"""With fewer images in all sets, chance decides which recall is the best."""
_BATCH_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class ValidationSet:
    """A validation set: images, each with its first caption."""

    name: str
    captions: tuple[str, ...]
    images: ImageLoader
    texts: TextLoader
    mask: TextMask = "none"

    def compute_recalls(self, model: StairModel, autocast: AbstractContextManager[Any]) -> dict[str, float]:
        """Compute `t2i@k` and `i2t@k` in 0..1, mean tokens per image, and how often an own token is in the top 20."""
        queries = tuple(dict.fromkeys(self.captions))
        with _set_eval_mode(model), torch.inference_mode(), autocast:
            image_vectors, text_vectors = self._encode_images(model), self._encode_texts(model, queries)
        return {
            **_compute_recalls(image_vectors, text_vectors, self.captions, queries),
            **self._measure_tokens(model, image_vectors),
        }

    def _encode_images(self, model: StairModel) -> Tensor:
        rows = []
        for begin in range(0, len(self.captions), _BATCH_SIZE):
            items = range(begin, min(begin + _BATCH_SIZE, len(self.captions)))
            images, unreadable = self.images.load_batch(items, [0] * len(items))
            vectors = _select_vectors(model, model.encode_images(images.to(model.log_scale.device)))
            vectors[unreadable] = 0.0  # counted as never found
            rows.append(vectors)
        return torch.cat(rows)

    def _encode_texts(self, model: StairModel, queries: Sequence[str]) -> Tensor:
        rows = []
        for begin in range(0, len(queries), _BATCH_SIZE):
            texts = self.texts.load_batch(queries[begin : begin + _BATCH_SIZE]).to(model.log_scale.device)
            rows.append(_select_vectors(model, model.encode_texts(texts, mask=self.mask)))
        return torch.cat(rows)

    def _measure_tokens(self, model: StairModel, weights_NF: Tensor) -> dict[str, float]:
        if not model.config.is_scored_by_tokens:
            return {}
        top_NK = weights_NF.topk(min(20, weights_NF.shape[1])).indices.numpy()
        weights_NK = weights_NF.gather(1, torch.from_numpy(top_NK)).numpy()
        tokens = model.tokens
        hits = []
        for caption, top, weights in zip(self.captions, top_NK, weights_NK, strict=True):
            present = {int(index) for index in tokens.encode([caption]).features_BL[0] if index >= 0}
            hits.append(bool(present & set(top[weights > 0].tolist())))
        return {"tokens": float((weights_NF > 0).sum(dim=1).float().mean()), "own@20": fmean(hits)}


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


def compute_mean_recall(recalls: Mapping[str, Mapping[str, float]]) -> float:
    """Return the metric for early stopping: the mean over the sets of recall at 1 in both directions."""
    return fmean((each["t2i@1"] + each["i2t@1"]) / 2 for each in recalls.values())


def has_enough_images(sets: Sequence[ValidationSet]) -> bool:
    """Return whether the sets have enough images to choose a checkpoint, and the end of the training, by their recall."""
    return sum(len(dataset.captions) for dataset in sets) >= MIN_IMAGES_TO_CHOOSE


def warn_of_few_images(sets: Sequence[ValidationSet], config: ValidationConfig, on_message: Callable[[str], None]) -> None:
    """Say so if a choice is configured, but the sets have too few images for it."""
    images = sum(len(dataset.captions) for dataset in sets)
    if images and (config.keep == "best" or config.patience) and not has_enough_images(sets):
        on_message(
            f"{images} images for validation are too few to choose a checkpoint by ({MIN_IMAGES_TO_CHOOSE} are needed):"
            " the last one is kept, and training does not stop early"
        )
