"""Losses and schedules against formulas written out, number by number."""

from __future__ import annotations

import itertools
import math

import pytest

pytest.importorskip("torch")

import torch
from torch.nn.functional import cross_entropy, kl_div

from stair_es.training import losses
from stair_es.training.step import EMA, compute_flops_factor, compute_lr_factor


def draw_tensor(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_similarities_are_scaled_cosines_or_dot_products() -> None:
    images_BD, texts_BD, scale = draw_tensor(3, 4), draw_tensor(3, 4, seed=1), torch.tensor(7.0, dtype=torch.float64)
    dots_BB = losses.compute_similarities(images_BD, texts_BD, scale, cosine=False)
    cosines_BB = losses.compute_similarities(images_BD, texts_BD, scale, cosine=True)
    for row, column in itertools.product(range(3), repeat=2):
        image_D, text_D = images_BD[row], texts_BD[column]
        dot = sum(float(a) * float(b) for a, b in zip(image_D, text_D, strict=True))
        assert float(dots_BB[row, column]) == pytest.approx(7 * dot)
        assert float(cosines_BB[row, column]) == pytest.approx(7 * dot / float(image_D.norm() * text_D.norm()))
    assert not losses.compute_similarities(torch.zeros(2, 3), torch.ones(2, 3), torch.tensor(1.0), cosine=True).isnan().any()


def test_contrastive_is_info_nce_both_ways() -> None:
    scores_BB = draw_tensor(5, 5)
    total = 0.0
    for row in range(5):
        to_text = math.exp(scores_BB[row, row]) / sum(math.exp(float(score)) for score in scores_BB[row])
        to_image = math.exp(scores_BB[row, row]) / sum(math.exp(float(score)) for score in scores_BB[:, row])
        total -= (math.log(to_text) + math.log(to_image)) / 2
    assert float(losses.contrastive_loss(scores_BB)) == pytest.approx(total / 5)


def test_flops_is_the_squared_mean_weight_of_each_token() -> None:
    weights_BF = draw_tensor(4, 6).relu()
    expected = sum((sum(float(weights_F[word]) for weights_F in weights_BF) / 4) ** 2 for word in range(6))
    assert float(losses.flops_loss(weights_BF)) == pytest.approx(expected)


def test_grounding_is_cross_entropy_with_soft_targets() -> None:
    logits_BF = draw_tensor(4, 6)
    own_BF = torch.tensor([[1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1]], dtype=torch.bool)
    has_tokens_B = own_BF.any(dim=1)
    targets_BF = own_BF[has_tokens_B].double()
    targets_BF /= targets_BF.sum(dim=1, keepdim=True)
    expected = cross_entropy(logits_BF[has_tokens_B], targets_BF)
    assert float(losses.grounding_loss(logits_BF, own_BF)) == pytest.approx(float(expected))
    assert float(losses.grounding_loss(logits_BF, torch.zeros_like(own_BF))) == 0.0


def test_distillation_is_the_divergence_from_the_teacher() -> None:
    scores_BB, teacher_BB = draw_tensor(4, 4), draw_tensor(4, 4, seed=1)
    divergences = [
        kl_div(student.log_softmax(dim=1), target.log_softmax(dim=1), log_target=True, reduction="sum") / 4
        for student, target in ((scores_BB, teacher_BB), (scores_BB.T, teacher_BB.T))
    ]
    assert float(losses.distillation_loss(scores_BB, teacher_BB)) == pytest.approx(float(sum(divergences)) / 2)
    assert float(losses.distillation_loss(teacher_BB + 3, teacher_BB)) == pytest.approx(0, abs=1e-12)


def test_the_rate_rises_and_falls() -> None:
    assert [compute_lr_factor(step, steps=10, warmup=4) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert compute_lr_factor(7, steps=10, warmup=4) == pytest.approx(0.5)
    assert 0 < compute_lr_factor(9, steps=10, warmup=4) < 0.1
    assert compute_lr_factor(9, steps=10, warmup=4, decay="constant") == 1.0
    assert compute_lr_factor(0, steps=1, warmup=0) == 1.0
    assert compute_lr_factor(2, steps=3, warmup=3) == 1.0


def test_the_flops_factor_rises_with_the_square() -> None:
    assert [compute_flops_factor(step, warmup=4) for step in range(5)] == [1 / 16, 4 / 16, 9 / 16, 1.0, 1.0]
    assert compute_flops_factor(0, warmup=0) == 1.0


def test_average_follows_trained_weights() -> None:
    model = torch.nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    average = EMA(model, 0.9)
    expected, bias = model.weight.detach().clone(), model.bias.detach().clone()
    for _ in range(3):
        with torch.no_grad():
            model.weight += 1
            model.bias += 1
        average.update(model)
        expected = 0.9 * expected + 0.1 * model.weight.detach()
    trained = model.weight.detach().clone()
    with average.apply_to(model):
        torch.testing.assert_close(model.weight.detach(), expected)
        torch.testing.assert_close(model.bias.detach(), bias)
    assert torch.equal(model.weight, trained)
    no_average = EMA(model, 0.0)
    no_average.update(model)
    with no_average.apply_to(model):
        assert torch.equal(model.weight, trained)
