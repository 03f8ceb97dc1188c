"""Losses of a two-tower model: one worker's share of them. The sum of the shares is the loss of the batch. Pure functions.

The loss of a batch isn't a sum over rows: the softmax of a column, or the mean weight of a token, has rows of all workers. A
share therefore gets such sums as numbers, and has the value of its own rows but the gradient of the whole loss at them.

Shape suffixes: B rows of a worker, G rows of all workers, F tokens of the vocabulary, E dimensions of the compared vectors.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid, normalize


class ScoreRows(NamedTuple):
    """Scores of a worker's rows with the columns of all workers."""

    scores_BG: Tensor
    log_sums_B: Tensor
    """Logarithm of the sum of the exponentials of each row."""
    first: int = 0
    """Column that belongs to the first row."""

    @classmethod
    def from_vectors(
        cls, rows_BE: Tensor, columns_GE: Tensor, scale: Tensor | float, *, first: int = 0, repeats_BG: Tensor | None = None
    ) -> ScoreRows:
        """Compute `scale` times the dot product of each row with each column.

        Args:
            rows_BE: Vectors of the worker.
            columns_GE: Vectors of the other side, of all workers.
            scale: Factor.
            first: Column that belongs to the first row.
            repeats_BG: Pairs that aren't negatives of each other; their score is -inf.
        """
        scores_BG = scale * rows_BE @ columns_GE.T
        if repeats_BG is not None:
            scores_BG = scores_BG.masked_fill(repeats_BG, -torch.inf)
        return cls(scores_BG, scores_BG.logsumexp(dim=1), first)

    def get_own_scores(self) -> Tensor:
        """Return the score [B] of each row with the column that belongs to it."""
        return self.scores_BG.diagonal(self.first)

    def average_with(self, other: ScoreRows) -> ScoreRows:
        """Return the means of these scores and others of the same pairs."""
        scores_BG = (self.scores_BG + other.scores_BG) / 2
        return ScoreRows(scores_BG, scores_BG.logsumexp(dim=1), self.first)

    def detach(self) -> ScoreRows:
        """Return the scores without gradient."""
        return ScoreRows(self.scores_BG.detach(), self.log_sums_B.detach(), self.first)

    def compute_column_softmax(self, column_log_sums_G: Tensor) -> Tensor:
        """Compute [B, G]: what each column's softmax over the rows of all workers has at these rows.

        Args:
            column_log_sums_G: `log_sums_B` of the other direction, of all workers.
        """
        return (self.scores_BG - column_log_sums_G).exp()


def mark_repeats(hashes_B: Tensor, hashes_G: Tensor, first: int) -> Tensor:
    """Mark pairs of a row and a column, [B, G], whose hashes are equal without belonging together.

    Args:
        hashes_B: Hashes of the worker's rows.
        hashes_G: Hashes of all rows.
        first: Position of the first row in all rows.
    """
    repeats_BG = hashes_B[:, None] == hashes_G
    repeats_BG.diagonal(first).fill_(False)
    return repeats_BG


def contrastive_loss(rows: ScoreRows, column_log_sums_G: Tensor) -> Tensor:
    """Return the share of one direction in the symmetric InfoNCE loss.

    The softmax of a column is over rows of all workers, but its gradient at a row only needs the column's sum.
    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.

    Args:
        rows: Scores of the worker's images or texts.
        column_log_sums_G: Logarithms of the sums of the columns, without gradient.
    """
    own_B = rows.get_own_scores()
    columns_B = rows.compute_column_softmax(column_log_sums_G).sum(dim=1) - own_B
    return _average_rows(rows, rows.log_sums_B - own_B, columns_B)


