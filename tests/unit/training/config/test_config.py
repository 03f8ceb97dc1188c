"""Valid configurations, and errors of invalid ones."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from support.errors import expect_error
from support.models import tiny_training

from stair_es.model.stair.configuration import ImageTowerConfig, TextTowerConfig
from stair_es.training.config.schema import (
    PARTS,
    BatchConfig,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    RecipeConfig,
    TrainingStage,
    ValidationConfig,
)
from stair_es.training.config.toml import dump_toml, parse_training_toml
from stair_es.training.config.train_config import TrainConfig, list_recipes, read_train_config

DOCS = Path(__file__).parents[4] / "docs"
EXAMPLES = re.findall(r"```toml\n(.*?)```", (DOCS / "training.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: str(parse_training_toml(text, "")["name"]))
def test_the_examples_of_the_docs_are_configurations(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    config = read_train_config(tmp_path / "a.toml")
    assert config.stages
    assert config.text == text


def test_the_docs_name_every_key() -> None:
    text = (DOCS / "reference" / "training.md").read_text(encoding="utf-8")
    model_sections = (ImageTowerConfig, TextTowerConfig, TrainingStage, ModelConfig)
    sections = (*model_sections, DataConfig, BatchConfig, OptimizerConfig, ValidationConfig, RecipeConfig)
    for name in {field.name for section in sections for field in fields(section)}:
        assert f"`{name}`" in text or f"[data.{name}]]`" in text or f"**`[model.{name}]`**" in text, name


BOTH_HEADS = {"model.heads": ["tokens", "dense"], "model.scored_by": "tokens"}
STAGE: dict[str, Any] = {"name": "s", "steps": 1}
INVALID: list[tuple[dict[str, Any], tuple[str, ...], str]] = [
    ({"optim.lrr": 1.0}, ("tiny.toml.optim:", "'lrr'"), "'lr'"),
    ({"optim.lr": "much"}, ("tiny.toml.optim.lr", "'much'"), "docs/training.md"),
    ({"optim.lr": float("nan")}, ("tiny.toml.optim.lr", "nan"), "docs/training.md"),
    ({"optim.ema": 1.0}, ("tiny.toml.optim.ema", "< 1.0"), "0.999"),
    ({"optim.decay": "step"}, ("tiny.toml.optim.decay", "'step'"), "cosine, linear, constant"),
    ({"optim.name": "sgd"}, ("tiny.toml.optim.name", "'sgd'"), "adamw, lamb"),
    ({"optim.betas": [0.9]}, ("tiny.toml.optim.betas", "length 2", "[0.9]"), "docs/training.md"),
    ({"optim.betas": [0.9, 1.0]}, ("tiny.toml.optim.betas[1]", "< 1.0"), "docs/training.md"),
    ({"optim.eps": 0.0}, ("tiny.toml.optim.eps", "> 0.0"), "docs/training.md"),
    ({"optim.eps": 1.5}, ("tiny.toml.optim.eps", "<= 1.0"), "docs/training.md"),
    ({"optim.layer_decay": 0.0}, ("tiny.toml.optim.layer_decay", "> 0.0"), "docs/training.md"),
    ({"optim.layer_decay": 1.1}, ("tiny.toml.optim.layer_decay", "<= 1.0"), "docs/training.md"),
    ({"optim.compile": 1}, ("tiny.toml.optim.compile", "1"), "docs/training.md"),
    ({"batch.checkpointing": "yes"}, ("tiny.toml.batch.checkpointing", "'yes'"), "docs/training.md"),
    ({"model.start_scale": 0}, ("tiny.toml.model.start_scale", "> 0.0"), "docs/training.md"),
    ({"model.max_scale": 1001}, ("tiny.toml.model.max_scale", "<= 1000.0"), "docs/training.md"),
    ({"model.start_scale": 50, "model.max_scale": 25}, ("tiny.toml:", "50", "25"), "max_scale"),
    ({"batch.size": 1}, ("tiny.toml.batch.size", ">= 2"), ""),
    ({"batch.size": 2.5}, ("tiny.toml.batch.size", "2.5"), ""),
    ({"batch.chunk": True}, ("tiny.toml.batch.chunk", "True"), "docs/training.md"),
    ({"validation.every": 0}, ("tiny.toml.validation.every", ">= 1"), "docs/training.md"),
    ({"validation": 3}, ("tiny.toml.validation", "3"), "[validation]"),
    ({"data.augment": "wild"}, ("tiny.toml:", "'wild'"), "strong"),
    ({"data.tag_share": 2}, ("tiny.toml.data.tag_share", "<= 1.0"), "0"),
    ({"data.train": []}, ("tiny.toml.data.train", ">= 1", "[]"), "[[data.train]]"),
    ({"data.train": [{"images": "x"}]}, ("tiny.toml", "captions or shards"), "train.jsonl"),
    ({"data.train": [{"captions": "x", "shards": "y.tar"}]}, ("tiny.toml", "captions or shards"), "train.jsonl"),
    ({"data.train": [{"captions": "x", "weight": 2.0}]}, ("tiny.toml", "weight", "shards"), "weight"),
    ({"data.train": [{"shards": "x.tar", "weight": 0}]}, ("tiny.toml.data.train[0].weight", "> 0.0"), ""),
    ({"data.train": [{"shards": "x.tar", "split": "val"}]}, ("tiny.toml", "split", "captions"), "split"),
    ({"data.train": [{"shards": "x.tar"}, {"captions": "x"}]}, ("tiny.toml", "both"), "captions"),
    ({"data.held_out": [{"shards": "x.tar"}]}, ("tiny.toml", "only training sets"), "captions"),
    ({"data.train": [{"shards": "x.tar"}], "data.held_out": [{"captions": "x"}]}, ("data.held_out", "streams"), "captions"),
    ({"data.train": [{"shards": "x.tar"}], "model.vocabulary": "captions"}, ("model.vocabulary", "streams"), "all"),
    ({"data.train": "x"}, ("tiny.toml.data.train", "'x'"), "[[data.train]]"),
    ({"model.image": 3, "recipe.name": "stair-paper"}, ("tiny.toml.model.image", "3"), "[model.image]"),
    ({"model.image.mean": [0.5]}, ("tiny.toml.model.image.mean", "length 3", "[0.5]"), "docs/training.md"),
    ({"model.image.size_px": 4}, ("tiny.toml:", "size_px", "8", "4"), ""),
    ({"model.image.backbone.kind": "onnx"}, ("tiny.toml.model.image.backbone.kind", "'onnx'"), "timm"),
    ({"model.heads": ["tokens", "x"]}, ("tiny.toml.model.heads[1]", "'x'"), "tokens, dense"),
    ({"model.heads": ["dense"]}, ("tiny.toml:", "ground_image"), "heads"),
    ({"recipe.name": "best"}, ("tiny.toml.recipe", "'best'"), "stair-grounded"),
    ({"recipe.steps": "many"}, ("tiny.toml.recipe.steps", "'many'"), "docs/training.md"),
    ({"recipe.steps": 0}, ("tiny.toml.recipe.steps", ">= 1"), "docs/training.md"),
    ({"recipe": {}}, ("tiny.toml", "[recipe]", "[[stages]]"), "[recipe]"),
    ({"stages": [STAGE]}, ("tiny.toml", "[recipe]", "[[stages]]"), "[recipe]"),
    ({"recipe": {}, "stages": [{"name": "s"}]}, ("tiny.toml.stages[0]", "'steps'"), "steps = ..."),
    ({"recipe": {}, "stages": [{**STAGE, "losses": {"clip": 1.0}}]}, ("tiny.toml.stages[0].losses", "'clip'"), "contrastive"),
    ({"recipe": {}, "stages": [{**STAGE, "losses": {"contrastive": 0}}]}, ("tiny.toml:", "'s'"), "contrastive"),
    ({"recipe": {}, "stages": [{**STAGE, "losses": {"distil": 1}}]}, ("tiny.toml:", "distil"), "model.teacher"),
    ({"recipe": {}, "stages": [{**STAGE, "train": ["head"]}]}, ("tiny.toml.stages[0].train[0]", "'head'"), "image.head"),
    ({"recipe": {}, "stages": [{**STAGE, "losses": {"joint": 1}}]}, ("tiny.toml:", "joint"), "dense"),
    (
        {"recipe": {}, "stages": [{**STAGE, "losses": {"gate_image": 1}}], "model.heads": ["tokens", "dense"]},
        ("tiny.toml:", "gate_image"),
        "scored_by",
    ),
    ({"data.cache": True}, ("tiny.toml:", "data.cache", "'grounded'"), "frozen_backbones"),
    ({"data.validation": [], "validation.patience": 1}, ("tiny.toml:", "validation.patience"), "[[data.validation]]"),
    ({"data.validation": [{"classes": "a", "captions": "b.jsonl"}]}, ("tiny.toml", "captions", "classes"), "classes ="),
    ({"data.validation": [{"captions": "b.jsonl", "class_names": "c"}]}, ("tiny.toml", "captions", "classes"), "classes ="),
    ({"data.validation_share": 0.25}, ("tiny.toml:", "data.validation_share", "0.25"), ""),
    ({"seed": -1}, ("tiny.toml.seed", ">= 0"), "docs/training.md"),
    ({"seed.x": 1}, ("seed.x",), "optim.lr"),
    ({"color": 1}, ("tiny.toml:", "'color'"), "batch, card, data, log, model"),
]


@pytest.mark.parametrize(("changes", "facts", "remedy"), INVALID, ids=[str(row[0])[:60] for row in INVALID])
def test_mistakes_are_reported_with_key_value_and_remedy(
    training_folder: Path, changes: dict[str, Any], facts: tuple[str, ...], remedy: str
) -> None:
    with expect_error("config-error") as caught:
        tiny_training.read_config(training_folder, changes)
    assert [fact for fact in facts if fact not in caught.value.message] == []
    assert remedy in caught.value.remedy


def test_invalid_toml_and_missing_files_are_reported(tmp_path: Path) -> None:
    (tmp_path / "invalid.toml").write_text("name = \n")
    for name, fact in (("invalid.toml", "line 1"), ("missing.toml", "missing.toml")):
        with expect_error("config-error") as caught:
            read_train_config(tmp_path / name)
        assert fact in caught.value.message


@pytest.mark.parametrize("name", sorted(list_recipes()))
def test_recipes_share_their_steps(training_folder: Path, name: str) -> None:
    for steps in (1, 2, 10, 1001):
        changes = {"recipe.name": name, "recipe.steps": steps, **BOTH_HEADS, "model.teacher": "clip"}
        stages = tiny_training.read_config(training_folder, changes).stages
        assert sum(stage.steps for stage in stages) == max(steps, len(stages))


def test_losses_of_a_recipe_can_be_changed_where_it_has_them(training_folder: Path) -> None:
    changes = {"recipe.name": "stair", "recipe.losses": {"flops_text": 0.5, "ground_text": 2.0}}
    stages = tiny_training.read_config(training_folder, changes).stages
    assert [stage.losses.get("flops_text") for stage in stages] == [None, 0.5, 0.5]
    assert not any("ground_text" in stage.losses for stage in stages)


def test_recipes_can_freeze_backbones(training_folder: Path) -> None:
    config = tiny_training.read_config(training_folder, {"recipe.name": "stair", "recipe.frozen_backbones": True})
    assert [stage.train for stage in config.stages] == [("image.head", "text.head"), ("text.head",), ("image.head", "text.head")]


def test_stair_paper_sets_defaults(training_folder: Path) -> None:
    (training_folder / "tiny.toml").write_text(tiny_training.CONFIG.replace("top_k = 8\n", ""))
    config = tiny_training.read_config(training_folder, {"recipe.name": "stair-paper", "recipe.steps": 40})
    assert (config.model.similarity, config.model.start_bias, config.model.start_scale) == ("dot", 0.0, 0.05)
    assert (config.optim.name, config.optim.decay, config.optim.warmup_steps) == ("lamb", "linear", 2)
    assert (config.model.image.top_k, config.model.text.top_k) == (0, 0)
    assert (config.model.image.tie, config.model.text.tie) == (True, True)
    assert [(stage.steps, stage.text_mask, stage.cap, set(stage.losses)) for stage in config.stages] == [
        (20, "tokens", False, {"contrastive", "flops_image", "flops_text"}),
        (10, "none", False, {"contrastive", "flops_text"}),
        (10, "none", False, {"contrastive", "flops_image", "flops_text"}),
    ]


def test_the_file_overrides_the_recipe(training_folder: Path) -> None:
    changes = {"recipe.name": "stair-paper", "model.similarity": "cosine", "model.image.tie": False, "optim.decay": "constant"}
    config = tiny_training.read_config(training_folder, changes)
    model = config.model
    assert (config.optim.name, config.optim.decay) == ("lamb", "constant")
    assert (model.similarity, model.image.top_k, model.text.top_k) == ("cosine", 8, 8)
    assert (model.image.tie, model.text.tie) == (False, True)


def test_other_recipes_keep_the_model(training_folder: Path) -> None:
    stages = {"recipe": {}, "stages": [STAGE]}
    for name in set(list_recipes()) - {"stair-paper", "joint"}:
        changes = {**BOTH_HEADS, "model.teacher": "clip"}  # `distilled` needs a teacher
        expected = tiny_training.read_config(training_folder, {**stages, **changes})
        config = tiny_training.read_config(training_folder, {"recipe.name": name, **changes})
        assert (config.model, config.optim) == (expected.model, expected.optim)


def test_stage_freezing() -> None:
    names = {
        "image.backbone": "image.backbone.network.x",
        "image.head": "image.head.bias_F",
        "text.backbone": "text.backbone.network.x",
        "text.head": "text.own_words.word_F",
    }
    for part in PARTS:
        stage = TrainingStage(name="s", steps=1, train=(part,))
        assert {name for name in names if not stage.is_frozen(names[name])} == {part}
        assert not stage.is_frozen("log_scale")


def test_dumps_round_trip() -> None:
    values = {
        "a": 1,
        "odd key": 'say "x"\n\\ ü \x7f',
        "f": 1e-05,
        "no": False,
        "list": [1.5, [2, 3]],
        "empty": [],
        "t": {"x": 1, "in": {"y": [{"b": 1}, {"b": 2, "c": {"d": 3}}]}},
        "z": {"last": 0},
        "tables": [{"p": 1}, {"q": {"r": 2}}],
    }
    assert parse_training_toml(dump_toml(values), "dump") == values


def test_changes_are_in_the_copy(training_folder: Path) -> None:
    config = tiny_training.read_config(training_folder, {"optim.lr": 0.5, "model.image.top_k": 3})
    (training_folder / "copy.toml").write_text(config.text)
    copy = read_train_config(training_folder / "copy.toml")
    assert isinstance(copy, TrainConfig)
    assert (copy.optim.lr, copy.model.image.top_k) == (0.5, 3)
    assert copy.stages == config.stages
