"""`stair-es train --plan` against the allocator of a real step, and operations counted by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from support.errors import expect_error
from support.models import tiny_training
from torch.profiler import ProfilerActivity, profile
from typer.testing import CliRunner

from stair_es.cli.main import app
from stair_es.config.settings import resolve_settings
from stair_es.errors import OptionConflict
from stair_es.model.cuda import make_autocast
from stair_es.model.stair.modeling import StairModel, TextBatch
from stair_es.training.callbacks import NO_CALLBACKS
from stair_es.training.config.train_config import TrainConfig
from stair_es.training.data_module import build_training_sets
from stair_es.training.optimizers import build_optimizer
from stair_es.training.plan import plan_training
from stair_es.training.step import DeviceBatch, GradCacheStep, set_train_mode
from stair_es.training.train import build_model
from stair_es.training.workers import SingleProcess

WIDTH, INNER, LAYERS, SIZE_PX, LENGTH, PAIRS, TOKENS = 96, 384, 3, 64, 20, 12, 900
NETWORK = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
VIT = {"model_type": "vit", "image_size": SIZE_PX, "patch_size": 8, **NETWORK}
BERT = {"model_type": "bert", "vocab_size": TOKENS, **NETWORK}
CHANGES = {
    "model.image.backbone.config": VIT,
    "model.text.backbone.config": BERT,
    "model.image.size_px": SIZE_PX,
    "model.text.max_tokens": LENGTH,
    "model.image.top_k": 0,
    "model.text.top_k": 0,
    "model.image.transform_dim": WIDTH,
    "model.text.transform_dim": WIDTH,
    "batch.size": PAIRS,
}


@pytest.fixture
def plan_folder(training_folder: Path) -> Path:
    """Return the folder with a tokenizer of as many tokens as the text network has."""
    path = training_folder / "text" / "tokenizer.json"
    text = json.loads(path.read_text())
    text["model"]["vocab"] |= {f"word{number}": number for number in range(len(text["model"]["vocab"]), TOKENS)}
    path.write_text(json.dumps(text))
    return training_folder


def build_step(config: TrainConfig) -> tuple[StairModel, GradCacheStep, DeviceBatch]:
    """Return a model with values, its step and a batch of the sizes that the plan assumes."""
    sets = build_training_sets(config, NO_CALLBACKS, 1, resolve_settings(None))
    model = build_model(config, sets, NO_CALLBACKS, resolve_settings(None).home)
    stage = config.stages[0]
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    set_train_mode(model, stage, checkpointing=config.batch.checkpointing)
    step = GradCacheStep(
        model=model,
        stage=stage,
        workers=SingleProcess(),
        make_autocast=lambda: make_autocast("cpu", config.optim.precision),
        chunk=config.batch.chunk,
    )
    images = torch.zeros(PAIRS, SIZE_PX, SIZE_PX, 3, dtype=torch.uint8)
    ids = torch.zeros(PAIRS, LENGTH, dtype=torch.int64)
    return model, step, DeviceBatch(images=images, texts=TextBatch(ids, torch.ones_like(ids, dtype=torch.bool), ids))


def measure_peak(step: GradCacheStep, batch: DeviceBatch) -> int:
    """Return the bytes that PyTorch's allocator had given out at the peak of a step."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step.compute_gradients(batch, 0, 0)
    events = profiler.profiler.kineto_results.events()
    live = peak = 0
    for _, size in sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"):
        live += size
        peak = max(peak, live)
    return peak


@pytest.mark.parametrize(
    "changes", [{}, {"batch.chunk": 4}, {"batch.checkpointing": True}, {"optim.precision": "bf16"}], ids=lambda row: str(row)
)
def test_memory_is_that_of_a_real_step(plan_folder: Path, changes: dict[str, Any]) -> None:
    config = tiny_training.read_config(plan_folder, {**CHANGES, **changes})
    [stage] = plan_training(config, 1).stages
    planned = sum(stage.memory_bytes[part] for part in ("towers", "loss", "gradients") if part in stage.memory_bytes)
    model, step, batch = build_step(config)
    step.compute_gradients(batch, 0, 0)  # what is allocated once
    model.zero_grad()
    assert planned == pytest.approx(measure_peak(step, batch), rel=0.2)


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_state_of_the_optimizer_is_counted(plan_folder: Path, name: str) -> None:
    config = tiny_training.read_config(plan_folder, {**CHANGES, "optim.name": name, "optim.ema": 0.9})
    model, step, batch = build_step(config)
    optimizer = build_optimizer(model, config.stages[0], config.optim)
    step.compute_gradients(batch, 0, 0)
    optimizer.step()
    states = [each for state in optimizer.state_dict()["state"].values() for each in state.values()]
    size = sum(each.nbytes for each in states if isinstance(each, torch.Tensor) and each.ndim)
    [stage] = plan_training(config, 1).stages
    assert stage.memory_bytes["optimizer"] == pytest.approx(
        size, rel=0.05
    )  # the pooler learns nothing, and special tokens are none
    assert [stage.memory_bytes[part] for part in ("average", "parameters")] == pytest.approx([size / 2] * 2, rel=0.05)


