"""VDR, the vocabulary-disentangled retriever: a CLIP-style vision transformer without class token, and BERT, over one vocabulary.

Image: `v = max over patches of (patch . proj)`. Text: `v = max over positions, padding included, of (LN(state) . word
embedding)`. Then both: `normalize(elu(v) + 1)`, and only the largest weights are kept (for a text also those of its own tokens).

Sources: Zhou et al., "Retrieval-based Disentangled Representation Learning with Natural Language Supervision", ICLR 2024, and
the configuration of the public checkpoint (`vsearch/vdr-cross-modal`; its code is MIT-licensed, none of it is used here); image
tower: Radford et al. (CLIP), 2021.

Shape suffixes: B batch, L positions, D width, V tokens, N heads, K size of a head.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stair_es.errors import CheckpointError, ModelError
from stair_es.model.base import Encoder, ModelCard, ModelSpec, check_encoder_pixels
from stair_es.model.checkpoint import (
    Checkpoint,
    build_checkpoint_card,
    check_torch_spec,
    get_config_section,
    get_positive_int,
    read_checkpoint_config,
    read_license,
)
from stair_es.model.cuda import LockedProperty, open_device
from stair_es.model.sparse_rows import SparseRowBuilder, select_top_weights
from stair_es.model.vocabularies.wordpiece import WordPieceVocabulary, is_special_token, read_vocabulary, split_word
from stair_es.types import ImageSpec, Pixels, ResizeMode, SparseVector

if TYPE_CHECKING:
    from torch import Tensor

    from stair_es.model.torch_device import TorchDevice

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_BERT = "bert-base-uncased"
_IGNORED_TENSORS = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")
"""A buffer and a layer that checkpoints of BERT may contain and that aren't used here."""


@dataclass(frozen=True, kw_only=True)
class VdrConfig:
    """The configuration of a VDR, with the defaults of the published checkpoint."""

    image_px: int
    image_heads: int
    image_top_k: int
    """Tokens kept per image, those with the largest weights."""
    text_heads: int
    text_top_k: int
    max_text_tokens: int
    """Length that texts are padded to; the padding takes part in the maximum."""
    vocabulary: WordPieceVocabulary
    valid_ids: tuple[int, ...]
    """Ids of the tokens that have a dimension, ascending."""


class VdrCheckpoint(Checkpoint):
    """A VDR for images and texts."""

    family = "VDR (cross-modal)"
    allows_pickle = True

    @classmethod
    def detect(cls, config: Mapping[str, Any], folder: Path) -> bool:
        """Return whether the configuration has the two encoders of VDR."""
        return "encoder_q" in config and "encoder_p" in config

    def __init__(self, folder: Path, name: str, fit: ResizeMode | None) -> None:
        """See `Checkpoint`."""
        self._folder, self._config = folder, read_vdr_config(folder)
        self.card = build_checkpoint_card(
            name,
            [folder],
            ImageSpec(size_px=self._config.image_px, fit="crop"),  # like its own code: Resize(bicubic), then CenterCrop
            fit,
            description=f"VDR checkpoint: {len(self._config.valid_ids):,} words",
            licenses=read_license(folder),
        )

    def load(self, spec: ModelSpec) -> Encoder:
        """Create the encoder without loading weights."""
        check_torch_spec(spec)
        return VdrEncoder(self._folder, self._config, self.card, spec)


def read_vdr_config(folder: Path) -> VdrConfig:
    """Return the configuration of a checkpoint."""
    config = read_checkpoint_config(folder)
    text, image = get_config_section(config, "encoder_q", folder), get_config_section(config, "encoder_p", folder)
    if "image" not in str(image.get("type", "image")):
        raise ModelError(
            f"{folder} is a text-only VDR ({image['type']}): it can't encode images",
            "Use the cross-modal checkpoint.",
            code="model-of-texts-only",
        )
    vocabulary = read_vocabulary(folder, str(image.get("tokenizer_id", _BERT)))
    return VdrConfig(
        image_px=get_positive_int(image, "resolution", 224, folder),
        image_heads=get_positive_int(image, "heads", 12, folder),
        image_top_k=get_positive_int(image, "topk", 768, folder),
        text_heads=get_positive_int(text, "num_attention_heads", 12, folder),
        text_top_k=get_positive_int(text, "topk", 768, folder),
        max_text_tokens=get_positive_int(text, "max_len", 128, folder),
        vocabulary=vocabulary,
        valid_ids=list_valid_ids(vocabulary),
    )