def distillation_loss(rows: ScoreRows, column_log_sums_G: Tensor, teacher: ScoreRows, teacher_log_sums_G: Tensor) -> Tensor:
    """Return the share of one direction in the symmetric Kullback-Leibler divergence from the softmax of a teacher's scores.

    Source: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.

    Args:
        rows: Scores of the worker's images or texts.
        column_log_sums_G: Logarithms of the sums of the columns, without gradient.
        teacher: The teacher's scores of the same rows, which get no gradient.
        teacher_log_sums_G: The same of the teacher.
    """
    teacher = teacher.detach()
    finite_BG = rows.scores_BG.masked_fill(rows.scores_BG == -torch.inf, 0.0)  # where the teacher's softmax is 0
    logs_BG = log_softmax(teacher.scores_BG, dim=1)
    targets_BG = logs_BG.exp()
    negative_entropy_B = (targets_BG * logs_BG.masked_fill(logs_BG == -torch.inf, 0.0)).sum(dim=1)
    column_targets_BG = teacher.compute_column_softmax(teacher_log_sums_G)
    columns_B = rows.compute_column_softmax(column_log_sums_G).sum(dim=1) - (column_targets_BG * finite_BG).sum(dim=1)
    return _average_rows(rows, rows.log_sums_B - (targets_BG * finite_BG).sum(dim=1) + negative_entropy_B, columns_B)


def flops_loss(weights_BF: Tensor, sums_F: Tensor, rows: int) -> Tensor:
    """Return the share in `sum_v (mean_g w_gv)^2`: a smooth estimate of the multiplications per query.

    Source: Paria et al., "Minimizing FLOPs to Learn Efficient Sparse Representations", ICLR 2020.

    Args:
        weights_BF: Token weights of the worker.
        sums_F: Sum of each token's weights over all workers, without gradient.
        rows: Number of rows of all workers.
    """
    means_F = sums_F / rows
    value = means_F.square().sum() * (len(weights_BF) / rows)
    return _replace_value(2 * (weights_BF.sum(dim=0) @ means_F) / rows, value)


def grounding_loss(logits_BF: Tensor, present_BF: Tensor, captions: Tensor) -> Tensor:
    """Return the share in the mean of `-log_softmax(logits)[token]` over the caption's own tokens.

    The softmax is over the whole vocabulary, before activation and cap, so that a token with weight 0 gets a gradient as well.
    Captions without tokens are ignored. This is our addition to STAIR's method.

    Args:
        logits_BF: Logits of the worker.
        present_BF: Which tokens its captions have.
        captions: Number of captions with tokens, of all workers.
    """
    mask_BF = present_BF.to(logits_BF.dtype)
    nll_B = -(log_softmax(logits_BF, dim=1) * mask_BF).sum(dim=1) / mask_BF.sum(dim=1).clamp(min=1)
    return nll_B.sum() / captions.clamp(min=1)


def gating_loss(logits_BF: Tensor, weights_BF: Tensor, caption_BF: Tensor, captions: Tensor) -> Tensor:
    """Return the share in the mean of `-sum_v q_v logsigmoid(logits_v)`: caption-gated token supervision.

    `q` is the distribution over the caption's own tokens that is proportional to `(w_v + mean(w)) c_v`, with the weights `w` of
    the image and `c` of the caption, both without gradient. A token that the image has already is pushed up more than one that
    it lacks. Source: V-SPLADE, "Inference-Free Multimodal Learned Sparse Retrieval for Production-Scale Visual Document Search",
    arXiv 2605.30917.

    Args:
        logits_BF: Logits of the worker's images.
        weights_BF: Their token weights.
        caption_BF: Token weights of the captions, 0 for tokens that aren't their own.
        captions: Number of captions with tokens, of all workers.
    """
    weights_BF = weights_BF.detach()
    overlap_BF = (weights_BF + weights_BF.mean(dim=1, keepdim=True)) * caption_BF.detach()
    targets_BF = overlap_BF / overlap_BF.sum(dim=1, keepdim=True).clamp(min=1e-8)
    return -(targets_BF * logsigmoid(logits_BF)).sum() / captions.clamp(min=1)


def normalize_rows(vectors_BE: Tensor) -> Tensor:
    """Return the rows scaled to length 1; zero rows stay zero."""
    return normalize(vectors_BE, dim=1, eps=1e-6)


def _average_rows(rows: ScoreRows, values_B: Tensor, columns_B: Tensor) -> Tensor:
    """Return half of the mean over all workers' rows: `columns_B` has the gradient of the columns, but no value."""
    return _replace_value((values_B + columns_B).sum(), values_B.sum()) / (2 * rows.scores_BG.shape[1])


def _replace_value(objective: Tensor, value: Tensor) -> Tensor:
    """Return a tensor with the gradient of one and the value of the other."""
    return objective - objective.detach() + value.detach()