def count_operations() -> tuple[float, float]:
    """Return the operations of the towers forward, and of the heads, by hand."""
    towers = heads = 0.0
    for length in ((SIZE_PX // 8) ** 2 + 1, LENGTH):
        per_layer = 2 * (4 * WIDTH**2 + 2 * WIDTH * INNER) + 4 * length * WIDTH  # projections, and scores and sums of attention
        towers += PAIRS * length * LAYERS * per_layer
        heads += PAIRS * length * 2 * (WIDTH**2 + WIDTH * TOKENS)
    return towers + PAIRS * 2 * (SIZE_PX * SIZE_PX) * 3 * WIDTH, heads  # with the patches


@pytest.mark.parametrize(("changes", "passes"), [({}, (1, 2, 3)), ({"batch.chunk": 4}, (2, 2, 4))], ids=["whole", "chunks"])
def test_operations_are_those_of_the_formulas(
    training_folder: Path, changes: dict[str, Any], passes: tuple[int, int, int]
) -> None:
    config = tiny_training.read_config(training_folder, {**CHANGES, **changes})
    [stage] = plan_training(config, 1).stages
    towers, heads = count_operations()
    forward, backward, in_heads = passes
    assert stage.flop["forward"] == pytest.approx(forward * towers, rel=0.2)
    assert stage.flop["backward"] == pytest.approx(backward * towers, rel=0.2)
    assert stage.flop["heads"] == pytest.approx(in_heads * heads, rel=0.2)
    assert stage.flop["loss"] == 2 * 4 * PAIRS**2 * TOKENS // 1  # two products, forward and backward


def test_backward_of_a_convolutional_network_is_twice_its_forward(training_folder: Path) -> None:
    changes = {"model.image.backbone": {"kind": "timm", "name": "test_convnext", "config": {"num_classes": 0}}}
    [stage] = plan_training(tiny_training.read_config(training_folder, changes), 1).stages
    assert stage.flop["backward"] == pytest.approx(2 * stage.flop["forward"], rel=0.1)


def test_more_gpus_send_and_hold_less_each(training_folder: Path) -> None:
    one, four = (plan_training(tiny_training.read_config(training_folder, CHANGES), gpus) for gpus in (1, 4))
    assert (one.pairs_per_gpu, four.pairs_per_gpu, one.parameters) == (PAIRS, PAIRS // 4, four.parameters)
    assert one.stages[0].sent_bytes == 0
    gathered = 2 * 3 * (PAIRS // 4) * TOKENS * 4  # rows of both sides to three others
    reduced = 2 * 3 * 4 * four.stages[0].trained / 4
    assert four.stages[0].sent_bytes == pytest.approx(gathered + reduced, rel=0.01)
    assert four.stages[0].memory_bytes["towers"] < one.stages[0].memory_bytes["towers"] / 2
    assert sum(four.stages[0].flop.values()) == pytest.approx(sum(one.stages[0].flop.values()) / 4, rel=0.01)
    assert four.estimate_hours(10) == pytest.approx(one.estimate_hours(10) / 4, rel=0.01)


def test_cached_states_need_no_backbone(training_folder: Path) -> None:
    config = tiny_training.read_config(training_folder, {**CHANGES, "recipe.frozen_backbones": True, "data.cache": True})
    [stage] = plan_training(config, 1).stages
    assert set(stage.flop) == {"heads", "loss"}
    assert stage.trained < plan_training(config, 1).parameters / 2


def test_a_package_is_planned_without_its_weights(training_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stair_es.model.networks.minilm_download.ensure_minilm", lambda folder: pytest.fail("it was fetched"))
    changes = {"model.text.backbone": {"kind": "package", "name": "all-minilm-l6-v2"}, "recipe.name": "grounded"}
    config = tiny_training.read_config(training_folder, {**changes, "recipe.frozen_backbones": True})
    assert plan_training(config, 1).tokens == 30522


@pytest.mark.parametrize(
    ("changes", "gpus", "code", "fact"),
    [
        ({}, 5, "config-error", "5"),
        ({"model.text.backbone.name": "nobody/has-this"}, 1, "no-backbone-config", "nobody/has-this"),
    ],
)
def test_what_cannot_be_planned_is_named(training_folder: Path, changes: dict[str, Any], gpus: int, code: str, fact: str) -> None:
    config = tiny_training.read_config(training_folder, {"batch.size": 12, **changes})
    with expect_error(code) as caught:
        plan_training(config, gpus)
    assert fact in caught.value.message


def test_the_command_prints_the_plan(training_folder: Path) -> None:
    (training_folder / "train.jsonl").unlink()  # it isn't read
    command = ["train", str(training_folder / "tiny.toml"), "--plan", "--gpus", "3", "--pairs", "1000"]
    result = CliRunner().invoke(app, [*command, "--json", "--tflops", "100"])
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert (plan["gpus"], plan["pairs_per_gpu"], plan["steps_per_epoch"], plan["tflops"]) == (3, 2, 167, 100.0)
    steps = sum(stage["steps"] for stage in plan["stages"])
    assert plan["pairs_per_second"] * plan["hours"] * 3600 == pytest.approx(steps * 6)
    assert set(plan["stages"][0]["memory_bytes"]) >= {"parameters", "batches", "towers", "gradients", "optimizer"}
    text = CliRunner().invoke(app, command)
    assert [fact for fact in ("grounded", "GB", "TFLOP", "167", "hours") if fact not in text.stdout] == []
    assert not Path("tiny").exists()


@pytest.mark.parametrize("option", ["--gpus=2", "--tflops=3", "--pairs=4"])
def test_options_of_the_plan_need_it(training_folder: Path, option: str) -> None:
    result = CliRunner().invoke(app, ["train", str(training_folder / "tiny.toml"), option, "--json"])
    assert json.loads(result.stdout)["code"] == getattr(result.exception, "code", None)
    assert isinstance(result.exception, OptionConflict)
