"""Encoder for D2S: its head over the vectors of a dense model.

Shape suffixes: B batch, D dense dimensions, V tokens.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from stair_es.errors import ModelError
from stair_es.model.adapters.dense_encoder import DenseNetwork
from stair_es.model.adapters.dense_format import clean_caption
from stair_es.model.adapters.device import build_sparse_vectors
from stair_es.model.adapters.weights import check_tensor_shapes, get_tensor_shape, read_checkpoint_weights
from stair_es.model.adapters.wordpiece_vocabulary import split_word
from stair_es.model.base import CardMixin, ModelCard
from stair_es.model.vocabularies.wordpiece import WordPieceVocabulary
from stair_es.types import Floats, Pixels, SparseVector

_EPSILON = 1e-12
"""Epsilon of DistilBERT's `vocab_layer_norm`."""


class D2sEncoder(CardMixin):
    """A D2S encoder. Its weights are loaded when a tower is first used; it also returns the dense vectors of its BLIP."""

    def __init__(self, folder: Path, words: WordPieceVocabulary, dense: DenseNetwork, dense_size: int, card: ModelCard) -> None:
        """Create the encoder without loading weights."""
        self._folder, self._words, self._dense, self._dense_size, self._card = folder, words, dense, dense_size, card
        self._lock = threading.RLock()

    @property
    def tokens(self) -> tuple[str, ...]:
        """Return all tokens, in the order of the dimensions."""
        return self._words.tokens

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        """Return one sparse vector per image.

        Raises:
            ModelError: If the pixels don't match `image_spec`, or the weights don't fit.
        """
        return self._build_vectors(self._dense.encode_images(pixels_BHWC))

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        """Return one sparse vector per text; empty for a text without a known token.

        Raises:
            ModelError: If the weights don't fit.
        """
        found = self._build_vectors(self._dense.encode_texts(texts))
        unknown = self._words.ids["[UNK]"]
        known = [any(token != unknown for token in self._words.encode(clean_caption(text))) for text in texts]
        return [vector if says else SparseVector((), ()) for vector, says in zip(found, known, strict=True)]

    def encode_images_dense(self, pixels_BHWC: Pixels) -> Floats:
        """Return the dense vectors of images, which the head transforms."""
        return self._dense.encode_images(pixels_BHWC)

    def encode_texts_dense(self, texts: Sequence[str]) -> Floats:
        """Return the dense vectors of texts, which the head transforms."""
        return self._dense.encode_texts(texts)

    def compute_weights(self, dense_BD: Floats) -> Floats:
        """Compute the token weights [B, V] of dense vectors: `log1p(relu(...))`, see `d2s_format`.

        Args:
            dense_BD: Dense vectors.

        Raises:
            ModelError: If the weights of the head don't fit.
        """
        with torch.inference_mode():
            found: Floats = self._apply_head(torch.from_numpy(dense_BD)).numpy()
        return found

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        """Return the tokens of a word: the word itself, or its pieces."""
        return split_word(word, self._words, self._words.ids)

    def _build_vectors(self, dense_BD: Floats) -> list[SparseVector]:
        if len(dense_BD) and dense_BD.shape[1] != self._dense_size:
            raise ModelError(
                f"the dense model of {self._folder} has {dense_BD.shape[1]} dimensions; its head expects {self._dense_size}",
                "Specify the BLIP that the head was trained on.",
            )
        chunks = (dense_BD[start : start + 64] for start in range(0, len(dense_BD), 64))
        return [
            vector
            for chunk in chunks
            for vector in build_sparse_vectors(torch.from_numpy(self.compute_weights(chunk)), self.tokens)
        ]

    def _apply_head(self, dense_BD: Tensor) -> Tensor:
        """Apply the head in fp32 on the CPU: three small matrices, and vectors shouldn't depend on the device here."""
        own = self._head_weights
        hidden = functional.linear(dense_BD, own["proj.weight"], own["proj.bias"])
        hidden = functional.layer_norm(
            hidden, hidden.shape[-1:], own["vocab_layer_norm.weight"], own["vocab_layer_norm.bias"], _EPSILON
        )
        return torch.log1p(torch.relu(functional.linear(hidden, own["vocab_projector.weight"], own["vocab_projector.bias"])))

    @property
    def _head_weights(self) -> dict[str, Tensor]:
        with self._lock:
            return self._loaded_weights

    @cached_property
    def _loaded_weights(self) -> dict[str, Tensor]:
        found = read_checkpoint_weights(self._folder)
        width, _ = get_tensor_shape(found, "proj.weight", 2, self._folder)
        wanted: dict[str, tuple[int, ...]] = {
            "proj.weight": (width, self._dense_size),
            "proj.bias": (width,),
            "vocab_layer_norm.weight": (width,),
            "vocab_layer_norm.bias": (width,),
            "vocab_projector.weight": (len(self._words), width),
            "vocab_projector.bias": (len(self._words),),
        }
        check_tensor_shapes(found, wanted, self._folder)
        return found
