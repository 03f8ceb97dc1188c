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

from stair_es.eval.metrics import CUTS, ranks
from stair_es.model.stair import Stair
from stair_es.model.stair_config import Mask
from stair_es.training.examples import Images, Texts
from stair_es.training.losses import unit

_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Validation:
    """A validation set: images, each with its first caption."""

    name: str
    captions: tuple[str, ...]
    images: Images
    texts: Texts
    mask: Mask = "none"

    def recalls(self, model: Stair, narrow: AbstractContextManager[Any]) -> dict[str, float]:
        """Compute `t2i@k` and `i2t@k` in 0..1, the mean number of tokens per image, and how often an own token is in the top 20.

        Args:
            model: The model.
            narrow: Autocast context.
        """
        asked = tuple(dict.fromkeys(self.captions))
        with _evaluating(model), torch.inference_mode(), narrow:
            seen, read = self._images(model), self._texts(model, asked)
        return {**_recalls(seen, read, self.captions, asked), **self._words(model, seen)}

    def _images(self, model: Stair) -> Tensor:
        rows = []
        for begin in range(0, len(self.captions), _AT_ONCE):
            items = range(begin, min(begin + _AT_ONCE, len(self.captions)))
            images, bad = self.images.batch(items, [0] * len(items))
            found = _compared(model, model.encode_images(images.to(model.log_scale.device)))
            found[bad] = 0.0  # counted as never found
            rows.append(found)
        return torch.cat(rows)

    def _texts(self, model: Stair, asked: Sequence[str]) -> Tensor:
        rows = []
        for begin in range(0, len(asked), _AT_ONCE):
            texts = self.texts.batch(asked[begin : begin + _AT_ONCE]).to(model.log_scale.device)
            rows.append(_compared(model, model.encode_texts(texts, mask=self.mask)))
        return torch.cat(rows)

    def _words(self, model: Stair, seen_NF: Tensor) -> dict[str, float]:
        if not model.config.scores_words:
            return {}
        best_NK = seen_NF.topk(min(20, seen_NF.shape[1])).indices.numpy()
        weights_NK = seen_NF.gather(1, torch.from_numpy(best_NK)).numpy()
        tokens = model.tokens
        hits = []
        for caption, best, weights in zip(self.captions, best_NK, weights_NK, strict=True):
            own = {int(place) for place in tokens.encode([caption]).places_BL[0] if place >= 0}
            hits.append(bool(own & set(best[weights > 0].tolist())))
        return {"words": float((seen_NF > 0).sum(dim=1).float().mean()), "own@20": fmean(hits)}


@contextmanager
def _evaluating(model: Stair) -> Iterator[None]:
    """Disable dropout within the context. Afterwards restore the mode of each part: frozen parts stay in evaluation mode."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _compared(model: Stair, out: Any) -> Tensor:  # noqa: ANN401  an Out
    found: Tensor = out.weights_BF if model.config.scores_words else out.dense_BE
    cosine = not model.config.scores_words or model.config.similarity == "cosine"
    return (unit(found.float()) if cosine else found.float()).cpu()


def _recalls(seen_NE: Tensor, read_ME: Tensor, captions: Sequence[str], asked: Sequence[str]) -> dict[str, float]:
    scores_MN = (read_ME @ seen_NE.T).numpy().astype(np.float64)
    place = {text: row for row, text in enumerate(asked)}
    owners: dict[int, list[int]] = {}
    for image, caption in enumerate(captions):
        owners.setdefault(place[caption], []).append(image)
    to_image = [ranks(scores_MN[row], right)[0] for row, right in owners.items()]
    to_text = [ranks(scores_MN[:, image], [place[caption]])[0] for image, caption in enumerate(captions)]
    return {
        **{f"t2i@{cut}": fmean(rank <= cut for rank in to_image) for cut in CUTS},
        **{f"i2t@{cut}": fmean(rank <= cut for rank in to_text) for cut in CUTS},
    }


def overall(found: Mapping[str, Mapping[str, float]]) -> float:
    """Return the metric for early stopping: the mean over the sets of recall at 1 in both directions."""
    return fmean((each["t2i@1"] + each["i2t@1"]) / 2 for each in found.values())
