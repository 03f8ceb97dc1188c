"""The STAIR model as a PyTorch module: two towers over one vocabulary of features (tokens or whole words).

Shape suffixes: B batch, C channels, H height, W width, L positions, D states, F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from stair_es.config.defaults import DataDir
from stair_es.errors import CheckpointError
from stair_es.model.checkpoint import check_token_ids
from stair_es.model.stair import heads
from stair_es.model.stair.backbones import (
    DenseBackbone,
    ImageBackbone,
    TextBackbone,
    build_image_backbone,
    build_text_backbone,
)
from stair_es.model.stair.configuration import ImageTowerConfig, StairConfig, TextMask, TextTowerConfig
from stair_es.model.stair.heads import LexicalHead, ProjectionHead, TowerOutput
from stair_es.model.stair.tokenizer import StairTokenizer, TokenizedTexts

INITIAL_SCALE, MAX_SCALE = 20.0, 100.0


@dataclass(frozen=True)
class TextBatch:
    """A batch of tokenized texts."""

    ids_BL: Tensor
    mask_BL: Tensor
    features_BL: Tensor
    """Feature of each token that can represent the text, else -1."""
    states_BLD: Tensor | None = None
    """States of the backbone, if already computed; else the backbone is run."""

    @classmethod
    def from_tokenized(cls, tokenized: TokenizedTexts) -> TextBatch:
        """Return the batch of tokenized texts."""
        return cls(
            torch.from_numpy(tokenized.ids_BL), torch.from_numpy(tokenized.mask_BL), torch.from_numpy(tokenized.features_BL)
        )

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> TextBatch:
        """Return the batch on another device, with states of this type; None for the type that they have."""
        states = None if self.states_BLD is None else self.states_BLD.to(device=device, dtype=dtype)
        return TextBatch(self.ids_BL.to(device), self.mask_BL.to(device), self.features_BL.to(device), states)

    def __len__(self) -> int:
        return len(self.ids_BL)

    def __getitem__(self, rows: slice) -> TextBatch:
        """Return a slice of the batch."""
        states = None if self.states_BLD is None else self.states_BLD[rows]
        return TextBatch(self.ids_BL[rows], self.mask_BL[rows], self.features_BL[rows], states)


class StairModel(nn.Module):  # type: ignore[misc]  # mypy skips torch
    """Images and texts to token weights, dense vectors, or both."""

    feature_ids_F: Tensor

    def __init__(
        self, config: StairConfig, tokens: StairTokenizer, *, pretrained: bool = False, home: DataDir | None = None
    ) -> None:
        """Create a model whose heads have random weights.

        Args:
            config: Configuration, with those of the backbones.
            tokens: Tokenizer and features.
            pretrained: Whether to download the published weights of the backbones.
            home: Data folder, for the weights of a packaged text backbone; None for that of the environment.

        Raises:
            ModelError: If a backbone can't be built, or tied widths differ.
            MissingExtra: If a library isn't installed.
        """
        super().__init__()
        self.config, self.tokens = config, tokens
        features = len(tokens.tokens) if "tokens" in config.heads else 0
        dense = config.dense_dim if "dense" in config.heads else 0
        self.image = _ImageTower(config.image, features, dense, pretrained=pretrained)
        self.text = _TextTower(config.text, features, dense, pretrained=pretrained, home=home)
        if not config.has_dense_backbones:
            rows, name = len(self.text.backbone.word_embeddings_VD), config.text.backbone.name
            check_token_ids(tokens.tokenizer.get_vocab(), rows, f"the text backbone {name!r}" if name else "the text backbone")
        self.log_scale = nn.Parameter(torch.tensor(INITIAL_SCALE).log())
        self.max_scale = MAX_SCALE
        self.register_buffer("feature_ids_F", torch.from_numpy(tokens.feature_ids_F), persistent=False)
        if tokens.word_vocabulary is None:
            self.register_buffer("feature_of_V", torch.from_numpy(tokens.feature_of_V), persistent=False)
        if features:
            self._share_embeddings(config)

    def _share_embeddings(self, config: StairConfig) -> None:
        """Share token embeddings as configured."""
        if config.text.tie:
            width = self.text.backbone.word_embeddings_VD.shape[1]
            if width != config.text.transform_dim:
                raise CheckpointError(
                    f"tied text embeddings need transform_dim {width}, as wide as the backbone's, not {config.text.transform_dim}"
                )
            self.text.head.embedding_FT = None
        if config.image.tie:
            if config.image.transform_dim != config.text.transform_dim:
                raise CheckpointError("tied towers need the same transform_dim")
            self.image.head.embedding_FT = None

    @property
    def scale(self) -> Tensor:
        """Return the factor for similarities before the softmax of the contrastive loss."""
        return self.log_scale.exp().clamp(max=self.max_scale)

    def get_text_embeddings(self) -> Tensor | None:
        """Return the token embeddings [F, T] of the text head, its own or the backbone's; None without a token head."""
        if "tokens" not in self.config.heads:
            return None
        if self.config.text.tie:
            return self.text.backbone.word_embeddings_VD[self.feature_ids_F]
        return self.text.head.embedding_FT

    def encode_images(self, images: Tensor, *, top_k: int | None = None) -> TowerOutput:
        """Encode images.

        Args:
            images: Pixels [B, H, W, C] of 0..255 (uint8), or precomputed states [B, L, D] of the backbone.
            top_k: Number of weights to keep; None for that of the configuration.
        """
        states_BLD = self.image.compute_states(images) if images.dtype == torch.uint8 else images
        tied_FT = self.get_text_embeddings() if self.config.image.tie else None
        logits_BF, dense_BE = self.image.head(states_BLD, None, tied_FT)
        limit = self.config.image.top_k if top_k is None else top_k
        return TowerOutput(None if logits_BF is None else heads.apply_log1p_relu(logits_BF, limit), logits_BF, dense_BE)

    def encode_texts(self, texts: TextBatch, *, mask: TextMask = "none", top_k: int | None = None) -> TowerOutput:
        """Encode texts.

        Args:
            texts: Batch of texts.
            mask: Where a text may have weights. A tower that is always masked has them at the text's own tokens only.
            top_k: Number of weights to keep; None for that of the configuration.
        """
        states_BLD = texts.states_BLD
        if states_BLD is None:
            states_BLD = self.text.backbone(texts.ids_BL, texts.mask_BL)
        tied_FT = self.get_text_embeddings() if self.config.text.tie else None
        mask_BL = None if self.config.has_dense_backbones else texts.mask_BL  # a dense model has one state for all positions
        logits_BF, dense_BE = self.text.head(states_BLD, mask_BL, tied_FT)
        if logits_BF is None:
            return TowerOutput(None, None, dense_BE)
        features_BL = texts.features_BL
        strength_BF = logits_BF
        if self.text.own_words is not None:
            strength_BF = torch.relu(logits_BF) + self.text.own_words(states_BLD, features_BL)
        if self.config.text.always_masked or mask == "own" or (mask == "tokens" and self.tokens.word_vocabulary is not None):
            strength_BF = strength_BF * heads.mark_present_tokens(features_BL, strength_BF.shape[1])
        elif mask == "tokens":
            all_BL = torch.where(texts.mask_BL, self.feature_of_V[texts.ids_BL], -1)
            strength_BF = strength_BF * heads.mark_present_tokens(all_BL, strength_BF.shape[1])
        limit = self.config.text.top_k if top_k is None else top_k
        return TowerOutput(heads.apply_log1p_relu(strength_BF, limit), logits_BF, dense_BE)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def set_bias(self, value: float) -> None:
        """Set the bias of all features in both heads."""
        for head in (self.image.head, self.text.head):
            if head.bias_F is not None:
                head.bias_F.fill_(value)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def set_scale(self, value: float) -> None:
        """Set the factor for similarities."""
        self.log_scale.fill_(math.log(value))

    def compile_towers(self) -> None:
        """Let `torch.compile` compile the networks on their first use. The names of parameters stay."""
        for tower in (self.image, self.text):
            for module in (tower.backbone, tower.head):
                module.compile()

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def initialize_from_text_embeddings(self) -> None:
        """Initialize the embeddings of both heads from those of the text backbone, centered, each of length 1.

        A whole word gets the mean of the embeddings of its tokens.

        Raises:
            ModelError: If their width differs from the transform_dim of the heads.
        """
        table_VD = self.text.backbone.word_embeddings_VD.float()
        token_ids = [torch.tensor(row) for row in self.tokens.list_token_ids()]
        ends_F = torch.tensor([len(row) for row in token_ids]).cumsum(0)
        begins_F = nn.functional.pad(ends_F[:-1], (1, 0)).to(table_VD.device)
        rows_FD = nn.functional.embedding_bag(torch.cat(token_ids).to(table_VD.device), table_VD, begins_F, mode="mean")
        unit_FD = nn.functional.normalize(rows_FD - rows_FD.mean(dim=0), dim=1)
        for side, head in (("image", self.image.head), ("text", self.text.head)):
            if head.embedding_FT is None:
                continue
            if head.embedding_FT.shape[1] != unit_FD.shape[1]:
                raise CheckpointError(
                    f"the text network's word embeddings have {unit_FD.shape[1]} dimensions,"
                    f" the {side} head's transform_dim is {head.embedding_FT.shape[1]}",
                    "Make them the same, or start from random embeddings.",
                )
            head.embedding_FT.copy_(unit_FD)


