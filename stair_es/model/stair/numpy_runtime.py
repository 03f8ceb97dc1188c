"""STAIR towers without PyTorch, for checkpoints over packaged backbones: heads in numpy, networks as in stair-mini.

Shape suffixes: B batch, L tokens, D states, T transform, F features, E dense dimensions.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np

from stair_es.config.settings import resolve_settings
from stair_es.errors import ModelError
from stair_es.model.base import ModelSpec
from stair_es.model.networks import image_network, minilm_download
from stair_es.model.networks.image_network import ImageNetwork
from stair_es.model.networks.minilm import MiniLM, apply_gelu
from stair_es.model.stair import checkpoint
from stair_es.model.stair.configuration import WEIGHTS_FILE, StairConfig
from stair_es.model.stair.tokenizer import IdArray, StairTokenizer
from stair_es.types import Floats, Pixels

_EPSILON = 1e-5
_TEXT_EMBEDDING = "text.head.embedding_FT"
TowerRow: TypeAlias = "tuple[Floats | None, Floats | None]"
"""One item: token weights [F] and a dense unit vector [E]; None for a missing head."""
TowerRows: TypeAlias = "tuple[Floats | None, Floats | None]"
"""Several items: [B, F] and [B, E]."""


class NumpyDualEncoder:
    """The towers in numpy and onnxruntime. Each network is loaded once, when it is first used."""

    def __init__(self, folder: Path, config: StairConfig, tokens: StairTokenizer, spec: ModelSpec) -> None:
        """Read the heads.

        Raises:
            ModelError: If the file is missing or broken, or lacks a tensor.
        """
        self._config, self._tokens, self._spec = config, tokens, spec
        arrays = checkpoint.read_arrays(folder)
        if config.text.tie and "tokens" in config.heads:
            arrays[_TEXT_EMBEDDING] = self._text_network.word_embeddings_VD[tokens.feature_ids_F]
        self._heads = NumpyHeads(config, _NamedTensors(arrays, folder / WEIGHTS_FILE))
        self._lock = threading.RLock()

    def compute_images(self, pixels_BHWC: Pixels) -> TowerRows:
        """Compute images; an image alone gives the same bits as in a batch."""
        with self._lock:
            network = self._image_network
        return self._stack_rows(
            [self._heads.apply_to_features(features_D) for features_D in network.run_network(pixels_BHWC).features_BD]
        )

    def compute_texts(self, texts: Sequence[str]) -> TowerRows:
        """Compute texts, one at a time."""
        return self._stack_rows([self._compute_text(text) for text in texts])

    def _compute_text(self, text: str) -> TowerRow:
        with self._lock:
            network, tokens = self._text_network, self._tokens
            found = tokens.encode([text])
        return self._heads.apply_to_states(network.compute_states(found.ids_BL[0].tolist()), found.places_BL[0])

    def _stack_rows(self, rows: list[TowerRow]) -> TowerRows:
        config, features = self._config, len(self._tokens.tokens)
        words = [row for row, _ in rows if row is not None]
        dense = [row for _, row in rows if row is not None]
        no_words = np.empty((0, features), np.float32) if "tokens" in config.heads else None
        no_dense = np.empty((0, config.dense_dim), np.float32) if "dense" in config.heads else None
        return np.stack(words) if words else no_words, np.stack(dense) if dense else no_dense

    @cached_property
    def _image_network(self) -> ImageNetwork:
        return image_network.load_image_network(self._spec.backend, self._spec.threads, self._spec.precision)

    @cached_property
    def _text_network(self) -> MiniLM:
        models = resolve_settings(self._spec.settings).home.models
        return MiniLM(minilm_download.ensure_minilm(models) / minilm_download.MINILM_WEIGHTS)


class NumpyHeads:
    """The heads over both networks: features of an image or states of a text to token weights and a dense vector."""

    def __init__(self, config: StairConfig, arrays: Mapping[str, Floats]) -> None:
        """Keep the tensors of a checkpoint.

        Args:
            config: Configuration of the model.
            arrays: Tensors by their names in the checkpoint.
        """
        self._config, self._arrays = config, arrays

    def apply_to_features(self, features_D: Floats) -> TowerRow:
        """Apply the image head: weights [F] and a dense unit vector [E], None for a missing head.

        Args:
            features_D: Features of the image network.
        """
        logits_F, dense_E = self._apply_head("image", features_D)
        return None if logits_F is None else _apply_log1p_relu(logits_F, self._config.image.top_k), dense_E

    def apply_to_states(self, states_LD: Floats, places_L: IdArray) -> TowerRow:
        """Apply the text head: weights [F] and a dense unit vector [E], None for a missing head.

        Args:
            states_LD: States of the tokens, with the special ones.
            places_L: Feature of each token that can represent the text, else -1.
        """
        logits_F, dense_E = self._apply_head("text", states_LD.mean(axis=0))
        if logits_F is None:
            return None, dense_E
        strength_F = logits_F
        if self._config.text.own_words:
            strength_F = np.maximum(strength_F, 0) + self._compute_lexical(states_LD, places_L, len(strength_F))
        if self._config.text.always_masked:
            there_F = np.zeros(len(strength_F), bool)
            there_F[places_L[places_L >= 0]] = True
            strength_F = strength_F * there_F
        return _apply_log1p_relu(strength_F, self._config.text.top_k), dense_E

    def _compute_lexical(self, states_LD: Floats, places_L: IdArray, features: int) -> Floats:
        """Compute the lexical weights, as `LexicalHead` does."""
        arrays, kept = self._arrays, places_L >= 0
        strength = arrays["text.own_words.word_F"][places_L[kept]] + states_LD[kept] @ arrays["text.own_words.state_D"]
        own_F = np.zeros(features, np.float32)
        np.maximum.at(own_F, places_L[kept], np.maximum(strength, 0))
        return own_F

    def _apply_head(self, side: str, mean_D: Floats) -> TowerRow:
        """Apply a projection head, as `ProjectionHead` does."""
        arrays = self._arrays
        name = f"{side}.head"
        hidden_T = apply_gelu(arrays[f"{name}.transform.0.weight"] @ mean_D + arrays[f"{name}.transform.0.bias"])
        centred_T = hidden_T - hidden_T.mean()
        hidden_T = centred_T / np.sqrt(np.square(centred_T).mean() + np.float32(_EPSILON))
        hidden_T = hidden_T * arrays[f"{name}.transform.2.weight"] + arrays[f"{name}.transform.2.bias"]
        dense_E = None
        if "dense" in self._config.heads:
            dense_E = arrays[f"{name}.dense.weight"] @ hidden_T
            dense_E = dense_E / np.maximum(np.linalg.norm(dense_E), np.float32(1e-12))
        if "tokens" not in self._config.heads:
            return None, dense_E
        embedding_FT = arrays[f"{name}.embedding_FT" if f"{name}.embedding_FT" in arrays else _TEXT_EMBEDDING]
        logits_F: Floats = embedding_FT @ hidden_T + arrays[f"{name}.bias_F"]
        return logits_F, dense_E


class _NamedTensors(dict[str, Floats]):
    """Tensors by name; a missing one raises ModelError."""

    def __init__(self, arrays: Mapping[str, Floats], path: Path) -> None:
        super().__init__(arrays)
        self._path = path

    def __missing__(self, name: str) -> Floats:
        raise ModelError(f"{self._path} lacks {name}", "Get the checkpoint again, or train it again.")


def _apply_log1p_relu(strength_F: Floats, top_k: int) -> Floats:
    """Apply the activation, as `stair_heads.apply_log1p_relu` does."""
    weights_F: Floats = np.log1p(np.maximum(strength_F, 0)).astype(np.float32)
    if not 0 < top_k < len(weights_F):
        return weights_F
    kept_K = np.argpartition(-weights_F, top_k - 1)[:top_k]
    only_F = np.zeros_like(weights_F)
    only_F[kept_K] = weights_F[kept_K]
    return only_F
