"""Losses and schedules against formulas written out, number by number."""

from __future__ import annotations

from functools import partial

import pytest

pytest.importorskip("torch")

import torch
from torch.nn.functional import cross_entropy, kl_div

from stair_es.training import losses
from stair_es.training.optimizers import compute_lr_factor
from stair_es.training.step import EMA, compute_flops_factor


def draw_tensor(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sum_directions(
    images_BD: torch.Tensor, texts_BD: torch.Tensor, teacher_BB: torch.Tensor | None, hashes_B: torch.Tensor | None, parts: int
) -> torch.Tensor:
    """Return the sum of the shares of several workers, each with its rows of both directions."""
    rows, total = len(images_BD) // parts, torch.zeros((), dtype=torch.float64)

    def score(part: int, vectors_BD: torch.Tensor, others_BD: torch.Tensor) -> losses.ScoreRows:
        own = slice(part * rows, (part + 1) * rows)
        repeats = None if hashes_B is None else losses.mark_repeats(hashes_B[own], hashes_B, own.start)
        return losses.ScoreRows.from_vectors(vectors_BD[own], others_BD.detach(), 7.0, first=own.start, repeats_BG=repeats)

    def score_teacher(part: int, scores_BB: torch.Tensor) -> losses.ScoreRows:
        return score(part, scores_BB / 7, torch.eye(len(scores_BB), dtype=torch.float64))

    for (vectors_BD, others_BD), target in (
        ((images_BD, texts_BD), teacher_BB),
        ((texts_BD, images_BD), None if teacher_BB is None else teacher_BB.T),
    ):
        other_sums = torch.cat([score(part, others_BD, vectors_BD).log_sums_B for part in range(parts)]).detach()
        for part in range(parts):
            block = score(part, vectors_BD, others_BD)
            if target is None:
                total = total + losses.contrastive_loss(block, other_sums)
            else:
                sums = torch.cat([score_teacher(part, target.T).log_sums_B for part in range(parts)])
                total = total + losses.distillation_loss(block, other_sums, score_teacher(part, target), sums)
    return total


def compute_expected(
    images_BD: torch.Tensor, texts_BD: torch.Tensor, teacher_BB: torch.Tensor | None, hashes_B: torch.Tensor | None
) -> torch.Tensor:
    """Return the loss of the whole batch, row by row, without the pairs that aren't negatives."""
    count, total = len(images_BD), torch.zeros((), dtype=torch.float64)
    scores_BB = 7 * images_BD @ texts_BD.T
    for student, target in ((scores_BB, teacher_BB), (scores_BB.T, None if teacher_BB is None else teacher_BB.T)):
        for row in range(count):
            used = [column for column in range(count) if column == row or hashes_B is None or hashes_B[row] != hashes_B[column]]
            if target is not None:
                targets = target[row][used].log_softmax(dim=0)
                total = total + kl_div(student[row][used].log_softmax(dim=0), targets, log_target=True, reduction="sum")
            else:
                total = total - student[row][used].log_softmax(dim=0)[used.index(row)]
    return total / (2 * count)


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("has_repeats", [False, True])
@pytest.mark.parametrize("has_teacher", [False, True])
def test_shares_have_value_and_gradient_of_the_whole_batch(has_teacher: bool, has_repeats: bool, parts: int) -> None:
    hashes_B = torch.tensor([5, 1, 5, 2, 3, 5, 4, 2]) if has_repeats else None
    teacher_BB = 3 * draw_tensor(8, 8, seed=2) if has_teacher else None
    results = []
    for compute in (compute_expected, partial(sum_directions, parts=parts)):
        images_BD, texts_BD = draw_tensor(8, 4).requires_grad_(), draw_tensor(8, 4, seed=1).requires_grad_()
        loss = compute(images_BD, texts_BD, teacher_BB, hashes_B)
        loss.backward()
        results.append((loss, images_BD.grad, texts_BD.grad))
    torch.testing.assert_close(results[1], results[0])


def test_zero_vectors_have_no_direction() -> None:
    assert not losses.normalize_rows(torch.zeros(2, 3)).any()
    torch.testing.assert_close(losses.normalize_rows(torch.tensor([[3.0, 4.0]])), torch.tensor([[0.6, 0.8]]))


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_flops_is_the_squared_mean_weight_of_each_token(parts: int) -> None:
    weights_BF = draw_tensor(4, 6).relu().requires_grad_()
    expected = sum((sum(weights_F[word] for weights_F in weights_BF) / 4) ** 2 for word in range(6))
    sums_F = weights_BF.detach().sum(dim=0)
    result = torch.stack([losses.flops_loss(part, sums_F, 4) for part in weights_BF.chunk(parts)]).sum()
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(torch.autograd.grad(result, weights_BF), torch.autograd.grad(expected, weights_BF))


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_grounding_is_cross_entropy_with_soft_targets(parts: int) -> None:
    logits_BF = draw_tensor(4, 6)
    own_BF = torch.tensor([[1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1]], dtype=torch.bool)
    has_tokens_B = own_BF.any(dim=1)
    targets_BF = own_BF[has_tokens_B].double()
    targets_BF /= targets_BF.sum(dim=1, keepdim=True)
    expected = cross_entropy(logits_BF[has_tokens_B], targets_BF)
    pairs = zip(logits_BF.chunk(parts), own_BF.chunk(parts), strict=True)
    shares = [float(losses.grounding_loss(*pair, torch.tensor(3.0))) for pair in pairs]
    assert sum(shares) == pytest.approx(float(expected))
    assert float(losses.grounding_loss(logits_BF, torch.zeros_like(own_BF), torch.tensor(0.0))) == 0.0


def test_the_rate_rises_and_falls() -> None:
    assert [compute_lr_factor(step, steps=10, warmup=4) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert compute_lr_factor(7, steps=10, warmup=4) == pytest.approx(0.5)
    assert 0 < compute_lr_factor(9, steps=10, warmup=4) < 0.1
    assert compute_lr_factor(9, steps=10, warmup=4, decay="constant") == 1.0
    falling = [compute_lr_factor(step, steps=10, warmup=4, decay="linear") for step in (3, 4, 7, 10)]
    assert falling == pytest.approx([1.0, 1.0, 0.5, 0.0])
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
