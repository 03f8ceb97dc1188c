"""One update: chunks, masks and several workers give the gradients of the whole batch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext

import pytest

pytest.importorskip("torch")

import torch
from support.errors import expect_error
from support.models import tiny_stair
from support.models.torch_workers import ALL, TEXTS, build_batch, build_model
from torch.nn.functional import cross_entropy, normalize

from stair_es.model.stair.backbones import compute_layer_depths, enable_checkpointing
from stair_es.model.stair.modeling import StairModel
from stair_es.training.config.schema import OptimizerConfig, TrainingStage
from stair_es.training.optimizers import build_param_groups
from stair_es.training.step import GradCacheStep, set_train_mode
from stair_es.training.workers import SingleProcess

TEXT_BIAS = "text.head.bias_F"


def compute_gradients(
    model: StairModel, stage: TrainingStage, chunk: int = 0, seed: int = 5, *, checkpointing: bool = False
) -> dict[str, torch.Tensor]:
    build_param_groups(model, stage, OptimizerConfig())
    set_train_mode(model, stage, checkpointing=checkpointing)
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
        largest = max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(gradients[name], gradient, atol=1e-5 * largest, rtol=1e-5, msg=name)


def contrast(scores_BB: torch.Tensor) -> torch.Tensor:
    own_B = torch.arange(len(scores_BB))
    return (cross_entropy(scores_BB, own_B) + cross_entropy(scores_BB.T, own_B)) / 2


def ground(logits_BF: torch.Tensor | None, own_BF: torch.Tensor) -> torch.Tensor:
    assert logits_BF is not None
    return cross_entropy(logits_BF, own_BF / own_BF.sum(dim=1, keepdim=True))


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("heads", [("tokens",), ("tokens", "dense"), ("dense",)])
def test_gradients_match_plain_back_propagation(heads: tuple[str, ...], similarity: str) -> None:
    model = build_model(heads=heads, dense_dim=6, similarity=similarity)
    stage = TrainingStage(name="s", steps=1, losses=ALL if "tokens" in heads else {"contrastive": 1.0, "distil": 0.3})
    result = compute_gradients(model, stage)
    model.zero_grad()
    batch = build_batch(model)
    image, text = model.encode_images(batch.images), model.encode_texts(batch.texts)
    images_BD, texts_BD = (image.dense_BE, text.dense_BE) if "dense" in heads else (image.weights_BF, text.weights_BF)
    assert images_BD is not None
    assert texts_BD is not None
    assert batch.teacher is not None
    if similarity == "cosine" or "dense" in heads:
        images_BD, texts_BD = normalize(images_BD), normalize(texts_BD)
    scores_BB = model.scale * images_BD @ texts_BD.T
    teacher_BB = 20 * batch.teacher[0] @ batch.teacher[1].T
    total = contrast(scores_BB)
    for student, target in ((scores_BB, teacher_BB), (scores_BB.T, teacher_BB.T)):
        total = total + 0.15 * cross_entropy(student, target.softmax(dim=1))
    if "tokens" in heads:
        own_BF = mark_own_tokens(model)
        assert image.weights_BF is not None
        assert text.weights_BF is not None
        total = total + 0.01 * image.weights_BF.mean(dim=0).square().sum() + 0.02 * text.weights_BF.mean(dim=0).square().sum()
        total = total + 0.5 * ground(image.logits_BF, own_BF) + 0.25 * ground(text.logits_BF, own_BF)
    total.backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert_same_gradients(result, expected)


def mark_own_tokens(model: StairModel) -> torch.Tensor:
    """Return which tokens each text of the batch has, without stop words."""
    own_BF = torch.zeros(12, len(model.tokens.tokens))
    for own_F, caption in zip(own_BF, TEXTS, strict=True):
        for token in list_tokens(caption):
            if token in model.tokens.tokens and token != "the":
                own_F[model.tokens.tokens.index(token)] = 1
    return own_BF


def test_joint_and_gated_gradients_match_plain_back_propagation() -> None:
    model = build_model(heads=("tokens", "dense"), dense_dim=6, scored_by="tokens")
    result = compute_gradients(
        model, TrainingStage(name="s", steps=1, losses={"contrastive": 0.5, "joint": 0.5, "gate_image": 0.1})
    )
    model.zero_grad()
    batch = build_batch(model)
    image, text = model.encode_images(batch.images), model.encode_texts(batch.texts)
    assert image.weights_BF is not None
    assert text.weights_BF is not None
    assert image.logits_BF is not None
    assert image.dense_BE is not None
    assert text.dense_BE is not None
    sparse_BB = model.scale * normalize(image.weights_BF) @ normalize(text.weights_BF).T
    dense_BB = model.scale * image.dense_BE @ text.dense_BE.T
    both_BB = (sparse_BB + dense_BB) / 2
    total = 0.5 * contrast(sparse_BB) + 0.5 * (contrast(dense_BB) + contrast(both_BB))
    for student in (sparse_BB, dense_BB):
        for rows, target in ((student, both_BB.detach()), (student.T, both_BB.detach().T)):
            total = total + 0.25 * cross_entropy(rows, target.softmax(dim=1))
    image_BF, text_BF = image.weights_BF.detach(), text.weights_BF.detach()
    targets_BF = (image_BF + image_BF.mean(dim=1, keepdim=True)) * text_BF * mark_own_tokens(model)
    targets_BF /= targets_BF.sum(dim=1, keepdim=True)
    total = total - 0.1 * (targets_BF * image.logits_BF.sigmoid().log()).sum(dim=1).mean()
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
    contrast(model.scale * normalize(images_BF) @ normalize(texts_BF).T).backward()
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


def list_rates(model: StairModel, layer_decay: float = 1.0) -> dict[str, float]:
    """Return the learning rate of each parameter."""
    groups = build_param_groups(
        model, TrainingStage(name="s", steps=1), OptimizerConfig(lr=1.0, backbone_lr=1.0, layer_decay=layer_decay)
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)]: group["rate"] for group in groups for parameter in group["params"]}


BACKBONES = [
    ("vit", "bert", "layernorm", "text.backbone.network.embeddings."),
    ("clip", "distilbert", "post_layernorm", "text.backbone.network.embeddings."),
    ("siglip", "bert", "post_layernorm", "text.backbone.network.embeddings."),
    ("dinov2", "bert", "layernorm", "text.backbone.network.embeddings."),
    ("timm-vit", "bert", "network.norm", "text.backbone.network.embeddings."),
]


@pytest.mark.parametrize(("image", "text", "norm", "embeddings"), BACKBONES, ids=[row[0] for row in BACKBONES])
def test_rates_fall_from_layer_to_layer(image: str, text: str, norm: str, embeddings: str) -> None:
    model = tiny_stair.build_model(tiny_stair.build_config(image, text))
    rates = list_rates(model, layer_decay=0.5)
    assert rates.keys() == dict(model.named_parameters()).keys()
    for side in ("image", "text"):
        layers = {rate for name, rate in rates.items() if f"{side}.backbone" in name}
        assert layers == {1.0, 1 / 2, 1 / 4}  # two layers, and the embeddings
        for number, rate in ((0, 1 / 2), (1, 1.0)):
            found = {
                rates[name] for name in rates if f"{side}.backbone" in name and re.search(rf"(layers?|blocks)\.{number}\.", name)
            }
            assert found == {rate}
    assert {rate for name, rate in rates.items() if norm in name and "layers" not in name} == {1.0}
    assert {rate for name, rate in rates.items() if name.startswith(embeddings)} == {1 / 4}
    assert {rate for name, rate in rates.items() if ".head." in name} == {1.0}
    assert set(list_rates(model).values()) == {1.0, OptimizerConfig().scale_lr}


def test_a_convolutional_network_of_timm_has_layers() -> None:
    rates = list_rates(tiny_stair.build_model(tiny_stair.build_config("timm-convnet")), layer_decay=0.5)
    assert len({rate for name, rate in rates.items() if "image.backbone" in name}) >= 3


@pytest.mark.parametrize(("image", "text"), [("vit", "bert"), ("clip", "distilbert"), ("timm-vit", "bert")])
def test_checkpointing_gives_the_same_gradients(image: str, text: str) -> None:
    model = tiny_stair.build_model(tiny_stair.build_config(image, text))
    stage = TrainingStage(name="s", steps=1, losses=ALL)
    expected, counts = compute_gradients(model, stage), []
    hook = torch.nn.modules.module.register_module_forward_hook(lambda *_: counts.append(1))
    try:
        compute_gradients(model, stage)
        before = len(counts)
        counts.clear()
        result = compute_gradients(model, stage, checkpointing=True)
    finally:
        hook.remove()
    assert_same_gradients(result, expected)
    assert len(counts) > 1.3 * before  # layers run twice


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (lambda network: enable_checkpointing(network, "bare"), "no-checkpointing"),
        (lambda network: compute_layer_depths(network, "bare"), "no-backbone-layers"),
    ],
)
def test_networks_without_layers_are_named(act: Callable[[torch.nn.Module], object], code: str) -> None:
    with expect_error(code) as caught:
        act(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)))
    assert "'bare'" in caught.value.message
