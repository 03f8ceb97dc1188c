"""Losses of a two-tower model. Pure functions of tensors.

Shape suffixes: B batch (of all workers together), F tokens of the vocabulary, E dimensions of the compared vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, normalize, softmax


def compute_similarities(images_BE: Tensor, texts_BE: Tensor, scale: Tensor, *, cosine: bool) -> Tensor:
    """Return [B, B]: `scale` times the dot product of each image with each text, of unit vectors if `cosine`."""
    if cosine:
        images_BE, texts_BE = normalize_rows(images_BE), normalize_rows(texts_BE)
    return scale * images_BE @ texts_BE.T


def contrastive_loss(scores_BB: Tensor) -> Tensor:
    """Return the symmetric InfoNCE loss of a batch whose i-th image belongs to its i-th text.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.
    """
    targets_B = torch.arange(len(scores_BB), device=scores_BB.device)
    return (cross_entropy(scores_BB, targets_B) + cross_entropy(scores_BB.T, targets_B)) / 2


def flops_loss(weights_BF: Tensor) -> Tensor:
    """Return `sum_v (mean_b w_bv)^2`: a smooth estimate of the multiplications per query.

    Source: Paria et al., "Minimizing FLOPs to Learn Efficient Sparse Representations", ICLR 2020.
    """
    return weights_BF.mean(dim=0).square().sum()


def grounding_loss(logits_BF: Tensor, present_BF: Tensor) -> Tensor:
    """Return the mean of `-log_softmax(logits)[token]` over the caption's own tokens.

    The softmax is over the whole vocabulary, before activation and cap, so that a token with weight 0 gets a gradient as well.
    Captions without tokens are ignored. This is our addition to STAIR's method.
    """
    mask_BF = present_BF.to(logits_BF.dtype)
    counts_B = mask_BF.sum(dim=1)
    nll_B = -(log_softmax(logits_BF, dim=1) * mask_BF).sum(dim=1) / counts_B.clamp(min=1)
    return nll_B.sum() / (counts_B > 0).sum().clamp(min=1)


def distillation_loss(scores_BB: Tensor, teacher_BB: Tensor) -> Tensor:
    """Return the symmetric Kullback-Leibler divergence between the softmax of scores and of a teacher's (mean over the batch).

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.
    """

    def compute_divergence(student: Tensor, teacher: Tensor) -> Tensor:
        return kl_div(log_softmax(student, dim=1), softmax(teacher, dim=1), reduction="batchmean")

    return (compute_divergence(scores_BB, teacher_BB) + compute_divergence(scores_BB.T, teacher_BB.T)) / 2


def normalize_rows(vectors_BE: Tensor) -> Tensor:
    """Return the rows scaled to length 1; zero rows stay zero."""
    return normalize(vectors_BE, dim=1, eps=1e-6)
