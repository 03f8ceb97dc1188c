"""Heads: from the states of a backbone to token weights, with STAIR's projection head, its activation and top-k.

Source: Chen et al., "STAIR: Learning Sparse Text and Image Representation in Grounded Tokens", EMNLP 2023 (arXiv 2301.13081);
the head is that of BERT's masked language model (Devlin et al., 2019), the pooling that of SPLADE (Formal et al., 2021).

Shape suffixes: B batch, L positions, D states of the backbone, T transform, F features, E dense dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stair_es.model.stair.configuration import INITIAL_BIAS, Pooling

_MAX_LOGITS = {"cpu": 1 << 19, "cuda": 1 << 26}
"""Maximum number of logits in memory without gradients, by device."""
_MIN_SLICE = 512


@dataclass(frozen=True)
class TowerOutput:
    """Output of a tower."""

    weights_BF: Tensor | None
    """Token weights, at most `top_k` positive per row; None without that head."""
    logits_BF: Tensor | None
    """Logits before activation, lexical weights and top-k, for grounding."""
    dense_BE: Tensor | None
    """Dense unit vectors; None without that head."""


class ProjectionHead(nn.Module):  # type: ignore[misc]  # mypy skips torch
    """States to token logits, a dense vector, or both over one transform."""

    def __init__(self, *, width: int, transform_dim: int, pool: Pooling, dropout: float, features: int, dense_dim: int) -> None:
        """Create a head with random weights.

        Args:
            width: Width of the states of the backbone.
            transform_dim: Width of the transform.
            pool: Pooling over positions: `max` of the logits, or `mean` of the states.
            dropout: Dropout of the states.
            features: Number of features; 0 for no token head.
            dense_dim: Dimensions of the dense vector; 0 for none.
        """
        super().__init__()
        self.pool = pool
        self.dropout = nn.Dropout(dropout)
        self.transform = nn.Sequential(nn.Linear(width, transform_dim), nn.GELU(), nn.LayerNorm(transform_dim))
        self.embedding_FT = nn.Parameter(torch.randn(features, transform_dim) * transform_dim**-0.5) if features else None
        self.bias_F = nn.Parameter(torch.full((features,), INITIAL_BIAS)) if features else None
        self.dense = nn.Linear(transform_dim, dense_dim, bias=False) if dense_dim else None

    def forward(
        self, states_BLD: Tensor, mask_BL: Tensor | None, tied_FT: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Compute logits [B, F] and unit dense vectors [B, E]; None for a missing head.

        Args:
            states_BLD: States of the backbone.
            mask_BL: Positions to use; None for all.
            tied_FT: Token embeddings to use instead of the head's own.
        """
        if self.pool == "mean":
            states_BLD = average_masked(states_BLD, mask_BL)[:, None]
            mask_BL = None
        hidden_BLT = self.transform(self.dropout(states_BLD))
        dense_BE = None
        if self.dense is not None:
            dense_BE = nn.functional.normalize(self.dense(average_masked(hidden_BLT, mask_BL)).float(), dim=-1)
        if self.bias_F is None:
            return None, dense_BE
        embedding_FT = self.embedding_FT if tied_FT is None else tied_FT
        return compute_max_logits(hidden_BLT, mask_BL, embedding_FT, self.bias_F.to(hidden_BLT.dtype)).float(), dense_BE


class LexicalHead(nn.Module):  # type: ignore[misc]  # mypy skips torch
    """Lexical weights of a text's own tokens: `relu(o[token] + u . state)`, the largest if a token occurs twice."""

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.word_F = nn.Parameter(torch.full((features,), 1.7))
        self.state_D = nn.Parameter(torch.zeros(width))

    def forward(self, states_BLD: Tensor, features_BL: Tensor) -> Tensor:
        """Compute the weights [B, F].

        Args:
            states_BLD: States of the backbone.
            features_BL: Feature of each position, -1 for none.
        """
        present_BL = features_BL >= 0
        safe_BL = features_BL.clamp(min=0)
        weights_BL = torch.relu(self.word_F[safe_BL] + states_BLD.float() @ self.state_D.float()) * present_BL
        weights_BF = weights_BL.new_zeros(len(features_BL), len(self.word_F))
        return weights_BF.scatter_reduce(1, safe_BL, weights_BL, reduce="amax", include_self=True)


def compute_max_logits(hidden_BLT: Tensor, mask_BL: Tensor | None, embedding_FT: Tensor, bias_F: Tensor) -> Tensor:
    """Compute the maximum logit [B, F] of each feature over the unmasked positions.

    Without gradients, features are processed in slices: [B, L, F] is too large for a cache, and writing it takes as long as
    computing it. The results are the same.

    Args:
        hidden_BLT: Transformed states.
        mask_BL: Positions to use; None for all.
        embedding_FT: Token embeddings.
        bias_F: Bias of each feature.
    """
    masked_BL1 = None if mask_BL is None else ~mask_BL[..., None]

    def compute_largest(features: slice) -> Tensor:
        logits_BLS = nn.functional.linear(hidden_BLT, embedding_FT[features], bias_F[features])
        return (logits_BLS if masked_BL1 is None else logits_BLS.masked_fill(masked_BL1, -torch.inf)).amax(dim=1)

    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return compute_largest(slice(None))
    positions = max(1, hidden_BLT.shape[0] * hidden_BLT.shape[1])
    width = max(_MIN_SLICE, _MAX_LOGITS.get(hidden_BLT.device.type, _MAX_LOGITS["cpu"]) // positions)
    return torch.cat([compute_largest(slice(i, i + width)) for i in range(0, len(bias_F), width)], dim=1)


def average_masked(x_BLD: Tensor, mask_BL: Tensor | None) -> Tensor:
    """Average the unmasked positions, [B, D].

    Args:
        x_BLD: States.
        mask_BL: Positions to use; None for all.
    """
    if mask_BL is None:
        return x_BLD.mean(dim=1)
    weights_BL = mask_BL.to(x_BLD.dtype)
    return (x_BLD * weights_BL[..., None]).sum(dim=1) / weights_BL.sum(dim=1, keepdim=True).clamp(min=1)


def apply_log1p_relu(logits_BF: Tensor, top_k: int) -> Tensor:
    """Apply `log(1 + relu(logits))` and keep the `top_k` largest of each row; the others are 0, without gradient.

    Args:
        logits_BF: Logits.
        top_k: Number of weights to keep per row; 0 for all.
    """
    weights_BF = torch.log1p(torch.relu(logits_BF))
    if not 0 < top_k < weights_BF.shape[1]:
        return weights_BF
    values_BK, indices_BK = weights_BF.topk(top_k, dim=1)
    return torch.zeros_like(weights_BF).scatter(1, indices_BK, values_BK)


def mark_present_tokens(features_BL: Tensor, features: int) -> Tensor:
    """Mark the features that occur in a text, [B, F], bool.

    Args:
        features_BL: Feature of each position, -1 for none.
        features: Number of features.
    """
    counts_BF = torch.zeros(len(features_BL), features + 1, dtype=torch.bool, device=features_BL.device)
    features_BL = torch.where(features_BL >= 0, features_BL, features)
    return counts_BF.scatter(1, features_BL, value=True)[:, :features]
