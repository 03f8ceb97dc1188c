"""D2S (dense to sparse): a head that turns the dense vectors of a frozen BLIP into token weights (`lsr42/d2s_...`).

`log1p(relu(vocab_projector(vocab_layer_norm(proj(x)))))` with `x` the unit vector of BLIP's retrieval projection; images and
texts use the same head. The checkpoint contains the head only: the dense model is another folder or repository.
Source: Nguyen et al., "Multimodal Learned Sparse Retrieval with Probabilistic Expansion Control", ECIR 2024.

Shape suffixes: B batch, D dense dimensions, V tokens.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stair_es.errors import CheckpointError
from stair_es.model import hub
from stair_es.model.adapters.dense import BlipCheckpoint, DenseEncoder, clean_caption
from stair_es.model.base import Encoder, EncoderOverDense, ModelCard, ModelSpec
from stair_es.model.checkpoint import (
    Checkpoint,
    build_checkpoint_card,
    check_torch_spec,
    get_positive_int,
    read_checkpoint_config,
    read_license,
)
from stair_es.model.cuda import LockedProperty, open_device
from stair_es.model.sparse_rows import SparseRowBuilder, select_top_weights
from stair_es.model.vocabularies.wordpiece import WordPieceVocabulary, read_vocabulary, split_word
from stair_es.types import Floats, Pixels, ResizeMode, SparseVector

if TYPE_CHECKING:
    from torch import Tensor


DENSE_MODEL_ENV = "STAIR_ES_D2S_DENSE_MODEL"
"""Environment variable: the BLIP whose vectors the head transforms, a folder or a hub id.

Without it, `dense_model` of the configuration is used, then the dense model that `hub` lists for a public head.
"""
_EPSILON = 1e-12
"""Epsilon of DistilBERT's `vocab_layer_norm`."""


class D2sCheckpoint(Checkpoint):
    """The head of a D2S, and the BLIP that it belongs to."""

    family = "D2S"
    allows_pickle = True

    @classmethod
    def detect(cls, config: Mapping[str, Any], folder: Path) -> bool:
        """Return whether the model type is `d2s`."""
        return config.get("model_type") == "d2s"

    def __init__(self, folder: Path, name: str, fit: ResizeMode | None) -> None:
        """See `Checkpoint`."""
        config = read_checkpoint_config(folder)
        self._folder = folder
        self._dense_size = get_positive_int(config, "dense_size", 256, folder)
        self._vocabulary = read_vocabulary(folder, str(config.get("mlm_head", "distilbert-base-uncased")))
        self._blip = BlipCheckpoint(find_dense_model(folder, config, name), name, None)
        dense = self._blip.folder
        self.card = build_checkpoint_card(
            name,
            [folder, dense],
            self._blip.card.image_spec,
            fit,
            description=f"D2S checkpoint: {len(self._vocabulary):,} words from the {self._dense_size} dimensions of a BLIP",
            licenses=(*read_license(folder), *(f"dense model, {line}" for line in read_license(dense))),
        )

    def load(self, spec: ModelSpec) -> Encoder:
        """Create the encoder without loading weights."""
        check_torch_spec(spec)
        dense = self._blip.build_encoder(spec, self.card)
        return D2sEncoder(self._folder, self._vocabulary, dense, self._dense_size, self.card, spec)


def find_dense_model(folder: Path, config: Mapping[str, Any], name: str) -> Path:
    """Return the folder of the dense model that a head belongs to.

    Args:
        folder: Folder of the head.
        config: Contents of its `config.json`.
        name: Name that the head was requested by.

    Raises:
        ModelError: If no dense model is named, or it isn't a BLIP.
    """
    hub_model = hub.find_hub_model(name)
    dense_name = os.environ.get(DENSE_MODEL_ENV) or config.get("dense_model") or (hub_model and hub_model.dense_id)
    if not dense_name or not isinstance(dense_name, str):
        raise CheckpointError(
            f"{folder} is a D2S head without its dense model: it needs the vectors of the BLIP that it was trained on",
            f"Specify a BLIP for image-text retrieval, as a folder or a hub id: {DENSE_MODEL_ENV}=..., "
            'or "dense_model" in its config.json.',
        )
    path = Path(dense_name).expanduser()
    dense_folder = path if path.is_absolute() else folder / path
    if not dense_folder.is_dir() and path.is_dir():
        dense_folder = path.resolve()
    if not dense_folder.is_dir():
        return hub.download_snapshot(dense_name, detect_blip)
    detect_blip(dense_folder)
    return dense_folder


