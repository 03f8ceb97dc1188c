"""Encoder of distilled checkpoints: runs the dense model, and turns its vectors into weights of words.

Shape suffixes: B batch, V words, D dimensions.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from stair_es.errors import ModelError
from stair_es.model.base import CardMixin, DenseEncoder, ModelCard
from stair_es.model.distilled.checkpoint import RECREATE_HINT, Dictionary, DistilledConfig, read_dictionary
from stair_es.model.distilled.decomposition import center_vectors, decompose_images, select_similar_words
from stair_es.model.sparse_rows import build_sparse_vector
from stair_es.types import Floats, Pixels, SparseVector

_BATCH_SIZE = 64


class DistilledEncoder(CardMixin):
    """An encoder that is also a `JointEncoder`: its dense vectors are those of the dense model.

    Each part is loaded once, when it is first used.
    """

    def __init__(self, folder: Path, config: DistilledConfig, dense: DenseEncoder, card: ModelCard) -> None:
        """Create the encoder without loading the dictionary."""
        self._folder, self._config, self._dense, self._card = folder, config, dense, card
        self._lock = threading.RLock()

    @property
    def tokens(self) -> tuple[str, ...]:
        """Return all words that a vector can contain."""
        return self._get_dictionary().vocabulary.words

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        """Return the words of the dictionary in a word as users write it: itself, its singular, or its hyphenated parts."""
        vocabulary = self._get_dictionary().vocabulary
        return tuple(dict.fromkeys(vocabulary.words[match.word_index] for match in vocabulary.match_words(word)))

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        """Return the sparse vector of each image.

        Raises:
            ModelError: If the pixels don't match `image_spec`, or a file is broken.
        """
        return self.weigh_images(self._dense.encode_images_dense(pixels_BHWC))

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        """Return the sparse vector of each text; empty for a text without letters and digits.

        Raises:
            ModelError: If a file is broken.
        """
        return self.weigh_texts(texts, self._dense.encode_texts_dense(texts))

    def encode_images_dense(self, pixels_BHWC: Pixels) -> Floats:
        """Return the vectors of the dense model."""
        return self._dense.encode_images_dense(pixels_BHWC)

    def encode_texts_dense(self, texts: Sequence[str]) -> Floats:
        """Return the vectors of the dense model."""
        return self._dense.encode_texts_dense(texts)

    def encode_images_both(self, pixels_BHWC: Pixels) -> tuple[list[SparseVector], Floats]:
        """Return the results of `encode_images` and `encode_images_dense` from one run of the dense model."""
        dense_BD = self._dense.encode_images_dense(pixels_BHWC)
        return self.weigh_images(dense_BD), dense_BD

    def encode_texts_both(self, texts: Sequence[str]) -> tuple[list[SparseVector], Floats]:
        """Return the results of `encode_texts` and `encode_texts_dense` from one run of the dense model."""
        dense_BD = self._dense.encode_texts_dense(texts)
        return self.weigh_texts(texts, dense_BD), dense_BD

    def weigh_images(self, dense_BD: Floats) -> list[SparseVector]:
        """Return the sparse vectors of images that the dense model has already encoded.

        Raises:
            ModelError: If the dictionary is broken or has another number of dimensions.
        """
        dictionary, vectors = self._get_dictionary(), []
        for begin in range(0, len(dense_BD), _BATCH_SIZE):
            images_BD = self._center(dense_BD[begin : begin + _BATCH_SIZE], dictionary.image_mean_D)
            weights_BV = decompose_images(
                images_BD, dictionary.words_VD, l1=self._config.l1, max_tokens=self._config.image_tokens
            )
            vectors += self._build_vectors(weights_BV)
        return vectors

    def weigh_texts(self, texts: Sequence[str], dense_BD: Floats) -> list[SparseVector]:
        """Return the sparse vectors of texts that the dense model has already encoded.

        Raises:
            ModelError: If the dictionary is broken or has another number of dimensions.
        """
        dictionary, vectors = self._get_dictionary(), []
        for begin in range(0, len(dense_BD), _BATCH_SIZE):
            chunk = texts[begin : begin + _BATCH_SIZE]
            texts_BD = self._center(dense_BD[begin : begin + _BATCH_SIZE], dictionary.text_mean_D)
            own_words = [[match.word_index for match in dictionary.vocabulary.match_words(text)] for text in chunk]
            weights_BV = select_similar_words(texts_BD, dictionary.words_VD, own_words, max_tokens=self._config.text_tokens)
            weights_BV[[not any(map(str.isalnum, text)) for text in chunk]] = 0.0
            vectors += self._build_vectors(weights_BV)
        return vectors

    def _center(self, dense_BD: Floats, mean_D: Floats) -> Floats:
        if dense_BD.shape[1:] != mean_D.shape:
            raise ModelError(
                f"the dense model in {self._folder} has {dense_BD.shape[1]} dimensions, its dictionary {len(mean_D)}",
                RECREATE_HINT,
            )
        return center_vectors(dense_BD, mean_D)

    def _build_vectors(self, weights_BV: Floats) -> list[SparseVector]:
        words = self._get_dictionary().vocabulary.words
        return [build_sparse_vector(weights_V, words, self._ranks_V, unit=False) for weights_V in weights_BV]

    def _get_dictionary(self) -> Dictionary:
        with self._lock:
            return self._dictionary

    @cached_property
    def _dictionary(self) -> Dictionary:
        return read_dictionary(self._folder)

    @cached_property
    def _ranks_V(self) -> np.ndarray:  # noqa: N802  the suffix is its shape
        return np.array(self._get_dictionary().vocabulary.ranks, np.int64)
