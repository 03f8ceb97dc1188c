"""One update: chunks, masks and several workers give the gradients of the whole batch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from support.models import tiny_training
from support.models.torch_workers import ALL, TEXTS, build_batch, build_model, run_steps, run_worker
from torch import multiprocessing

from stair_es.model.stair.modeling import StairModel
from stair_es.training import losses
from stair_es.training.config.schema import TrainingStage
from stair_es.training.step import GradCacheStep, build_param_groups, set_train_mode
from stair_es.training.workers import SingleProcess

TEXT_BIAS = "text.head.bias_F"


def compute_gradients(model: StairModel, stage: TrainingStage, chunk: int = 0, seed: int = 5) -> dict[str, torch.Tensor]:
    build_param_groups(model, stage, {"head": 1.0, "backbone": 1.0, "scale": 1.0}, 0.0)
    set_train_mode(model, stage)
    model.zero_grad()
    update = GradCacheStep(model=model, stage=stage, workers=SingleProcess(), make_autocast=nullcontext, chunk=chunk)
    update.compute_gradients(build_batch(model), 0, seed)
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def list_tokens(text: str) -> list[str]:
    return text.replace("runs", "run ##s").split()


def find_absent_tokens(model: StairModel) -> list[int]:
    """Return the indices of the tokens that no text of the batch has."""
    present = {token for text in TEXTS for token in list_tokens(text)}
    return [index for index, token in enumerate(model.tokens.tokens) if token not in present]


def assert_same_gradients(gradients: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("heads", [("tokens",), ("tokens", "dense"), ("dense",)])
def test_gradients_match_plain_back_propagation(heads: tuple[str, ...]) -> None:
    model = build_model(heads=heads, dense_dim=6)
    stage = TrainingStage(name="s", steps=1, losses=ALL if "tokens" in heads else {"contrastive": 1.0, "distil": 0.3})
    result = compute_gradients(model, stage)
    model.zero_grad()
    batch = build_batch(model)
    image, text = model.encode_images(batch.images), model.encode_texts(batch.texts)
    images_BD, texts_BD = (image.dense_BE, text.dense_BE) if "dense" in heads else (image.weights_BF, text.weights_BF)
    assert images_BD is not None
    assert texts_BD is not None
    assert batch.teacher is not None
    scores_BB = losses.compute_similarities(images_BD, texts_BD, model.scale, cosine=True)
    teacher_BB = 20 * batch.teacher[0] @ batch.teacher[1].T
    total = losses.contrastive_loss(scores_BB) + 0.3 * losses.distillation_loss(scores_BB, teacher_BB)
    if "tokens" in heads:
        own_BF = torch.zeros(12, len(model.tokens.tokens))
        for own_F, caption in zip(own_BF, TEXTS, strict=True):
            for token in list_tokens(caption):
                if token in model.tokens.tokens and token != "the":
                    own_F[model.tokens.tokens.index(token)] = 1
        assert image.weights_BF is not None
        assert text.weights_BF is not None
        total = total + 0.01 * losses.flops_loss(image.weights_BF) + 0.02 * losses.flops_loss(text.weights_BF)
        total = total + 0.5 * losses.grounding_loss(image.logits_BF, own_BF)
        total = total + 0.25 * losses.grounding_loss(text.logits_BF, own_BF)
    total.backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert_same_gradients(result, expected)


@pytest.mark.parametrize("chunk", [3, 5])
def test_chunks_give_the_same_gradients(chunk: int) -> None:
    model, stage = build_model(), TrainingStage(name="s", steps=1, losses=ALL)
    assert_same_gradients(compute_gradients(model, stage, chunk), compute_gradients(model, stage))


def test_dropout_of_chunks_is_reproducible() -> None:
    model = build_model()
    model.image.head.dropout.p = 0.5
    stage = TrainingStage(name="s", steps=1)
    first, second, other = (compute_gradients(model, stage, 3, seed) for seed in (5, 5, 6))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    # a second pass that drew anew would multiply the gradient of one draw with the derivative of another
    set_train_mode(model, stage)
    batch, chunks = build_batch(model), []
    for index, begin in enumerate(range(0, 12, 3)):
        torch.manual_seed(5 + index)
        rows = slice(begin, begin + 3)
        chunks.append((model.encode_images(batch.images[rows]).weights_BF, model.encode_texts(batch.texts[rows]).weights_BF))
    images_BF, texts_BF = (torch.cat(side) for side in zip(*chunks, strict=True))
    model.zero_grad()
    losses.contrastive_loss(losses.compute_similarities(images_BF, texts_BF, model.scale, cosine=True)).backward()
    for name, parameter in model.named_parameters():
        if name in first:
            torch.testing.assert_close(first[name], parameter.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_a_frozen_tower_gets_no_gradient_and_no_dropout() -> None:
    model = build_model(image_dropout=0.5)
    model.image.head.dropout.p = 0.5
    result = compute_gradients(model, TrainingStage(name="s", steps=1, train=("text.head",)))
    assert {name.split(".backbone")[0].split(".")[0] for name in result} == {"text", "log_scale"}
    assert not any(".backbone." in name for name in result)
    assert not any(module.training for module in model.image.backbone.modules())
    assert not model.image.head.dropout.training
    assert model.text.head.training


def test_masked_stage_uses_own_tokens_only() -> None:
    model = build_model()
    batch = build_batch(model)
    masked, free = model.encode_texts(batch.texts, mask="own"), model.encode_texts(batch.texts)
    assert masked.weights_BF is not None
    assert free.weights_BF is not None
    for weights_F, caption in zip(masked.weights_BF, TEXTS, strict=True):
        assert {model.tokens.tokens[index] for index in weights_F.nonzero()[:, 0].tolist()} <= set(list_tokens(caption))
    assert int((free.weights_BF > 0).sum()) > int((masked.weights_BF > 0).sum())
    with_mask_F, without_mask_F = (
        compute_gradients(model, TrainingStage(name="s", steps=1, losses={"contrastive": 1.0}, text_mask=mask))[TEXT_BIAS]
        for mask in ("own", "none")
    )
    absent = find_absent_tokens(model)
    assert not with_mask_F[absent].any()
    assert without_mask_F[absent].any()


def test_a_plain_mask_lets_stop_words_learn() -> None:
    model = build_model()
    own_F, plain_F = (
        compute_gradients(model, TrainingStage(name="s", steps=1, text_mask=mask))[TEXT_BIAS] for mask in ("own", "tokens")
    )
    stop_word, color = (model.tokens.tokens.index(word) for word in ("the", "blue"))
    assert (own_F[stop_word] != 0, plain_F[stop_word] != 0) == (False, True)
    assert (own_F[color] != 0, plain_F[color] != 0) == (True, True)
    assert not plain_F[find_absent_tokens(model)].any()


def test_two_workers_match_one_and_keep_a_finished_training(training_folder: Path, tmp_path: Path) -> None:
    tiny_training.run_training(training_folder, tmp_path / "out")
    checkpoint = (tmp_path / "out" / "model.safetensors").read_bytes()
    multiprocessing.start_processes(run_worker, (str(tmp_path),), nprocs=2, start_method="forkserver")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == checkpoint  # it was finished already
    single = run_steps(build_model(), SingleProcess(), chunk=0)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, expected in single.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], expected, atol=2e-5, rtol=1e-4, msg=name)
    assert not torch.equal(dict(build_model().named_parameters())[TEXT_BIAS], single[TEXT_BIAS])
    for rank in (0, 1):
        results = torch.load(tmp_path / f"{rank}-collectives.pt", weights_only=True)
        assert {name: value.tolist() for name, value in results.items()} == {
            "gathered": [1, 1, 2, 2],
            "sum": [3, 3],
            "first": [7],
        }
