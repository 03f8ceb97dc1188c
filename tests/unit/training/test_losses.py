"""Losses and schedules against formulas written out, number by number."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")

import torch
from torch.nn.functional import cross_entropy, kl_div

from stair_es.training import losses
from stair_es.training.step import EMA, compute_flops_factor, compute_lr_factor


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_similarities_are_scaled_cosines_or_dot_products() -> None:
    images, texts, scale = drawn(3, 4), drawn(3, 4, seed=1), torch.tensor(7.0, dtype=torch.float64)
    dots = losses.compute_similarities(images, texts, scale, cosine=False)
    cosines = losses.compute_similarities(images, texts, scale, cosine=True)
    for row in range(3):
        for column in range(3):
            dot = sum(float(a) * float(b) for a, b in zip(images[row], texts[column], strict=True))
            assert float(dots[row, column]) == pytest.approx(7 * dot)
            lengths = float(images[row].norm() * texts[column].norm())
            assert float(cosines[row, column]) == pytest.approx(7 * dot / lengths)
    assert not losses.compute_similarities(torch.zeros(2, 3), torch.ones(2, 3), torch.tensor(1.0), cosine=True).isnan().any()


def test_contrastive_is_info_nce_both_ways() -> None:
    scores = drawn(5, 5)
    total = 0.0
    for row in range(5):
        to_text = math.exp(scores[row, row]) / sum(math.exp(float(score)) for score in scores[row])
        to_image = math.exp(scores[row, row]) / sum(math.exp(float(score)) for score in scores[:, row])
        total -= (math.log(to_text) + math.log(to_image)) / 2
    assert float(losses.contrastive_loss(scores)) == pytest.approx(total / 5)


def test_flops_is_the_squared_mean_weight_of_each_word() -> None:
    weights = drawn(4, 6).relu()
    expected = sum((sum(float(row[word]) for row in weights) / 4) ** 2 for word in range(6))
    assert float(losses.flops_loss(weights)) == pytest.approx(expected)


def test_grounding_is_cross_entropy_with_soft_targets() -> None:
    logits = drawn(4, 6)
    own = torch.tensor([[1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1]], dtype=torch.bool)
    with_words = own.any(dim=1)
    targets = own[with_words].double()
    targets /= targets.sum(dim=1, keepdim=True)
    expected = cross_entropy(logits[with_words], targets)
    assert float(losses.grounding_loss(logits, own)) == pytest.approx(float(expected))
    assert float(losses.grounding_loss(logits, torch.zeros_like(own))) == 0.0


def test_distillation_is_the_divergence_from_the_teacher_both_ways() -> None:
    scores, teacher = drawn(4, 4), drawn(4, 4, seed=1)
    ways = [
        kl_div(s.log_softmax(dim=1), t.log_softmax(dim=1), log_target=True, reduction="sum") / 4
        for s, t in ((scores, teacher), (scores.T, teacher.T))
    ]
    assert float(losses.distillation_loss(scores, teacher)) == pytest.approx(float(sum(ways)) / 2)
    assert float(losses.distillation_loss(teacher + 3, teacher)) == pytest.approx(0, abs=1e-12)


def test_the_rate_rises_and_falls() -> None:
    assert [compute_lr_factor(step, steps=10, warmup=4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert compute_lr_factor(4, steps=10, warmup=4) == 1.0
    assert compute_lr_factor(7, steps=10, warmup=4) == pytest.approx(0.5)
    assert 0 < compute_lr_factor(9, steps=10, warmup=4) < 0.1
    assert compute_lr_factor(9, steps=10, warmup=4, decay="constant") == 1.0
    assert compute_lr_factor(0, steps=1, warmup=0) == 1.0
    assert compute_lr_factor(2, steps=3, warmup=3) == 1.0


def test_the_regulariser_rises_with_the_square() -> None:
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
    own = model.weight.detach().clone()
    with average.apply_to(model):
        torch.testing.assert_close(model.weight.detach(), expected)
        torch.testing.assert_close(model.bias.detach(), bias)
    assert torch.equal(model.weight, own)
    none = EMA(model, 0.0)
    none.update(model)
    with none.apply_to(model):
        assert torch.equal(model.weight, own)