def detect_blip(folder: Path) -> type[BlipCheckpoint]:
    """Return the family of BLIP, the dense model."""
    if not BlipCheckpoint.detect(read_checkpoint_config(folder), folder):
        raise CheckpointError(
            f"the dense model in {folder} is not a BLIP for image-text retrieval", f"Set {DENSE_MODEL_ENV} to one."
        )
    return BlipCheckpoint


class D2sEncoder(EncoderOverDense):
    """A D2S encoder. Its weights are loaded when a tower is first used; its dense vectors are those of its BLIP."""

    def __init__(
        self,
        folder: Path,
        vocabulary: WordPieceVocabulary,
        dense: DenseEncoder,
        dense_size: int,
        card: ModelCard,
        spec: ModelSpec,
    ) -> None:
        """Create the encoder without loading weights."""
        self._folder, self._vocabulary, self._dense, self._dense_size = folder, vocabulary, dense, dense_size
        self.card, self._spec = card, spec
        self._lock = threading.RLock()

    @property
    def tokens(self) -> tuple[str, ...]:
        """Return all tokens, in the order of the dimensions."""
        return self._vocabulary.tokens

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        """Return the tokens of a word: the word itself, or its pieces."""
        return split_word(word, self._vocabulary, self._vocabulary.ids)

    def encode_images_both(self, pixels_BHWC: Pixels) -> tuple[list[SparseVector], Floats]:
        """Return both kinds of vectors from one run of the BLIP."""
        dense_BD = self.encode_images_dense(pixels_BHWC)
        return self.weigh_tokens(dense_BD), dense_BD

    def encode_texts_both(self, texts: Sequence[str]) -> tuple[list[SparseVector], Floats]:
        """Return both kinds of vectors from one run of the BLIP."""
        dense_BD = self.encode_texts_dense(texts)
        vectors, unknown_id = self.weigh_tokens(dense_BD), self._vocabulary.ids["[UNK]"]
        has_known = [any(token != unknown_id for token in self._vocabulary.encode(clean_caption(text))) for text in texts]
        known = [vector if is_known else SparseVector((), ()) for vector, is_known in zip(vectors, has_known, strict=True)]
        return known, dense_BD

    def weigh_tokens(self, dense_BD: Floats) -> list[SparseVector]:
        """Return the sparse vectors of items that the dense model has already encoded."""
        if len(dense_BD) and dense_BD.shape[1] != self._dense_size:
            raise CheckpointError(
                f"the dense model of {self._folder} has {dense_BD.shape[1]} dimensions; its head expects {self._dense_size}",
                "Specify the BLIP that the head was trained on.",
            )
        weights = self._head_weights
        chunks = self._device.run_chunks(dense_BD, lambda chunk: select_top_weights(_apply_head(weights, chunk)))
        return self._rows.build_chunks(chunks)

    _device = LockedProperty(open_device)

    @cached_property
    def _rows(self) -> SparseRowBuilder:
        return SparseRowBuilder(self.tokens)

    @LockedProperty
    def _head_weights(self) -> dict[str, Tensor]:
        from stair_es.model.adapters.weights import check_tensor_shapes, get_tensor_shape, read_checkpoint_weights

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
        return {name: value.to(self._device.name) for name, value in weights.items()}


def _apply_head(weights: Mapping[str, Tensor], dense_BD: Tensor) -> Tensor:
    """Return the token weights [B, V] of dense vectors. Computed in fp32: the head is three small matrices."""
    import torch
    from torch.nn import functional

    hidden = functional.linear(dense_BD, weights["proj.weight"], weights["proj.bias"])
    hidden = functional.layer_norm(
        hidden, hidden.shape[-1:], weights["vocab_layer_norm.weight"], weights["vocab_layer_norm.bias"], _EPSILON
    )
    return torch.log1p(torch.relu(functional.linear(hidden, weights["vocab_projector.weight"], weights["vocab_projector.bias"])))
