"""Score a checkpoint on a test set: whether the right item is among the first k for each query, and the quality of the tokens.

Shape suffixes: N images, M texts, E compared vector entries, F features.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stair_es.config.defaults import DataDir
from stair_es.eval.metrics import RECALL_CUTS, compute_ranks
from stair_es.model.stair.modeling import StairModel
from stair_es.model.stair.tokenizer import StairTokenizer
from stair_es.training.data import dataset, feature_cache
from stair_es.training.data.dataset import PairFile, ProblemCounter
from stair_es.training.data.transforms import NO_AUGMENTATION
from stair_es.training.losses import normalize_rows
from stair_es.types import ImageSpec

SPLITS = ("test_style", "test_concepts", "test_clipart", "test_drawings", "test_photos")
WORD_CUTS = (1, 5, 20)
_AT_ONCE = 128

Hits = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class SplitScores:
    """One checkpoint on one split."""

    t2i: dict[int, Hits]
    """Cut -> for each distinct text, whether a right image is among the first `cut`."""
    i2t: dict[int, Hits]
    words: tuple[float, float]
    """Mean number of tokens of an image and of a text; 0 for dense vectors."""
    own: dict[int, float]
    """Cut -> share of images with a caption word among the `cut` heaviest tokens; empty for dense vectors."""


@dataclass(frozen=True)
class Split:
    """A set of the small benchmark; an item is right if it has the concept of the query."""

    path: Path

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """Caption and concept of each image."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return [{"caption": row["captions"][0], "concept": row["concept"]} for row in map(json.loads, lines)]

    @cached_property
    def texts(self) -> dict[str, str]:
        """Each distinct caption and its concept."""
        return {row["caption"]: row["concept"] for row in self.rows}

    def score(self, model: StairModel) -> SplitScores:
        """Return the scores of a model."""
        model.eval()
        with torch.inference_mode():
            seen, weights_NF = self._encode_images(model)
            read, text_words = self._encode_texts(model)
        t2i, i2t = self.find_hits(seen, read)
        return SplitScores(
            t2i=t2i,
            i2t=i2t,
            words=(0.0 if weights_NF is None else float((weights_NF > 0).sum(dim=1).float().mean()), text_words),
            own={} if weights_NF is None else self._score_images_with_words(model.tokens, weights_NF),
        )

    def find_hits(self, images_NE: Tensor, texts_ME: Tensor) -> tuple[dict[int, Hits], dict[int, Hits]]:
        """Return for each cut the hits of each text among the images, and of each image among the texts.

        Args:
            images_NE: Vectors of the images, in the compared form.
            texts_ME: Vectors of the distinct texts.
        """
        scores_MN = (texts_ME @ images_NE.T).numpy().astype(np.float64)
        concepts, query_concepts = np.array([row["concept"] for row in self.rows]), np.array(list(self.texts.values()))
        to_image = [
            compute_ranks(scores_MN[row], np.flatnonzero(concepts == concept))[0] for row, concept in enumerate(query_concepts)
        ]
        to_text = [
            compute_ranks(scores_MN[:, image], np.flatnonzero(query_concepts == concept))[0]
            for image, concept in enumerate(concepts)
        ]
        return tuple({cut: np.array(ranks) <= cut for cut in RECALL_CUTS} for ranks in (to_image, to_text))  # type: ignore[return-value]

    def _encode_images(self, model: StairModel) -> tuple[Tensor, Tensor | None]:
        found = dataset.read_pairs([PairFile(path=self.path)])
        spec = ImageSpec(size_px=model.config.image.size_px)
        reader = feature_cache.PixelReader(pairs=found, spec=spec, augment=NO_AUGMENTATION, seed=0, problems=ProblemCounter())
        kept = feature_cache.cache_image_features(model, reader, 1, _get_cache_folder(), lambda what, done, total: None, 2)
        images, bad = kept.load_batch(range(len(found)), [0] * len(found))
        if bad or len(found) != len(self.rows):
            raise SystemExit(f"{self.path}: {len(bad)} images can't be read: build the sets again")
        out = model.encode_images(images)
        if model.config.is_scored_by_tokens:
            assert out.weights_BF is not None
            return _normalize(model, out.weights_BF), out.weights_BF
        assert out.dense_BE is not None
        return out.dense_BE, None

    def _encode_texts(self, model: StairModel) -> tuple[Tensor, float]:
        texts = list(self.texts)
        kept = feature_cache.CachedTextFeatures(model, texts, _get_cache_folder(), lambda what, done, total: None)
        rows, words = [], 0
        for begin in range(0, len(texts), _AT_ONCE):
            out = model.encode_texts(kept.load_batch(texts[begin : begin + _AT_ONCE]))
            found = out.weights_BF if model.config.is_scored_by_tokens else out.dense_BE
            assert found is not None
            rows.append(_normalize(model, found))
            words += int((found > 0).sum()) if model.config.is_scored_by_tokens else 0
        return torch.cat(rows), words / len(texts)

    def _score_images_with_words(self, tokens: StairTokenizer, weights_NF: Tensor) -> dict[int, float]:
        """Return the share of `score_own_words` among the images whose caption has a word of the vocabulary."""
        own = [_list_own_words(tokens, row["caption"]) for row in self.rows]
        return score_own_words([words for words in own if words], weights_NF[[bool(words) for words in own]])


def score_own_words(own: Sequence[set[int]], weights_NF: Tensor) -> dict[int, float]:
    """Return for each cut the share of images with a caption word among the `cut` heaviest tokens.

    Args:
        own: Features of the words in the caption of each image. An image without any counts as a miss.
        weights_NF: Token weights of the images.
    """
    order = weights_NF.argsort(dim=1, descending=True, stable=True)[:, : max(WORD_CUTS)]
    there = weights_NF.gather(1, order) > 0
    best = [row[on].tolist() for row, on in zip(order, there, strict=True)]
    return {
        cut: float(np.mean([bool(mine & set(words[:cut])) for words, mine in zip(best, own, strict=True)])) for cut in WORD_CUTS
    }


def _normalize(model: StairModel, rows_NE: Tensor) -> Tensor:
    """Return the rows in the compared form: of length 1, except for tokens with a dot product."""
    return rows_NE if model.config.is_scored_by_tokens and model.config.similarity == "dot" else normalize_rows(rows_NE)


def _list_own_words(tokens: StairTokenizer, caption: str) -> set[int]:
    return {int(place) for place in tokens.encode([caption]).features_BL[0] if place >= 0}


def _get_cache_folder() -> Path:
    return DataDir.from_env().path / "training"
