"""Encoder for D2S: its head over the vectors of a dense model.

Shape suffixes: B batch, D dense dimensions, V tokens.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from stair_es.errors import ModelError
from stair_es.model.adapters.dense_encoder import DenseNetwork
from stair_es.model.adapters.dense_format import clean_caption
from stair_es.model.adapters.weights import check_tensor_shapes, get_tensor_shape, read_checkpoint_weights
from stair_es.model.adapters.wordpiece_vocabulary import split_word
from stair_es.model.base import CardMixin, ModelCard
from stair_es.model.torch_device import LockedProperty, build_sparse_vectors
from stair_es.model.vocabularies.wordpiece import WordPieceVocabulary
from stair_es.types import Floats, Pixels, SparseVector

_EPSILON = 1e-12
"""Epsilon of DistilBERT's `vocab_layer_norm`."""


class D2sEncoder(CardMixin):
    """A D2S encoder. Its weights are loaded when a tower is first used; it also returns the dense vectors of its BLIP."""

    def __init__(
        self, folder: Path, vocabulary: WordPieceVocabulary, dense: DenseNetwork, dense_size: int, card: ModelCard
    ) -> None:
        """Create the encoder without loading weights."""
        self._folder, self._vocabulary, self._dense, self._dense_size, self._card = folder, vocabulary, dense, dense_size, card
        self._lock = threading.RLock()

    @property
    def tokens(self) -> tuple[str, ...]:
        """Return all tokens, in the order of the dimensions."""
        return self._vocabulary.tokens

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
        vectors = self._build_vectors(self._dense.encode_texts(texts))
        unknown_id = self._vocabulary.ids["[UNK]"]
        has_known = [any(token != unknown_id for token in self._vocabulary.encode(clean_caption(text))) for text in texts]
        return [vector if is_known else SparseVector((), ()) for vector, is_known in zip(vectors, has_known, strict=True)]

    def encode_images_dense(self, pixels_BHWC: Pixels) -> Floats:
        """Return the dense vectors of images, which the head transforms."""
        return self._dense.encode_images(pixels_BHWC)

    def encode_texts_dense(self, texts: Sequence[str]) -> Floats:
        """Return the dense vectors of texts, which the head transforms."""
        return self._dense.encode_texts(texts)

    def compute_weights(self, dense_BD: Floats) -> Floats:
        """Compute the token weights [B, V] of dense vectors: `log1p(relu(...))`, see `d2s_format`.

        Raises:
            ModelError: If the weights of the head don't fit.
        """
        with torch.inference_mode():
            weights_BV: Floats = self._apply_head(torch.from_numpy(dense_BD)).numpy()
        return weights_BV

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        """Return the tokens of a word: the word itself, or its pieces."""
        return split_word(word, self._vocabulary, self._vocabulary.ids)

    def _build_vectors(self, dense_BD: Floats) -> list[SparseVector]:
        if len(dense_BD) and dense_BD.shape[1] != self._dense_size:
            raise ModelError(
                f"the dense model of {self._folder} has {dense_BD.shape[1]} dimensions; its head expects {self._dense_size}",
                "Specify the BLIP that the head was trained on.",
            )
        chunks = (dense_BD[begin : begin + 64] for begin in range(0, len(dense_BD), 64))
        return [
            vector
            for chunk in chunks
            for vector in build_sparse_vectors(torch.from_numpy(self.compute_weights(chunk)), self.tokens)
        ]

    def _apply_head(self, dense_BD: Tensor) -> Tensor:
        """Apply the head in fp32 on the CPU: three small matrices, and vectors shouldn't depend on the device here."""
        weights = self._head_weights
        hidden = functional.linear(dense_BD, weights["proj.weight"], weights["proj.bias"])
        hidden = functional.layer_norm(
            hidden, hidden.shape[-1:], weights["vocab_layer_norm.weight"], weights["vocab_layer_norm.bias"], _EPSILON
        )
        return torch.log1p(
            torch.relu(functional.linear(hidden, weights["vocab_projector.weight"], weights["vocab_projector.bias"]))
        )

    @LockedProperty
    def _head_weights(self) -> dict[str, Tensor]:
        weights = read_checkpoint_weights(self._folder)
        width, _ = get_tensor_shape(weights, "proj.weight", 2, self._folder)
        shapes: dict[str, tuple[int, ...]] = {
            "proj.weight": (width, self._dense_size),
            "proj.bias": (width,),
            "vocab_layer_norm.weight": (width,),
            "vocab_layer_norm.bias": (width,),
            "vocab_projector.weight": (len(self._vocabulary), width),
            "vocab_projector.bias": (len(self._vocabulary),),
        }
        check_tensor_shapes(weights, shapes, self._folder)
        return weights