class _ImageTower(nn.Module):  # type: ignore[misc]  # mypy skips torch
    mean_C: Tensor
    std_C: Tensor

    def __init__(self, tower: ImageTowerConfig, features: int, dense_dim: int, *, pretrained: bool) -> None:
        super().__init__()
        self.backbone: ImageBackbone | DenseBackbone = build_image_backbone(tower.backbone, pretrained=pretrained)
        self.head = _build_head(tower, self.backbone.width, features, dense_dim)
        self.register_buffer("mean_C", torch.tensor(tower.mean), persistent=False)
        self.register_buffer("std_C", torch.tensor(tower.std), persistent=False)

    def compute_states(self, pixels_BHWC: Tensor) -> Tensor:
        """Return the states [B, L, D] of the backbone."""
        scaled_BHWC = (pixels_BHWC.float() / 255 - self.mean_C) / self.std_C
        dtype = self.head.transform[0].weight.dtype
        states_BLD: Tensor = self.backbone(scaled_BHWC.permute(0, 3, 1, 2).contiguous().to(dtype))
        return states_BLD

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _ImageTower:
        """Keep mean and standard deviation in fp32 when the weights are cast: rounded, they would shift all pixels."""
        exact = self.mean_C, self.std_C
        super()._apply(fn, recurse)
        self.mean_C, self.std_C = (values_C.to(self.mean_C.device) for values_C in exact)
        return self


class _TextTower(nn.Module):  # type: ignore[misc]  # mypy skips torch
    def __init__(self, tower: TextTowerConfig, features: int, dense_dim: int, *, pretrained: bool, home: DataDir | None) -> None:
        super().__init__()
        self.backbone: TextBackbone | DenseBackbone = build_text_backbone(tower.backbone, pretrained=pretrained, home=home)
        self.head = _build_head(tower, self.backbone.width, features, dense_dim)
        self.own_words = LexicalHead(self.backbone.width, features) if tower.own_words and features else None


def _build_head(tower: Any, width: int, features: int, dense_dim: int) -> ProjectionHead:  # noqa: ANN401  either tower
    return ProjectionHead(
        width=width,
        transform_dim=tower.transform_dim,
        pool=tower.pool,
        dropout=tower.dropout,
        features=features,
        dense_dim=dense_dim,
    )


def remove_dropout(config: StairConfig) -> StairConfig:
    """Remove dropout from the configuration, for a finished model."""
    return replace(config, image=replace(config.image, dropout=0.0), text=replace(config.text, dropout=0.0))
