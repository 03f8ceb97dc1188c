"""The text network all-MiniLM-L6-v2 (Apache-2.0) in numpy: a 6-layer BERT with mean pooling, one text at a time.

Sources: Devlin et al., "BERT", 2019 (the encoder); Reimers and Gurevych, "Sentence-BERT", 2019 (mean pooling).

Shape suffixes: L tokens of the text, V tokens of the tokenizer, D hidden size (384), N heads (12), F inner size (1536) of the
feed-forward part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stair_es.errors import ModelError
from stair_es.system.user_files import parse_json
from stair_es.types import Floats

_Float = TypeVar("_Float", bound=np.floating[Any])

MINILM_DIM = 384
MINILM_MAX_TOKENS = 256
"""Maximum number of tokens with [CLS] and [SEP], as in training."""
_LAYERS, _HEADS = 6, 12
_EPSILON = 1e-12


class MiniLM:
    """The network over a memory-mapped file: weights are read on first use, and only the embeddings of the tokens in a text."""

    def __init__(self, path: Path) -> None:
        """Map `model.safetensors` into memory.

        Raises:
            ModelError: If the file is missing, broken or of another model.
        """
        self._tensors = _map_safetensors(path)
        words = self._tensors.get("embeddings.word_embeddings.weight")
        if words is None or words.shape[1:] != (MINILM_DIM,):
            raise ModelError(
                f"{path} is not all-MiniLM-L6-v2", "Delete its folder; it is fetched again on the next use.", code="not-minilm"
            )

    @property
    def word_embeddings_VD(self) -> Floats:  # noqa: N802  the suffix is its shape
        """Return the input embeddings of all tokens."""
        return self._tensors["embeddings.word_embeddings.weight"]

    def embed_ids(self, ids: Sequence[int]) -> Floats:
        """Embed one text as a unit vector [D], given its token ids with [CLS] and [SEP]."""
        mean_D = self.compute_states(ids).mean(axis=0)
        unit_D: Floats = mean_D / np.linalg.norm(mean_D)
        return unit_D

    def compute_states(self, ids: Sequence[int]) -> Floats:
        """Compute the states [L, D] of the last layer, given token ids with [CLS] and [SEP]."""
        x_LD = self._embed_tokens(ids)
        for layer in range(_LAYERS):
            name = f"encoder.layer.{layer}"
            x_LD = self._apply_layer_norm(
                x_LD + self._apply_attention(x_LD, f"{name}.attention"), f"{name}.attention.output.LayerNorm"
            )
            inner_LF = apply_gelu(self._apply_linear(x_LD, f"{name}.intermediate.dense"))
            x_LD = self._apply_layer_norm(x_LD + self._apply_linear(inner_LF, f"{name}.output.dense"), f"{name}.output.LayerNorm")
        return x_LD

    def _embed_tokens(self, ids: Sequence[int]) -> Floats:
        words_LD = self._tensors["embeddings.word_embeddings.weight"][np.asarray(ids)]
        positions_LD = self._tensors["embeddings.position_embeddings.weight"][: len(ids)]
        segment_D = self._tensors["embeddings.token_type_embeddings.weight"][0]
        return self._apply_layer_norm(words_LD + positions_LD + segment_D, "embeddings.LayerNorm")

    def _apply_attention(self, x_LD: Floats, name: str) -> Floats:
        length = len(x_LD)

        def split_heads(part: str) -> Floats:
            projected_LD = self._apply_linear(x_LD, f"{name}.self.{part}")
            return projected_LD.reshape(length, _HEADS, -1).transpose(1, 0, 2)  # N, L, D / N

        query, key, value = split_heads("query"), split_heads("key"), split_heads("value")
        scores_NLL: Floats = query @ key.transpose(0, 2, 1) / np.float32(math.sqrt(MINILM_DIM // _HEADS))
        mixed_LD = (compute_softmax(scores_NLL) @ value).transpose(1, 0, 2).reshape(length, MINILM_DIM)
        return self._apply_linear(mixed_LD, f"{name}.output.dense")

    def _apply_linear(self, x: Floats, name: str) -> Floats:
        y: Floats = x @ self._tensors[f"{name}.weight"].T + self._tensors[f"{name}.bias"]
        return y

    def _apply_layer_norm(self, x_LD: Floats, name: str) -> Floats:
        centered = x_LD - x_LD.mean(axis=-1, keepdims=True)
        variance = np.square(centered).mean(axis=-1, keepdims=True)
        normalized: Floats = centered / np.sqrt(variance + np.float32(_EPSILON))
        return normalized * self._tensors[f"{name}.weight"] + self._tensors[f"{name}.bias"]


def compute_softmax(x: NDArray[_Float]) -> NDArray[_Float]:
    """Compute the softmax along the last axis."""
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    y: NDArray[_Float] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return y


def apply_gelu(x: Floats) -> Floats:
    """Apply `x * Phi(x)`, the error function by formula 7.1.26 of Abramowitz and Stegun (error below 1.5e-7)."""
    z = np.abs(x) * np.float32(1 / math.sqrt(2))
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * np.float32(1.061405429)))))
    erf = np.copysign(1 - series * np.exp(-z * z), x)
    y: Floats = np.float32(0.5) * x * (1 + erf)
    return y


def _map_safetensors(path: Path) -> dict[str, Floats]:
    """Return the float32 tensors of a safetensors file (8 bytes header length, JSON header, data) as views of the mapped file."""
    try:
        data = np.memmap(path, np.uint8, mode="r")
        begin = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = parse_json(data[8:begin].tobytes().decode())
        tensors = {}
        for name, entry in header.items():
            if name != "__metadata__" and entry["dtype"] == "F32":
                first, end = entry["data_offsets"]
                tensors[name] = data[begin + first : begin + end].view(np.float32).reshape(entry["shape"])
        return tensors
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path} can't be read: {error}",
            "Delete its folder; it is fetched again on the next use.",
            code="text-network-unreadable",
        ) from error
