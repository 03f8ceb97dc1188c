"""Encoder for STAIR checkpoints: in PyTorch, or in onnxruntime with the graphs of `stair-es export`.

Over a dense model its encoder computes the vectors, and PyTorch the heads.

Shape suffixes: B batch, F features, E dense dimensions.
"""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from stair_es.config.settings import resolve_settings
from stair_es.errors import MissingExtra, ModelError
from stair_es.model.base import Encoder, ModelCard, ModelSpec, check_encoder_pixels, check_model_spec
from stair_es.model.checkpoint import DENSE_FOLDER
from stair_es.model.cuda import can_use_cuda, check_onnx_precision
from stair_es.model.networks.image_networks import TORCH_PACKAGES
from stair_es.model.sparse_rows import SparseRowBuilder, select_top_weights
from stair_es.model.stair import checkpoint
from stair_es.model.stair.configuration import StairConfig
from stair_es.model.stair.onnx_runtime import OnnxDualEncoder, TowerRows, find_onnx_mismatch, join_rows, restore_order
from stair_es.model.stair.tokenizer import StairTokenizer
from stair_es.optional import format_install_command, import_optional, is_installed
from stair_es.types import Floats, Pixels, SparseVector

if TYPE_CHECKING:
    from torch import Tensor

    from stair_es.model.stair.heads import TowerOutput
    from stair_es.model.stair.modeling import StairModel, TextBatch

TORCH_TEXT_BATCH = 64

_T = TypeVar("_T")


class DualEncoder(Protocol):
    """The two towers of a model in some runtime. May be called from several threads."""

    def compute_images(self, pixels_BHWC: Pixels) -> TowerRows:
        """Compute the sparse vectors and the unit dense vectors [B, E] of images; None for a missing head."""

    def compute_texts(self, texts: Sequence[str]) -> TowerRows:
        """Compute the sparse vectors and the unit dense vectors [B, E] of texts; None for a missing head."""


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
    if spec.backend == "onnx":
        check_onnx_precision(spec)
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
    return can_use_cuda(spec, *(TORCH_PACKAGES if config.image.backbone.kind == "package" else ()))


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
        return _require_rows(self._get_towers("tokens").compute_images(pixels_BHWC)[0])

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        """Return the sparse vector of each text; empty for a text without a known token."""
        return _require_rows(self._get_towers("tokens").compute_texts(texts)[0])

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
        vectors, dense_BD = self._get_towers("tokens", "dense").compute_images(pixels_BHWC)
        return _require_rows(vectors), _require_rows(dense_BD)

    def encode_texts_both(self, texts: Sequence[str]) -> tuple[list[SparseVector], Floats]:
        """Return both kinds of vectors from one run of the tower."""
        vectors, dense_BD = self._get_towers("tokens", "dense").compute_texts(texts)
        return _require_rows(vectors), _require_rows(dense_BD)

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

    @cached_property
    def _tokenizer(self) -> StairTokenizer:
        return checkpoint.read_tokenizer(self._folder, self._config)

    @cached_property
    def _towers(self) -> DualEncoder:
        folder, config, spec = self._folder, self._config, self._spec
        rows = SparseRowBuilder(self._tokenizer.tokens, unit=config.similarity == "cosine")
        if self._dense is not None:
            return DistilledDualEncoder(checkpoint.load_stair_model(folder), spec, rows, self._dense)
        on_cpu = spec.backend == "onnx" or (
            spec.backend == "auto" and spec.precision in ("auto", "fp32") and not can_towers_use_gpu(config, spec)
        )
        mismatch = find_onnx_mismatch(folder, self.model_id) if on_cpu else ""
        if on_cpu and not mismatch:
            return OnnxDualEncoder(folder, config, self._tokenizer, rows, spec)
        if spec.backend == "onnx":
            raise ModelError(mismatch, f"Run: stair-es export {shlex.quote(str(folder))}", code="onnx-graphs-outdated")
        if on_cpu and not is_installed("torch"):
            raise MissingExtra(
                f"{folder} has no ONNX graphs of its weights, and PyTorch isn't installed",
                f"Install it with: {format_install_command('models')}; or run `stair-es export` on it on a machine with PyTorch.",
                code="no-onnx-graphs",
            )
        import_optional("torch", "torch")
        return TorchDualEncoder(checkpoint.load_stair_model(folder, resolve_settings(spec.settings).home), spec, rows)


