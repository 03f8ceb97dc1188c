"""Dense vectors of encoders, for kNN in the same cluster.

Shape suffixes: B batch, K classes, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from stair_es.model.base import DenseEncoder, Encoder, get_own_dense_encoder
from stair_es.model.networks.minilm import compute_softmax
from stair_es.model.stair_mini import artifacts
from stair_es.model.stair_mini.encoder import ImageOutputs, StairMiniEncoder, TextOutputs
from stair_es.types import Floats, Pixels, SparseVector

CONSE_CLASSES = 10


class ConseEncoder:
    """Dense baseline from the networks of stair-mini: ConSE (Norouzi et al., 2014) for images, text embeddings for texts."""

    def __init__(self, encoder: StairMiniEncoder) -> None:
        """Wrap an encoder; its networks are loaded lazily."""
        self._encoder = encoder

    def encode_images_dense(self, pixels_BHWC: Pixels) -> Floats:
        """Return the mean embeddings of each image's 10 most likely classes, weighted by probability, of length 1."""
        return self._compute_image_vectors(self._encoder.run_image_network(pixels_BHWC))

    def encode_texts_dense(self, texts: Sequence[str]) -> Floats:
        """Return the text network's embeddings."""
        return _stack_embeddings(self._encoder.run_text_network(texts))

    def encode_images_both(self, pixels_BHWC: Pixels) -> tuple[list[SparseVector], Floats]:
        """Return token weights and dense vectors of images, from one run of the image network."""
        outputs = self._encoder.run_image_network(pixels_BHWC)
        return self._encoder.encode_image_outputs(outputs), self._compute_image_vectors(outputs)

    def encode_texts_both(self, texts: Sequence[str]) -> tuple[list[SparseVector], Floats]:
        """Return token weights and dense vectors of texts, from one run of the text network."""
        outputs = self._encoder.run_text_network(texts)
        return self._encoder.encode_text_outputs(texts, outputs), _stack_embeddings(outputs)

    def _compute_image_vectors(self, outputs: ImageOutputs) -> Floats:
        return np.stack([_compute_conse(logits_K, self._class_embeddings) for logits_K in outputs.classifier_output.logits_BK])

    @cached_property
    def _class_embeddings(self) -> Floats:
        return artifacts.read_mini_artifacts().arrays["embeddings.classes_KD"]


def get_dense_encoder(encoder: Encoder) -> DenseEncoder | None:
    """Return the dense encoder of a model: its own, or ConSE for stair-mini; None if there is none."""
    return ConseEncoder(encoder) if isinstance(encoder, StairMiniEncoder) else get_own_dense_encoder(encoder)


def _stack_embeddings(outputs: Sequence[TextOutputs]) -> Floats:
    return np.stack([output.embedding_D for output in outputs])


def _compute_conse(logits_K: Floats, embeddings_KD: Floats) -> Floats:
    best = np.argsort(-logits_K, kind="stable")[:CONSE_CLASSES]
    mean_D = compute_softmax(logits_K)[best] @ embeddings_KD[best]
    unit_D: Floats = mean_D / np.linalg.norm(mean_D)
    return unit_D
