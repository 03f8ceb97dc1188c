"""Recall on validation sets during training: exact scores, both directions.

Shape suffixes: N images, M texts, E dimensions of the compared vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from stair_es.training.data.collate import ImageLoader, TextLoader
from stair_es.training.losses import normalize_rows

_BATCH_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class ValidationSet:
    """A validation set: images, each with its first caption."""

    name: str
    captions: tuple[str, ...]
    images: ImageLoader
    texts: TextLoader
    mask: TextMask = "none"

    def compute_recalls(self, model: StairModel, narrow: AbstractContextManager[Any]) -> dict[str, float]:
        """Compute `t2i@k` and `i2t@k` in 0..1, the mean number of tokens per image, and how often an own token is in the top 20.

        Args:
            model: The model.
            narrow: Autocast context.
        """
        asked = tuple(dict.fromkeys(self.captions))
        with _set_eval_mode(model), torch.inference_mode(), narrow:
            seen, read = self._encode_images(model), self._encode_texts(model, asked)
        return {**_compute_recalls(seen, read, self.captions, asked), **self._measure_tokens(model, seen)}

    def _encode_images(self, model: StairModel) -> Tensor:
        rows = []
        for begin in range(0, len(self.captions), _BATCH_SIZE):
            items = range(begin, min(begin + _BATCH_SIZE, len(self.captions)))
            images, bad = self.images.load_batch(items, [0] * len(items))
            found = _select_vectors(model, model.encode_images(images.to(model.log_scale.device)))
            found[bad] = 0.0  # counted as never found
            rows.append(found)
        return torch.cat(rows)

    def _encode_texts(self, model: StairModel, asked: Sequence[str]) -> Tensor:
        rows = []
        for begin in range(0, len(asked), _BATCH_SIZE):
            texts = self.texts.load_batch(asked[begin : begin + _BATCH_SIZE]).to(model.log_scale.device)
            rows.append(_select_vectors(model, model.encode_texts(texts, mask=self.mask)))
        return torch.cat(rows)

    def _measure_tokens(self, model: StairModel, seen_NF: Tensor) -> dict[str, float]:
        if not model.config.is_scored_by_tokens:
            return {}
        best_NK = seen_NF.topk(min(20, seen_NF.shape[1])).indices.numpy()
        weights_NK = seen_NF.gather(1, torch.from_numpy(best_NK)).numpy()
        tokens = model.tokens
        hits = []
        for caption, best, weights in zip(self.captions, best_NK, weights_NK, strict=True):
            own = {int(place) for place in tokens.encode([caption]).places_BL[0] if place >= 0}
            hits.append(bool(own & set(best[weights > 0].tolist())))
        return {"tokens": float((seen_NF > 0).sum(dim=1).float().mean()), "own@20": fmean(hits)}


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


def _select_vectors(model: StairModel, out: Any) -> Tensor:  # noqa: ANN401  an Out
    found: Tensor = out.weights_BF if model.config.is_scored_by_tokens else out.dense_BE
    cosine = not model.config.is_scored_by_tokens or model.config.similarity == "cosine"
    return (normalize_rows(found.float()) if cosine else found.float()).cpu()


def _compute_recalls(seen_NE: Tensor, read_ME: Tensor, captions: Sequence[str], asked: Sequence[str]) -> dict[str, float]:
    scores_MN = (read_ME @ seen_NE.T).numpy().astype(np.float64)
    place = {text: row for row, text in enumerate(asked)}
    owners: dict[int, list[int]] = {}
    for image, caption in enumerate(captions):
        owners.setdefault(place[caption], []).append(image)
    to_image = [compute_ranks(scores_MN[row], right)[0] for row, right in owners.items()]
    to_text = [compute_ranks(scores_MN[:, image], [place[caption]])[0] for image, caption in enumerate(captions)]
    return {
        **{f"t2i@{cut}": fmean(rank <= cut for rank in to_image) for cut in RECALL_CUTS},
        **{f"i2t@{cut}": fmean(rank <= cut for rank in to_text) for cut in RECALL_CUTS},
    }


def compute_mean_recall(found: Mapping[str, Mapping[str, float]]) -> float:
    """Return the metric for early stopping: the mean over the sets of recall at 1 in both directions."""
    return fmean((each["t2i@1"] + each["i2t@1"]) / 2 for each in found.values())
