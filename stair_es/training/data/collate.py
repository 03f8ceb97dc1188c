"""Collate pairs into tensors: images as pixels or cached states, captions as tokens. Deterministic for seed and sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from stair_es.errors import SourceError
from stair_es.model.stair.modeling import TextBatch
from stair_es.model.stair.tokenizer import StairTokenizer
from stair_es.training.data.dataset import ProblemCounter
from stair_es.training.data.sampler import SampleIndex

_IMAGE, _TEXT, _WORDS = 1, 2, 3
"""Streams of random numbers, so that a change of one doesn't change the others."""
_MAX_ATTEMPTS = 100


class ImageLoader(Protocol):
    """Loader of a batch's images."""

    def load_batch(self, items: Sequence[int], views: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Return pixels [B, H, W, C] (uint8) or states [B, L, D], and the positions of unreadable images."""


class TextLoader(Protocol):
    """Loader of a batch's texts."""

    def load_batch(self, texts: Sequence[str]) -> TextBatch:
        """Return the tokens, with cached states if they exist."""


class CaptionSource(Protocol):
    """Captions of all pairs."""

    def __len__(self) -> int:
        """Return the number of pairs."""

    def sample_caption(self, item: int, rng: np.random.Generator) -> str:
        """Return a random caption of an item."""


@dataclass(frozen=True)
class OnlineTexts:
    """Texts that go through the backbone."""

    tokens: StairTokenizer

    def load_batch(self, texts: Sequence[str]) -> TextBatch:
        """Tokenize the texts."""
        return TextBatch.from_tokenized(self.tokens.encode(texts))


@dataclass(frozen=True, kw_only=True)
class CaptionSampler:
    """Chooses the caption that a pair is shown with."""

    captions: CaptionSource
    seed: int
    texts_per_image: int

    def choose_caption(self, sample: SampleIndex) -> str:
        """Return the caption of a sample: a random one of the item's few variants."""
        rng = make_caption_rng(self.seed, sample.item, sample.epoch)
        return self.get_variant(sample.item, int(rng.integers(self.texts_per_image)))

    def get_variant(self, item: int, number: int) -> str:
        """Return the n-th caption variant of an item. It is the same in every run, so that its states can be cached."""
        return self.captions.sample_caption(item, np.random.default_rng((_WORDS, item, number)))

    def collect_captions(self) -> set[str]:
        """Return every text that can occur."""
        return {self.get_variant(item, number) for item in range(len(self.captions)) for number in range(self.texts_per_image)}


@dataclass(frozen=True, kw_only=True)
class Collator:
    """Builds the batches of the trainer."""

    images: ImageLoader
    texts: TextLoader
    caption_sampler: CaptionSampler
    problems: ProblemCounter

    def collate_batch(self, samples: Sequence[SampleIndex]) -> tuple[Tensor, TextBatch, list[str], list[SampleIndex]]:
        """Return images, texts, the raw texts, and the samples taken; an unreadable pair is replaced by the next one.

        Raises:
            SourceError: If hardly any pair can be read.
        """
        batch = list(samples)
        for _ in range(_MAX_ATTEMPTS):
            images, unreadable = self.images.load_batch([sample.item for sample in batch], [sample.epoch for sample in batch])
            if not unreadable:
                captions = [self.caption_sampler.choose_caption(sample) for sample in batch]
                return images, self.texts.load_batch(captions), captions, batch
            for position in unreadable:
                batch[position] = self._find_replacement(batch, position)
        raise SourceError(
            f"{_MAX_ATTEMPTS} pairs in a row can't be read{self._describe_problem()}",
            "Fix the training set, and run again: training resumes from the last saved state.",
            code="pair-unreadable",
        )

    def _describe_problem(self) -> str:
        """Return the most frequent reason for unreadable pairs."""
        return next((f": {line}" for line in self.problems.format_lines()), "")

    def _find_replacement(self, batch: Sequence[SampleIndex], position: int) -> SampleIndex:
        """Return the next pair after an unreadable one that isn't in the batch yet."""
        items = {sample.item for sample in batch}
        size = len(self.caption_sampler.captions)
        candidates = ((batch[position].item + offset) % size for offset in range(1, size + 1))
        return SampleIndex(next((item for item in candidates if item not in items), batch[position].item), batch[position].epoch)


def make_image_rng(seed: int, item: int, view: int) -> np.random.Generator:
    """Return the random generator for an image's augmentation."""
    return np.random.default_rng((seed, _IMAGE, item, view))


def make_caption_rng(seed: int, item: int, epoch: int) -> np.random.Generator:
    """Return the random generator for the choice of a caption."""
    return np.random.default_rng((seed, _TEXT, item, epoch))
