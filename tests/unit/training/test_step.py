"""One update: chunks, masks and several workers give the gradients of the whole batch."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from support.models.torch_workers import ALL, TEXTS, build_batch, build_model, run_steps, run_worker
from torch import multiprocessing

from stair_es.model.stair.modeling import StairModel
from stair_es.training import losses
from stair_es.training.config.schema import TrainingStage
from stair_es.training.step import GradCacheStep, build_param_groups, set_train_mode
from stair_es.training.workers import SingleProcess


def gradients(model: StairModel, stage: TrainingStage, chunk: int = 0, seed: int = 5) -> dict[str, torch.Tensor]:
    build_param_groups(model, stage, {"head": 1.0, "backbone": 1.0, "scale": 1.0}, 0.0)
    set_train_mode(model, stage)
    model.zero_grad()
    GradCacheStep(model=model, stage=stage, workers=SingleProcess(), make_autocast=nullcontext, chunk=chunk).compute_gradients(
        build_batch(model), 0, seed
    )
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("heads", [("tokens",), ("tokens", "dense"), ("dense",)])
def test_gradients_match_plain_back_propagation(heads: tuple[str, ...]) -> None:
    model = build_model(heads=heads, dense_dim=6)
    stage = TrainingStage(name="s", steps=1, losses=ALL if "tokens" in heads else {"contrastive": 1.0, "distil": 0.3})
    result = gradients(model, stage)
    model.zero_grad()
    batch = build_batch(model)
    image, text = model.encode_images(batch.images), model.encode_texts(batch.texts)
    seen, read = (image.dense_BE, text.dense_BE) if "dense" in heads else (image.weights_BF, text.weights_BF)
    assert seen is not None
    assert read is not None
    assert batch.teacher is not None
    scores = losses.compute_similarities(seen, read, model.scale, cosine=True)
    total = losses.contrastive_loss(scores) + 0.3 * losses.distillation_loss(scores, 20 * batch.teacher[0] @ batch.teacher[1].T)
    if "tokens" in heads:
        own = torch.zeros(12, len(model.tokens.tokens))
        for row, written in enumerate(TEXTS):
            for word in written.replace("runs", "run ##s").split():
                if word in model.tokens.tokens and word != "the":
                    own[row, model.tokens.tokens.index(word)] = 1
        assert image.weights_BF is not None
        assert text.weights_BF is not None
        total = total + 0.01 * losses.flops_loss(image.weights_BF) + 0.02 * losses.flops_loss(text.weights_BF)
        total = total + 0.5 * losses.grounding_loss(image.logits_BF, own) + 0.25 * losses.grounding_loss(text.logits_BF, own)
    total.backward()
    expected = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    assert result.keys() == expected.keys()
    for name, grad in expected.items():
        torch.testing.assert_close(result[name], grad, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("chunk", [3, 5])
def test_chunks_give_the_same_gradients(chunk: int) -> None:
    model, stage = build_model(), TrainingStage(name="s", steps=1, losses=ALL)
    whole, parts = gradients(model, stage), gradients(model, stage, chunk)
    assert whole.keys() == parts.keys()
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], atol=1e-6, rtol=1e-4, msg=name)


def test_dropout_of_chunks_is_reproducible() -> None:
    model = build_model()
    model.image.head.dropout.p = 0.5
    stage = TrainingStage(name="s", steps=1)
    one, second, other = (gradients(model, stage, 3, seed) for seed in (5, 5, 6))
    assert all(torch.equal(one[name], second[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    # a second pass that drew anew would multiply the gradient of one draw with the derivative of another
    set_train_mode(model, stage)
    batch, parts = build_batch(model), []
    for index, begin in enumerate(range(0, 12, 3)):
        torch.manual_seed(5 + index)
        cut = slice(begin, begin + 3)
        parts.append((model.encode_images(batch.images[cut]).weights_BF, model.encode_texts(batch.texts[cut]).weights_BF))
    seen, read = (torch.cat(column) for column in zip(*parts, strict=True))
    model.zero_grad()
    losses.contrastive_loss(losses.compute_similarities(seen, read, model.scale, cosine=True)).backward()
    for name, parameter in model.named_parameters():
        if name in one:
            torch.testing.assert_close(one[name], parameter.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_a_frozen_tower_gets_no_gradient_and_no_dropout() -> None:
    model = build_model(image_dropout=0.5)
    model.image.head.dropout.p = 0.5
    result = gradients(model, TrainingStage(name="s", steps=1, train=("text.head",)))
    assert {name.split(".backbone")[0].split(".")[0] for name in result} == {"text", "log_scale"}
    assert not any(".backbone." in name for name in result)
    assert not any(module.training for module in model.image.backbone.modules())
    assert not model.image.head.dropout.training
    assert model.text.head.training


def test_masked_stage_uses_own_words_only() -> None:
    model = build_model()
    batch = build_batch(model)
    masked, free = model.encode_texts(batch.texts, mask="own"), model.encode_texts(batch.texts)
    assert masked.weights_BF is not None
    assert free.weights_BF is not None
    for row, written in enumerate(TEXTS):
        words = {model.tokens.tokens[index] for index in masked.weights_BF[row].nonzero()[:, 0].tolist()}
        assert words <= set(written.replace("runs", "run ##s").split())
    assert int((free.weights_BF > 0).sum()) > int((masked.weights_BF > 0).sum())
    own = TrainingStage(name="s", steps=1, losses={"contrastive": 1.0}, text_mask="own")
    with_mask, without = gradients(model, own), gradients(model, TrainingStage(name="s", steps=1, losses={"contrastive": 1.0}))
    bias = "text.head.bias_F"
    there = {word for text in TEXTS for word in text.replace("runs", "run ##s").split()}
    foreign = [index for index, word in enumerate(model.tokens.tokens) if word not in there]
    assert not with_mask[bias][foreign].any()
    assert without[bias][foreign].any()


def test_a_plain_mask_lets_stop_words_learn() -> None:
    model = build_model()
    own, plain = (
        gradients(model, TrainingStage(name="s", steps=1, text_mask=mask))["text.head.bias_F"] for mask in ("own", "tokens")
    )
    stop, absent = (model.tokens.tokens.index(word) for word in ("the", "blue"))
    assert own[stop] == 0
    assert plain[stop] != 0
    there = {word for text in TEXTS for word in text.replace("runs", "run ##s").split()}
    assert not plain[[index for index, word in enumerate(model.tokens.tokens) if word not in there]].any()
    assert absent  # TEXTS has it: it learns under both
    assert own[absent] != 0
    assert plain[absent] != 0


def test_two_workers_match_one(tmp_path: Path) -> None:
    multiprocessing.spawn(run_worker, (str(tmp_path),), nprocs=2)
    alone = run_steps(build_model(), SingleProcess(), chunk=0)
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    begin = dict(build_model().named_parameters())
    for name, expected in alone.items():
        assert torch.equal(one[name], two[name]), name
        torch.testing.assert_close(one[name], expected, atol=2e-5, rtol=1e-4, msg=name)
    assert not torch.equal(begin["text.head.bias_F"], alone["text.head.bias_F"])
    for rank in (0, 1):
        told = torch.load(tmp_path / f"{rank}-collectives.pt", weights_only=True)
        assert {name: value.tolist() for name, value in told.items()} == {"gathered": [1, 1, 2, 2], "sum": [3, 3], "first": [7]}
