"""Encoder for STAIR checkpoints: in PyTorch, or in onnxruntime with the graphs of `stair-es export`.

Over a dense model its encoder computes the vectors, and PyTorch the heads.

Shape suffixes: B batch, F features, E dense dimensions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stair_es.config.settings import resolve_settings
from stair_es.errors import MissingExtra, ModelError
from stair_es.model import cuda
from stair_es.model.base import Encoder, ModelCard, ModelSpec, check_encoder_pixels, check_model_spec
from stair_es.model.checkpoint import DENSE_FOLDER
from stair_es.model.networks import image_networks
from stair_es.model.sparse_rows import build_sparse_vector
from stair_es.model.stair import checkpoint
from stair_es.model.stair.configuration import StairConfig
from stair_es.model.stair.onnx_runtime import OnnxDualEncoder, TowerRows, find_onnx_mismatch, join_rows, restore_order
from stair_es.model.stair.tokenizer import StairTokenizer
from stair_es.optional import format_install_command, import_optional, is_installed
from stair_es.types import Floats, Pixels, SparseVector

if TYPE_CHECKING:
    from stair_es.model.stair.modeling import StairModel

TORCH_TEXT_BATCH = 64


class DualEncoder(Protocol):
    """The two towers of a model in some runtime. May be called from several threads."""

    def compute_images(self, pixels_BHWC: Pixels) -> TowerRows:
        """Compute the weights [B, F] and unit dense vectors [B, E] of images; None for a missing head."""

    def compute_texts(self, texts: Sequence[str]) -> TowerRows:
        """Compute the weights [B, F] and unit dense vectors [B, E] of texts; None for a missing head."""


def load_stair_encoder(
    folder: Path, config: StairConfig, card: ModelCard, spec: ModelSpec, dense: Encoder | None = None
) -> Encoder:
    """Load the encoder of a checkpoint.

    Raises:
        ModelError: If the model doesn't support the spec, or a file is broken.
    """
    if spec.text_tower != "full":
        raise ModelError(
            f"{card.name} has no text tower {spec.text_tower!r}",
            "Leave --text-tower out: only stair-mini has a table.",
            code="no-text-tower",
        )
    check_model_spec(spec)
    if spec.backend == "onnx" and spec.precision != "fp32":
        raise ModelError(
            f"the onnx backend computes in fp32, not in {spec.precision}", "Use --backend torch, or fp32.", code="onnx-needs-fp32"
        )
    if not config.has_dense_backbones:
        return StairEncoder(folder, config, card, spec)
    if spec.backend == "onnx":
        raise ModelError(
            f"{card.name} has heads on top of a dense model, which run only in PyTorch",
            "Use --backend torch or auto.",
            code="model-needs-torch",
        )
    import_optional("torch", "torch")
    if dense is None or not dense.has_dense:
        raise ModelError(
            f"the model in {folder / DENSE_FOLDER} has no dense vectors", "Get the checkpoint again.", code="no-dense-vectors"
        )
    return StairEncoder(folder, config, card, spec, dense)


def can_towers_use_gpu(config: StairConfig, spec: ModelSpec) -> bool:
    """Return whether the towers would run on a GPU of this machine."""
    has_cuda = image_networks.is_graph_cuda_available if config.image.backbone.kind == "package" else cuda.is_cuda_available
    return spec.backend in ("auto", "torch") and has_cuda()


class StairEncoder(Encoder):
    """The encoder of a STAIR checkpoint. Each part is loaded once, when it is first used."""

    def __init__(self, folder: Path, config: StairConfig, card: ModelCard, spec: ModelSpec, dense: Encoder | None = None) -> None:
        self._folder, self._config, self.card, self._spec, self._dense = folder, config, card, spec, dense
        self._outputs = (*config.heads, "dense") if dense else config.heads
        self._lock = threading.RLock()

    @property
    def has_dense(self) -> bool:
        """Return whether the model has a head for dense vectors, or a dense model below its heads."""
        return "dense" in self._outputs

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        """Return the sparse vector of each image."""
        check_encoder_pixels(pixels_BHWC, self.card)
        return self._build_vectors(self._get_towers("tokens").compute_images(pixels_BHWC)[0])

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        """Return the sparse vector of each text; empty for a text without a known token."""
        return self._build_vectors(self._get_towers("tokens").compute_texts(texts)[0])

    def encode_images_dense(self, pixels_BHWC: Pixels) -> Floats:
        """Return the dense vectors of images."""
        check_encoder_pixels(pixels_BHWC, self.card)
        return _require_rows(self._get_towers("dense").compute_images(pixels_BHWC)[1])

    def encode_texts_dense(self, texts: Sequence[str]) -> Floats:
        """Return the dense vectors of texts."""
        return _require_rows(self._get_towers("dense").compute_texts(texts)[1])

    def encode_images_both(self, pixels_BHWC: Pixels) -> tuple[list[SparseVector], Floats]:
        """Return both kinds of vectors from one run of the tower."""
        check_encoder_pixels(pixels_BHWC, self.card)
        weights_BF, dense_BD = self._get_towers("tokens", "dense").compute_images(pixels_BHWC)
        return self._build_vectors(weights_BF), _require_rows(dense_BD)

    def encode_texts_both(self, texts: Sequence[str]) -> tuple[list[SparseVector], Floats]:
        """Return both kinds of vectors from one run of the tower."""
        weights_BF, dense_BD = self._get_towers("tokens", "dense").compute_texts(texts)
        return self._build_vectors(weights_BF), _require_rows(dense_BD)

    @property
    def tokens(self) -> tuple[str, ...]:
        """Return all tokens that a vector can contain."""
        with self._lock:
            return self._tokenizer.tokens

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        """Return the tokens of a word: the word itself, or its pieces."""
        with self._lock:
            return self._tokenizer.tokenize_word(word)

    def list_unknown_words(self, text: str) -> tuple[str, ...]:
        """Return the words of a text that the model has no token for."""
        with self._lock:
            return self._tokenizer.list_unknown_words(text)

    def _get_towers(self, *required: str) -> DualEncoder:
        for head in required:
            if head not in self._outputs:
                heads = ", ".join(self._outputs)
                raise ModelError(
                    f"the model {self.card.name} has no head for {head}, only for {heads}",
                    _OTHER_HEAD_REMEDY[head],
                    code="no-such-head",
                )
        with self._lock:
            return self._towers

    def _build_vectors(self, weights_BF: Floats | None) -> list[SparseVector]:
        weights_BF = _require_rows(weights_BF)
        tokens, ranks_F, unit = self._tokenizer.tokens, self._tokenizer.ranks_F, self._config.similarity == "cosine"
        return [build_sparse_vector(weights_F, tokens, ranks_F, unit=unit) for weights_F in weights_BF]

    @cached_property
    def _tokenizer(self) -> StairTokenizer:
        return checkpoint.read_tokenizer(self._folder, self._config)

    @cached_property
    def _towers(self) -> DualEncoder:
        folder, config, spec = self._folder, self._config, self._spec
        if self._dense is not None:
            return DistilledDualEncoder(checkpoint.load_stair_model(folder), spec, self._dense)
        on_cpu = spec.backend == "onnx" or (
            spec.backend == "auto" and spec.precision == "fp32" and not can_towers_use_gpu(config, spec)
        )
        if on_cpu and (spec.backend == "onnx" or not find_onnx_mismatch(folder, self.model_id)):
            return OnnxDualEncoder(folder, config, self._tokenizer, spec, self.model_id)
        if on_cpu and not is_installed("torch"):
            raise MissingExtra(
                f"{folder} has no ONNX graphs of its weights, and PyTorch isn't installed",
                f"Install it with: {format_install_command('models')}; or run `stair-es export` on it on a machine with PyTorch.",
                code="no-onnx-graphs",
            )
        import_optional("torch", "torch")
        return TorchDualEncoder(checkpoint.load_stair_model(folder, resolve_settings(spec.settings).home), spec)


class TorchDualEncoder:
    """The towers in PyTorch, on CUDA if available."""

    def __init__(self, model: StairModel, spec: ModelSpec) -> None:
        self._device = cuda.TorchDevice(spec)
        self._model = model.eval().to(self._device.name)

    def compute_images(self, pixels_BHWC: Pixels) -> TowerRows:
        """Compute images in batches."""
        import torch

        size, device = self._device.batch_size, self._device.name
        parts = (torch.tensor(pixels_BHWC[i : i + size]).to(device) for i in range(0, len(pixels_BHWC), size))
        with self._device.enter_inference():
            outputs = [self._model.encode_images(part) for part in parts]
        return self._join_outputs(outputs)

    def compute_texts(self, texts: Sequence[str]) -> TowerRows:
        """Compute texts in batches of similar length."""
        from stair_es.model.stair.modeling import TextBatch

        outputs, order = [], []
        with self._device.enter_inference():
            for indices, tokenized in self._model.tokens.encode_batches(texts, TORCH_TEXT_BATCH):
                outputs.append(self._model.encode_texts(TextBatch.from_tokenized(tokenized).to(self._device.name)))
                order.extend(indices.tolist())
        return restore_order(self._join_outputs(outputs), order)

    def _join_outputs(self, outputs: list[Any]) -> TowerRows:
        batches = [(_to_numpy(output.weights_BF), _to_numpy(output.dense_BE)) for output in outputs]
        return join_rows(batches, self._model.config, len(self._model.tokens.tokens))


class DistilledDualEncoder(TorchDualEncoder):
    """Heads in PyTorch over the vectors of a dense model; these are the dense vectors of the whole, too."""

    def __init__(self, model: StairModel, spec: ModelSpec, dense: Encoder) -> None:
        super().__init__(model, spec)
        self._dense = dense

    def compute_images(self, pixels_BHWC: Pixels) -> TowerRows:
        """Compute images: the dense model in batches, the heads at once."""
        dense_BD = self._dense.encode_images_dense(pixels_BHWC)
        return self._run_heads(dense_BD, self._model.encode_images), dense_BD

    def compute_texts(self, texts: Sequence[str]) -> TowerRows:
        """Compute texts."""
        from stair_es.model.stair.modeling import TextBatch

        dense_BD = self._dense.encode_texts_dense(texts)
        batch = TextBatch.from_tokenized(self._model.tokens.encode(texts)).to(self._device.name)
        return self._run_heads(
            dense_BD, lambda states_BLD: self._model.encode_texts(replace(batch, states_BLD=states_BLD))
        ), dense_BD

    def _run_heads(self, dense_BD: Floats, run: Callable[[Any], Any]) -> Floats:
        import torch

        if not len(dense_BD):
            return np.zeros((0, len(self._model.tokens.tokens)), np.float32)
        with self._device.enter_inference():
            output = run(torch.from_numpy(dense_BD).to(self._device.name)[:, None])
        return _require_rows(_to_numpy(output.weights_BF))


def _to_numpy(rows: Any) -> Floats | None:  # noqa: ANN401  a tensor, or None
    return None if rows is None else rows.float().cpu().numpy()


def _require_rows(rows: Floats | None) -> Floats:
    assert rows is not None
    return rows


_OTHER_HEAD_REMEDY = {
    "tokens": "Use it with stair-es evaluate; ingest and search need a model with token weights.",
    "dense": "Train one with heads = ['tokens', 'dense'], or compare with another model.",
}