def list_valid_ids(vocabulary: WordPieceVocabulary) -> tuple[int, ...]:
    """List the tokens that have a dimension: ASCII only, and neither special nor unused.

    The published code lists 2,899 ids of the uncased BERT vocabulary that have none; this rule gives exactly those.
    """
    return tuple(token for token, word in enumerate(vocabulary.tokens) if word.isascii() and not is_special_token(word))


class VdrEncoder(Encoder):
    """A VDR encoder. Its weights are loaded when a tower is first used."""

    def __init__(self, folder: Path, config: VdrConfig, card: ModelCard, spec: ModelSpec) -> None:
        """Create the encoder without loading weights."""
        self._folder, self._config, self.card, self._spec = folder, config, card, spec
        self._lock = threading.RLock()

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """Return all tokens, in the order of the dimensions."""
        return tuple(self._config.vocabulary.tokens[token] for token in self._config.valid_ids)

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        """Return one sparse vector per image; the published checkpoint keeps 768 tokens."""
        check_encoder_pixels(pixels_BHWC, self.card)
        towers, top_k = self._towers, self._config.image_top_k
        chunks = self._device.run_chunks(pixels_BHWC, lambda pixels: select_top_weights(towers.encode_images(pixels), top_k))
        return self._rows.build_chunks(chunks)

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        """Return one sparse vector per text. Long texts are truncated."""
        rows = [self._config.vocabulary.encode(text)[: self._config.max_text_tokens - 2] for text in texts]
        towers, top_k = self._towers, self._config.text_top_k

        def compute(inputs: Sequence[Tensor]) -> Sequence[Tensor]:
            ids_BL, mask_BL, present_BV = inputs
            weights_BV = towers.encode_texts(ids_BL, mask_BL)
            weights_BV = weights_BV * (_mask_top_k(weights_BV, top_k) | present_BV)
            # A text without a known token gets an empty vector.
            return select_top_weights(weights_BV * present_BV.any(1, keepdim=True))

        chunks = self._device.run_chunks(rows, compute, stage=self._stage_texts, kind="texts")
        return self._rows.build_chunks(chunks)

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        """Return the tokens of a word: the word itself, or its pieces."""
        return split_word(word, self._config.vocabulary, self._token_indices)

    def _stage_texts(self, rows: list[list[int]]) -> list[Tensor]:
        """Return ids and mask [B, L] of texts, and which tokens occur in them [B, V], on the device."""
        import torch

        vocabulary, length = self._config.vocabulary, self._config.max_text_tokens
        ids_BL = torch.full((len(rows), length), vocabulary.ids["[PAD]"])
        mask_BL = torch.zeros((len(rows), length), dtype=torch.long)
        present_BV = torch.zeros((len(rows), len(self.tokens)), dtype=torch.bool)
        for row, text_ids in enumerate(rows):
            ids = vocabulary.add_special_tokens(text_ids, length)
            ids_BL[row, : len(ids)] = torch.tensor(ids)
            mask_BL[row, : len(ids)] = 1
            tokens = (vocabulary.tokens[token_id] for token_id in text_ids)
            present_BV[row, [self._token_indices[token] for token in tokens if token in self._token_indices]] = True
        return [inputs.to(self._device.name) for inputs in (ids_BL, mask_BL, present_BV)]

    @cached_property
    def _rows(self) -> SparseRowBuilder:
        return SparseRowBuilder(self.tokens)

    @cached_property
    def _token_indices(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.tokens)}

    _device = LockedProperty(open_device)

    @LockedProperty
    def _towers(self) -> VdrTowers:
        return VdrTowers(self._folder, self._config, self._device)