class TorchDualEncoder:
    """The towers in PyTorch, on a GPU if there is one."""

    def __init__(self, model: StairModel, spec: ModelSpec, rows: SparseRowBuilder) -> None:
        from stair_es.model.torch_device import TorchDevice

        self._device, self._rows = TorchDevice(spec), rows
        self._model = self._device.place_network(model)

    def compute_images(self, pixels_BHWC: Pixels) -> TowerRows:
        """Compute images in chunks."""
        return self._run_tower(pixels_BHWC, self._model.encode_images, self._model.config.image.top_k)

    def compute_texts(self, texts: Sequence[str]) -> TowerRows:
        """Compute texts in batches of similar length."""
        from stair_es.model.stair.modeling import TextBatch

        parts, order = [], []
        for indices, tokenized in self._model.tokens.encode_batches(texts, TORCH_TEXT_BATCH):
            parts.append(self._run_text_tower(TextBatch.from_tokenized(tokenized)))
            order.extend(indices.tolist())
        return restore_order(join_rows(parts, self._model.config), order)

    def _run_text_tower(self, batch: TextBatch) -> TowerRows:
        return self._run_tower(
            batch,
            self._model.encode_texts,
            self._model.config.text.top_k,
            stage=lambda part: part.to(self._device.name, self._device.dtype),
            kind="texts",
            cpu_chunk=TORCH_TEXT_BATCH,
        )

    def _run_tower(self, inputs: Any, encode: Callable[..., TowerOutput], top_k: int, **options: Any) -> TowerRows:  # noqa: ANN401
        """Run a tower in chunks; `options` are those of `TorchDevice.run_chunks`."""

        def compute(chunk: Any) -> Sequence[Tensor | None]:  # noqa: ANN401
            output = encode(chunk, top_k=0)
            selected = (None, None) if output.weights_BF is None else select_top_weights(output.weights_BF, top_k)
            return *selected, output.dense_BE

        parts = [
            (None if values_BK is None else self._rows.build_top_weights(values_BK, indices_BK), dense_BE)
            for values_BK, indices_BK, dense_BE in self._device.run_chunks(inputs, compute, **options)
        ]
        return join_rows(parts, self._model.config)


class DistilledDualEncoder(TorchDualEncoder):
    """Heads in PyTorch over the vectors of a dense model; these are the dense vectors of the whole, too."""

    def __init__(self, model: StairModel, spec: ModelSpec, rows: SparseRowBuilder, dense: Encoder) -> None:
        super().__init__(model, spec, rows)
        self._dense = dense

    def compute_images(self, pixels_BHWC: Pixels) -> TowerRows:
        """Compute images: the dense model, then the heads."""
        dense_BD = self._dense.encode_images_dense(pixels_BHWC)

        def encode(chunk_BD: Tensor, *, top_k: int) -> TowerOutput:
            output: TowerOutput = self._model.encode_images(chunk_BD[:, None].to(self._device.dtype), top_k=top_k)
            return output

        return self._run_tower(dense_BD, encode, self._model.config.image.top_k, kind="vectors")[0], dense_BD

    def compute_texts(self, texts: Sequence[str]) -> TowerRows:
        """Compute texts."""
        import torch

        from stair_es.model.stair.modeling import TextBatch

        dense_BD = self._dense.encode_texts_dense(texts)
        batch = TextBatch.from_tokenized(self._model.tokens.encode(texts))
        return self._run_text_tower(replace(batch, states_BLD=torch.from_numpy(dense_BD)[:, None]))[0], dense_BD


def _require_rows(rows: _T | None) -> _T:
    assert rows is not None
    return rows


_OTHER_HEAD_REMEDY = {
    "tokens": "Use it with stair-es evaluate; ingest and search need a model with token weights.",
    "dense": "Train one with heads = ['tokens', 'dense'], or compare with another model.",
}
