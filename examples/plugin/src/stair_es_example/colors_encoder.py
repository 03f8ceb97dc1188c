"""The encoder of the model `colors`: the nearest color word of each pixel, and the color words of a text."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np  # this module is imported only to encode

from stair_es.api import Encoder, ModelCard, Pixels, SparseVector

WORDS = ("black", "blue", "brown", "gray", "green", "orange", "pink", "purple", "red", "white", "yellow")
"""All of them are in the BERT vocabulary, as the tokens of a model for stair-es should be."""
_RGB_KC = np.array(
    [
        (20, 20, 20),
        (40, 80, 200),
        (110, 70, 40),
        (128, 128, 128),
        (50, 140, 50),
        (240, 140, 30),
        (250, 160, 190),
        (120, 50, 150),
        (200, 30, 35),
        (245, 245, 245),
        (245, 220, 60),
    ],
    dtype=np.int32,
)
_SYNONYMS = {"grey": "gray", "violet": "purple"}
_MIN_SHARE = 0.02


class ColorsEncoder(Encoder):
    """The encoder. It has no state, so several threads may use it."""

    tokens = WORDS  # all tokens that a vector can contain

    def __init__(self, card: ModelCard) -> None:
        self.card = card

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        """Encode each image alone: its vector must not depend on the other images of the batch."""
        return [self._encode_image(pixels_HWC) for pixels_HWC in pixels_BHWC]

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        """Return the color words of each text with equal weights; empty for a text without any, which then finds nothing."""
        return [SparseVector.from_mapping(dict.fromkeys(_find_color_words(text), 1.0)) for text in texts]

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        """Return the color that a word names; empty for any other word."""
        return tuple(_find_color_words(word))

    def _encode_image(self, pixels_HWC: Pixels) -> SparseVector:
        pixels_NC = pixels_HWC.reshape(-1, 3).astype(np.int32)
        seen_NC = pixels_NC[(pixels_NC != self.image_spec.background).any(axis=1)]
        distances_NK = ((seen_NC[:, None, :] - _RGB_KC[None]) ** 2).sum(axis=2)
        counts_K = np.bincount(distances_NK.argmin(axis=1), minlength=len(WORDS)) if len(seen_NC) else np.zeros(len(WORDS))
        # Weights must be finite and above 0: absent colors are left out.
        shares = {word: round(float(count) / max(1, len(seen_NC)), 4) for word, count in zip(WORDS, counts_K, strict=True)}
        return SparseVector.from_mapping({word: share for word, share in shares.items() if share >= _MIN_SHARE})


def _find_color_words(text: str) -> set[str]:
    return {_SYNONYMS.get(word, word) for word in re.findall(r"[a-z]+", text.lower())} & set(WORDS)
