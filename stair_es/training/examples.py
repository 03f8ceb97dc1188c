"""Pairs -> tensors: images as pixels or as states that are known already, captions as tokens. A function of seed and draw."""

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
    """Where a batch's images come from."""

    def batch(self, items: Sequence[int], views: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Pixels [B, H, W, C] (uint8), or states [B, L, D]; and the places of those that couldn't be read."""


class Texts(Protocol):
    """Where a batch's texts come from."""

    def batch(self, texts: Sequence[str]) -> TextBatch:
        """Tokens, and their states where they are known."""


class Captions(Protocol):
    """What may be said of each pair."""

    def __len__(self) -> int:
        """How many pairs there are."""

    def caption(self, item: int, rng: np.random.Generator) -> str:
        """One of an item's captions."""


@dataclass(frozen=True)
class LiveTexts:
    """Texts that go through the backbone."""

    tokens: Tokens

    def batch(self, texts: Sequence[str]) -> TextBatch:
        """See `Texts`."""
        return TextBatch.from_tokenized(self.tokens.encode(texts))


@dataclass(frozen=True, kw_only=True)
class Wording:
    """Which of its captions a pair is shown with."""

    captions: Captions
    seed: int
    texts_per_image: int

    def text(self, draw: Draw) -> str:
        """The caption of a draw: one of the item's few, by chance."""
        rng = np.random.default_rng((self.seed, _TEXT, draw.item, draw.turn))
        return self.variant(draw.item, int(rng.integers(self.texts_per_image)))

    def variant(self, item: int, number: int) -> str:
        """The n-th caption that an item may be shown with: the same in every run, so that its states can be kept."""
        return self.captions.caption(item, np.random.default_rng((_WORDS, item, number)))

    def all(self) -> set[str]:
        """Every text that may come."""
        return {self.variant(item, number) for item in range(len(self.captions)) for number in range(self.texts_per_image)}


@dataclass(frozen=True, kw_only=True)
class Examples:
    """What the training loop takes batches from."""

    images: Images
    texts: Texts
    wording: Wording

    def batch(self, draws: Sequence[Draw]) -> tuple[Tensor, TextBatch, list[str], list[Draw]]:
        """Images, texts, the texts as they are written, and what was drawn: in place of a pair that can't be read, the next one.

        Raises:
            SourceError: Hardly any pair can be read.
        """
        taken = list(draws)
        for _ in range(_TRIES):
            images, bad = self.images.batch([draw.item for draw in taken], [draw.turn for draw in taken])
            if not bad:
                written = [self.wording.text(draw) for draw in taken]
                return images, self.texts.batch(written), written, taken
            for place in bad:
                taken[place] = self._next(taken, place)
        raise SourceError(
            f"{_TRIES} pairs in a row can't be read", "See the problems that were reported, and mend the training set."
        )

    def _next(self, taken: Sequence[Draw], place: int) -> Draw:
        """The pair after one that can't be read, of those that aren't in the batch."""
        there = {draw.item for draw in taken}
        size = len(self.wording.captions)
        after = ((taken[place].item + step) % size for step in range(1, size + 1))
        return Draw(next((item for item in after if item not in there), taken[place].item), taken[place].turn)


def image_rng(seed: int, item: int, view: int) -> np.random.Generator:
    """The random numbers of an image's augmentation."""
    return np.random.default_rng((seed, _IMAGE, item, view))
