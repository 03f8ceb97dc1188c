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
"""Token weights [B, F] and dense unit vectors [B, E]; None for a missing head."""


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
        features_BD = network.run_network(pixels_BHWC).features_BD
        return self._join_rows([self._heads.apply_to_features(features_D) for features_D in features_BD])

    def compute_texts(self, texts: Sequence[str]) -> TowerRows:
        """Compute texts, one at a time."""
        return self._join_rows([self._compute_text(text) for text in texts])

    def _compute_text(self, text: str) -> TowerRow:
        with self._lock:
            network, tokens = self._text_network, self._tokens
            tokenized = tokens.encode([text])
        return self._heads.apply_to_states(network.compute_states(tokenized.ids_BL[0].tolist()), tokenized.features_BL[0])

    def _join_rows(self, rows: list[TowerRow]) -> TowerRows:
        return join_rows(rows, self._config, len(self._tokens.tokens))

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
        """Keep the tensors of a checkpoint."""
        self._config, self._arrays = config, arrays

    def apply_to_features(self, features_D: Floats) -> TowerRow:
        """Apply the image head: weights [F] and a dense unit vector [E], None for a missing head."""
        logits_F, dense_E = self._apply_head("image", features_D)
        return None if logits_F is None else _apply_log1p_relu(logits_F, self._config.image.top_k), dense_E

    def apply_to_states(self, states_LD: Floats, features_L: IdArray) -> TowerRow:
        """Apply the text head: weights [F] and a dense unit vector [E], None for a missing head.

        Args:
            states_LD: States of the tokens, with the special ones.
            features_L: Feature of each token that can represent the text, else -1.
        """
        logits_F, dense_E = self._apply_head("text", states_LD.mean(axis=0))
        if logits_F is None:
            return None, dense_E
        strength_F = logits_F
        if self._config.text.own_words:
            strength_F = np.maximum(strength_F, 0) + self._compute_lexical(states_LD, features_L, len(strength_F))
        if self._config.text.always_masked:
            present_F = np.zeros(len(strength_F), bool)
            present_F[features_L[features_L >= 0]] = True
            strength_F = strength_F * present_F
        return _apply_log1p_relu(strength_F, self._config.text.top_k), dense_E

    def _compute_lexical(self, states_LD: Floats, features_L: IdArray, features: int) -> Floats:
        """Compute the lexical weights, as `LexicalHead` does."""
        present_L = features_L >= 0
        word_F, state_D = self._arrays["text.own_words.word_F"], self._arrays["text.own_words.state_D"]
        strength = word_F[features_L[present_L]] + states_LD[present_L] @ state_D
        weights_F = np.zeros(features, np.float32)
        np.maximum.at(weights_F, features_L[present_L], np.maximum(strength, 0))
        return weights_F

    def _apply_head(self, side: str, mean_D: Floats) -> TowerRow:
        """Apply a projection head, as `ProjectionHead` does."""
        arrays = self._arrays
        name = f"{side}.head"
        hidden_T = apply_gelu(arrays[f"{name}.transform.0.weight"] @ mean_D + arrays[f"{name}.transform.0.bias"])
        centered_T = hidden_T - hidden_T.mean()
        hidden_T = centered_T / np.sqrt(np.square(centered_T).mean() + np.float32(_EPSILON))
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


def join_rows(parts: Sequence[TowerRows], config: StairConfig, features: int) -> TowerRows:
    """Join rows, or batches of rows, of the existing heads; None for a missing head."""
    weights = [rows for rows, _ in parts if rows is not None]
    dense = [rows for _, rows in parts if rows is not None]
    return (
        np.vstack([np.empty((0, features), np.float32), *weights]) if "tokens" in config.heads else None,
        np.vstack([np.empty((0, config.dense_dim), np.float32), *dense]) if "dense" in config.heads else None,
    )


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
    kept_F = np.zeros_like(weights_F)
    kept_F[kept_K] = weights_F[kept_K]
    return kept_F
