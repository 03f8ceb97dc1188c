"""Collate pairs into tensors: images as pixels or cached states, captions as tokens. Deterministic for seed and sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from stair_es.errors import SourceError
from stair_es.model.stair import TextBatch
from stair_es.model.stair_tokens import Tokens
from stair_es.training.sampler import Draw

_IMAGE, _TEXT, _WORDS = 1, 2, 3
"""Streams of random numbers, so that a change of one doesn't change the others."""
_TRIES = 100


class Images(Protocol):
    """Loader of a batch's images."""

    def batch(self, items: Sequence[int], views: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Return pixels [B, H, W, C] (uint8) or states [B, L, D], and the positions of unreadable images."""


class Texts(Protocol):
    """Loader of a batch's texts."""

    def batch(self, texts: Sequence[str]) -> TextBatch:
        """Return the tokens, with cached states where there are some."""


class Captions(Protocol):
    """Captions of all pairs."""

    def __len__(self) -> int:
        """Return the number of pairs."""

    def caption(self, item: int, rng: np.random.Generator) -> str:
        """Return a random caption of an item."""


@dataclass(frozen=True)
class LiveTexts:
    """Texts that go through the backbone."""

    tokens: Tokens

    def batch(self, texts: Sequence[str]) -> TextBatch:
        """Tokenize the texts."""
        return TextBatch.from_tokenized(self.tokens.encode(texts))


@dataclass(frozen=True, kw_only=True)
class Wording:
    """Chooses the caption that a pair is shown with."""

    captions: Captions
    seed: int
    texts_per_image: int

    def text(self, draw: Draw) -> str:
        """Return the caption of a sample: a random one of the item's few variants."""
        rng = np.random.default_rng((self.seed, _TEXT, draw.item, draw.turn))
        return self.variant(draw.item, int(rng.integers(self.texts_per_image)))

    def variant(self, item: int, number: int) -> str:
        """Return the n-th caption variant of an item. It is the same in every run, so that its states can be cached."""
        return self.captions.caption(item, np.random.default_rng((_WORDS, item, number)))

    def all(self) -> set[str]:
        """Return every text that can occur."""
        return {self.variant(item, number) for item in range(len(self.captions)) for number in range(self.texts_per_image)}


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Builds the batches of the trainer."""

    images: Images
    texts: Texts
    wording: Wording

    def batch(self, draws: Sequence[Draw]) -> tuple[Tensor, TextBatch, list[str], list[Draw]]:
        """Return images, texts, the raw texts, and the samples taken; an unreadable pair is replaced by the next one.

        Raises:
            SourceError: If hardly any pair can be read.
        """
        taken = list(draws)
        for _ in range(_TRIES):
            images, bad = self.images.batch([draw.item for draw in taken], [draw.turn for draw in taken])
            if not bad:
                written = [self.wording.text(draw) for draw in taken]
                return images, self.texts.batch(written), written, taken
            for place in bad:
                taken[place] = self._next(taken, place)
        raise SourceError(f"{_TRIES} pairs in a row can't be read", "See the reported problems, and fix the training set.")

    def _next(self, taken: Sequence[Draw], place: int) -> Draw:
        """Return the next pair after an unreadable one that isn't in the batch yet."""
        there = {draw.item for draw in taken}
        size = len(self.wording.captions)
        after = ((taken[place].item + step) % size for step in range(1, size + 1))
        return Draw(next((item for item in after if item not in there), taken[place].item), taken[place].turn)


def image_rng(seed: int, item: int, view: int) -> np.random.Generator:
    """Return the random generator for an image's augmentation.

    Args:
        seed: Seed of the run.
        item: Number of the image.
        view: Number of the view.
    """
    return np.random.default_rng((seed, _IMAGE, item, view))