class VdrTowers:
    """The two networks with the weights of a checkpoint."""

    def __init__(self, folder: Path, config: VdrConfig, device: TorchDevice) -> None:
        """Read and check the weights."""
        import torch

        from stair_es.model.adapters.normalization import PixelNormalizer
        from stair_es.model.adapters.weights import (
            check_attention_heads,
            check_tensor_shapes,
            get_tensor_shape,
            read_checkpoint_weights,
        )

        tensors = read_checkpoint_weights(folder)
        self._config = config
        self._normalizer = PixelNormalizer.from_mean(CLIP_MEAN, CLIP_STD, device.name, device.dtype)
        self._image = {
            key: tensors.pop(key).to(device.name, device.dtype) for key in list(tensors) if key.startswith("encoder_p.")
        }
        width, _, patch, _ = get_tensor_shape(self._image, "encoder_p.conv1.weight", 4, folder)
        self._layers = _count_layers(self._image, "encoder_p.transformer.resblocks.")
        check_tensor_shapes(self._image, _build_image_shapes(config, width, patch, self._layers), folder)
        check_attention_heads("encoder_p", width, config.image_heads, folder)
        text_keys = [key for key in tensors if key.startswith("encoder_q.") and not key.endswith(_IGNORED_TENSORS)]
        text = {key: tensors.pop(key) for key in text_keys}
        self._bert, self._norm = _build_text_tower(text, config, folder, device)
        check_tensor_shapes({key: value for key, value in tensors.items() if not key.endswith(_IGNORED_TENSORS)}, {}, folder)
        self._valid_ids = torch.tensor(config.valid_ids, device=device.name)

    def encode_images(self, pixels_BHWC: Tensor) -> Tensor:
        """Encode images as token weights [B, V] of unit length; pixels in 0..255."""
        import torch
        from torch.nn import functional

        kernel = self._image["encoder_p.conv1.weight"]
        grid = functional.conv2d(self._normalizer.normalize(pixels_BHWC), kernel, stride=kernel.shape[-1])
        x_BLD = grid.flatten(2).transpose(1, 2) + self._image["encoder_p.positional_embedding"]
        x_BLD = self._apply_layer_norm(x_BLD, "encoder_p.ln_pre")
        for layer in range(self._layers):
            prefix = f"encoder_p.transformer.resblocks.{layer}."
            x_BLD = x_BLD + self._apply_attention(self._apply_layer_norm(x_BLD, f"{prefix}ln_1"), f"{prefix}attn.")
            inner = self._apply_linear(self._apply_layer_norm(x_BLD, f"{prefix}ln_2"), f"{prefix}mlp.c_fc")
            x_BLD = x_BLD + self._apply_linear(inner * torch.sigmoid(1.702 * inner), f"{prefix}mlp.c_proj")  # QuickGELU
        x_BLD = self._apply_layer_norm(x_BLD, "encoder_p.ln_post")
        return _apply_elu((x_BLD @ self._image["encoder_p.proj"].T).amax(1))

    def encode_texts(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Encode texts as token weights [B, V] of unit length. Padding positions count, as in training."""
        states_BLD = self._bert(input_ids=ids_BL, attention_mask=mask_BL).last_hidden_state
        words_VD = self._bert.embeddings.word_embeddings.weight[self._valid_ids]
        return _apply_elu((self._norm(states_BLD) @ words_VD.T).amax(1))

    def _apply_layer_norm(self, x: Tensor, name: str) -> Tensor:
        from torch.nn import functional

        return functional.layer_norm(x, x.shape[-1:], self._image[f"{name}.weight"], self._image[f"{name}.bias"])

    def _apply_linear(self, x: Tensor, name: str) -> Tensor:
        from torch.nn import functional

        return functional.linear(x, self._image[f"{name}.weight"], self._image[f"{name}.bias"])

    def _apply_attention(self, x_BLD: Tensor, prefix: str) -> Tensor:
        from torch.nn import functional

        count, length, width = x_BLD.shape
        qkv = functional.linear(x_BLD, self._image[f"{prefix}in_proj_weight"], self._image[f"{prefix}in_proj_bias"])
        heads = qkv.view(count, length, 3, self._config.image_heads, -1).permute(2, 0, 3, 1, 4)  # [3, B, N, L, K]
        mixed_BNLK = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        return self._apply_linear(mixed_BNLK.transpose(1, 2).reshape(count, length, width), f"{prefix}out_proj")


def _apply_elu(scores_BV: Tensor) -> Tensor:
    from torch.nn import functional

    return functional.normalize(functional.elu(scores_BV.float()) + 1)


def _mask_top_k(weights_BV: Tensor, count: int) -> Tensor:
    """Return a mask of the `count` largest weights of each row."""
    import torch

    best = weights_BV.topk(min(count, weights_BV.shape[1])).indices
    return torch.zeros_like(weights_BV, dtype=torch.bool).scatter_(1, best, True)


def _count_layers(names: Mapping[str, Any], prefix: str) -> int:
    """Return the number of layers: the highest number among the tensor names, plus 1."""
    numbers = [key.removeprefix(prefix).partition(".")[0] for key in names if key.startswith(prefix)]
    return max((int(number) for number in numbers if number.isdecimal()), default=-1) + 1


def _build_image_shapes(config: VdrConfig, width: int, patch: int, layers: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "conv1.weight": (width, 3, patch, patch),
        "positional_embedding": ((config.image_px // patch) ** 2, width),
        "proj": (len(config.valid_ids), width),
    }
    norms = ["ln_pre", "ln_post"]
    for layer in range(layers):
        prefix = f"transformer.resblocks.{layer}."
        norms += [f"{prefix}ln_1", f"{prefix}ln_2"]
        shapes |= {f"{prefix}attn.in_proj_weight": (3 * width, width), f"{prefix}attn.in_proj_bias": (3 * width,)}
        for name, out, into in (("attn.out_proj", 1, 1), ("mlp.c_fc", 4, 1), ("mlp.c_proj", 1, 4)):
            shapes |= {f"{prefix}{name}.weight": (out * width, into * width), f"{prefix}{name}.bias": (out * width,)}
    for norm in norms:
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    return {f"encoder_p.{name}": dimensions for name, dimensions in shapes.items()}


def _build_text_tower(tensors: dict[str, Tensor], config: VdrConfig, folder: Path, device: TorchDevice) -> tuple[Any, Any]:
    """Return BERT without its pooler, and the layer norm after it."""
    import torch
    from transformers import BertConfig, BertModel

    from stair_es.model.adapters.weights import check_attention_heads, check_tensor_shapes, get_tensor_shape

    prefix = "encoder_q.bert_model."
    vocabulary, width = get_tensor_shape(tensors, f"{prefix}embeddings.word_embeddings.weight", 2, folder)
    positions, _ = get_tensor_shape(tensors, f"{prefix}embeddings.position_embeddings.weight", 2, folder)
    inner, _ = get_tensor_shape(tensors, f"{prefix}encoder.layer.0.intermediate.dense.weight", 2, folder)
    check_attention_heads("encoder_q", width, config.text_heads, folder)
    if config.max_text_tokens > positions:
        raise CheckpointError(
            f"{folder}: texts of {config.max_text_tokens} tokens, but there are {positions} positions", "Lower max_len."
        )
    bert_config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=_count_layers(tensors, f"{prefix}encoder.layer."),
        num_attention_heads=config.text_heads,
        intermediate_size=inner,
        max_position_embeddings=positions,
    )
    bert: Any = BertModel(bert_config, add_pooling_layer=False)
    norm = torch.nn.LayerNorm(width)
    shapes = {f"{prefix}{name}": tuple(value.shape) for name, value in bert.state_dict().items() if name not in _IGNORED_TENSORS}
    shapes |= {f"encoder_q.ln.{name}": (width,) for name in ("weight", "bias")}
    shapes[f"{prefix}embeddings.word_embeddings.weight"] = (len(config.vocabulary), width)
    check_tensor_shapes(tensors, shapes, folder)
    bert.load_state_dict(
        {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}, strict=False
    )
    norm.load_state_dict({name: tensors[f"encoder_q.ln.{name}"] for name in ("weight", "bias")})
    return device.place_network(bert), device.place_network(norm)
