"""Valid configurations, and errors of invalid ones."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from support.models import tiny_training

from stair_es.errors import UsageError
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

DOCS = Path(__file__).parents[4] / "docs" / "training.md"
EXAMPLES = re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_training.write_set(tmp_path)
    return tmp_path


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: str(parse_training_toml(text, "")["name"]))
def test_the_examples_of_the_docs_are_configurations(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    read = read_train_config(tmp_path / "a.toml")
    assert read.stages
    assert read.text == text


def test_the_docs_name_every_key() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for kind in (
        ImageTowerConfig,
        TextTowerConfig,
        TrainingStage,
        ModelConfig,
        DataConfig,
        BatchConfig,
        OptimizerConfig,
        ValidationConfig,
        RecipeConfig,
    ):
        for each in fields(kind):
            assert f"`{each.name}`" in text or f"[data.{each.name}]]`" in text or f"**`[model.{each.name}]`**" in text, each.name


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"optim.lrr": 1.0}, "tiny.toml.optim: unknown key 'lrr'", "Did you mean 'lr'? Known here"),
    ({"optim.lr": "much"}, "tiny.toml.optim.lr must be a number, got 'much'", "docs/training.md"),
    ({"optim.lr": float("nan")}, "tiny.toml.optim.lr must be a number, got nan", "docs/training.md"),
    ({"optim.ema": 1.0}, "tiny.toml.optim.ema must be a number < 1.0, got 1.0", "0.999"),
    ({"optim.decay": "linear"}, "tiny.toml.optim.decay: unknown value 'linear'", "cosine, constant"),
    ({"batch.size": 1}, "tiny.toml.batch.size must be a whole number >= 2, got 1", "other pairs"),
    ({"batch.size": 2.5}, "tiny.toml.batch.size must be a whole number, got 2.5", "other pairs"),
    ({"batch.chunk": True}, "tiny.toml.batch.chunk must be a whole number, got True", "docs/training.md"),
    ({"validation.every": 0}, "tiny.toml.validation.every must be a whole number >= 1, got 0", "docs/training.md"),
    ({"validation": 3}, "tiny.toml.validation must be a table, got 3", "[validation]"),
    ({"data.augment": "wild"}, "tiny.toml: unknown augmentation preset 'wild'", "strong"),
    ({"data.tag_share": 2}, "tiny.toml.data.tag_share must be a number <= 1.0, got 2", "0 for"),
    ({"data.train": []}, "tiny.toml.data.train must be a list of length >= 1, got []", "[[data.train]]"),
    ({"data.train": [{"images": "x"}]}, "tiny.toml.data.train[0]: 'captions' is missing", "captions = ..."),
    ({"data.train": "x"}, "tiny.toml.data.train must be a list, got 'x'", "[[data.train]]"),
    ({"model.image.mean": [0.5]}, "tiny.toml.model.image.mean must be a list of length 3, got [0.5]", "docs/training.md"),
    ({"model.image.size_px": 4}, "tiny.toml: image size_px must be 8 or more, got 4", ""),
    ({"model.image.backbone.kind": "onnx"}, "tiny.toml.model.image.backbone.kind: unknown value 'onnx'", "timm"),
    ({"model.heads": ["tokens", "x"]}, "tiny.toml.model.heads[1]: unknown value 'x'", "tokens, dense"),
    ({"recipe.name": "best"}, "tiny.toml.recipe: unknown recipe 'best'", "stair-grounded"),
    ({"recipe.steps": "many"}, "tiny.toml.recipe.steps must be a whole number, got 'many'", "docs/training.md"),
    ({"recipe.steps": 0}, "tiny.toml.recipe.steps must be a whole number >= 1, got 0", "docs/training.md"),
    ({"recipe": {}}, "tiny.toml needs either [recipe] or [[stages]]", "[recipe]"),
    ({"stages": [{"name": "s", "steps": 1}]}, "tiny.toml needs either [recipe] or [[stages]]", "[recipe]"),
    ({"recipe": {}, "stages": [{"name": "s"}]}, "tiny.toml.stages[0]: 'steps' is missing", "steps = ..."),
    (
        {"recipe": {}, "stages": [{"name": "s", "steps": 1, "losses": {"clip": 1.0}}]},
        "tiny.toml.stages[0].losses: unknown value 'clip'",
        "contrastive",
    ),
    (
        {"recipe": {}, "stages": [{"name": "s", "steps": 1, "losses": {"contrastive": 0}}]},
        "tiny.toml: stage 's' has no loss",
        "contrastive",
    ),
    (
        {"recipe": {}, "stages": [{"name": "s", "steps": 1, "train": ["head"]}]},
        "tiny.toml.stages[0].train[0]: unknown value 'head'",
        "image.head",
    ),
    (
        {"recipe": {}, "stages": [{"name": "s", "steps": 1, "losses": {"distil": 1}}]},
        "the loss distil needs a teacher",
        "model.teacher",
    ),
    ({"model.heads": ["dense"]}, "tiny.toml: the loss ground_image needs a token head", "heads"),
    (
        {"data.cache": True},
        "tiny.toml: data.cache stores the states of frozen backbones, but stage 'grounded' trains one",
        "frozen_backbones",
    ),
    (
        {"data.validation": [], "validation.patience": 1},
        "tiny.toml: validation.patience needs a validation set",
        "[[data.validation]]",
    ),
    ({"seed": -1}, "tiny.toml.seed must be a whole number >= 0, got -1", "docs"),
    ({"color": 1}, "tiny.toml: unknown key 'color'", "Known here"),
    ({"seed.x": 1}, "seed.x: seed isn't a table", "Specify a value"),
]


@pytest.mark.parametrize(("changes", "message", "remedy"), WRONG, ids=lambda value: str(value)[:40])
def test_mistakes_are_named_with_place_value_and_remedy(folder: Path, changes: dict[str, Any], message: str, remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        tiny_training.read_config(folder, changes)
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def test_invalid_toml_and_missing_files_are_reported(folder: Path) -> None:
    (folder / "b.toml").write_text("name = \n")
    with pytest.raises(UsageError, match=r"b\.toml isn't TOML: .*line 1"):
        read_train_config(folder / "b.toml")
    with pytest.raises(UsageError, match="can't read the configuration"):
        read_train_config(folder / "none.toml")


@pytest.mark.parametrize("name", sorted(list_recipes()))
def test_recipes_share_their_steps(folder: Path, name: str) -> None:
    for steps in (1, 2, 10, 1001):
        changes = {"recipe.name": name, "recipe.steps": steps, "model.heads": ["tokens", "dense"], "model.teacher": "clip"}
        stages = tiny_training.read_config(folder, changes).stages
        assert sum(stage.steps for stage in stages) == max(steps, len(stages))


def test_recipes_can_freeze_backbones(folder: Path) -> None:
    read = tiny_training.read_config(folder, {"recipe.name": "stair", "recipe.frozen_backbones": True})
    assert [stage.train for stage in read.stages] == [("image.head", "text.head"), ("text.head",), ("image.head", "text.head")]


def test_stair_paper_sets_defaults(folder: Path) -> None:
    (folder / "tiny.toml").write_text(tiny_training.CONFIG.replace("top_k = 8\n", ""))
    read = tiny_training.read_config(folder, {"recipe.name": "stair-paper", "recipe.steps": 40})
    assert (read.model.similarity, read.model.start_bias) == ("dot", 0.0)
    assert (read.model.image.top_k, read.model.text.top_k) == (0, 0)
    assert (read.model.image.tie, read.model.text.tie) == (True, True)
    assert [(stage.steps, stage.text_mask, stage.cap) for stage in read.stages] == [
        (20, "tokens", False),
        (10, "none", False),
        (10, "none", False),
    ]
    assert [set(stage.losses) - {"contrastive"} for stage in read.stages] == [
        {"flops_image", "flops_text"},
        {"flops_text"},
        {"flops_image", "flops_text"},
    ]


def test_the_file_overrides_the_recipe(folder: Path) -> None:
    changes = {"recipe.name": "stair-paper", "model.similarity": "cosine", "model.image.tie": False}
    read = tiny_training.read_config(folder, changes).model
    assert (read.similarity, read.image.top_k, read.text.top_k, read.image.tie, read.text.tie) == ("cosine", 8, 8, False, True)
    with pytest.raises(UsageError, match=r"tiny\.toml\.model\.image must be a table, got 3"):
        tiny_training.read_config(folder, {"recipe.name": "stair-paper", "model.image": 3})


def test_other_recipes_keep_the_model(folder: Path) -> None:
    stages = {"recipe": {}, "stages": [{"name": "s", "steps": 1}]}
    for name in set(list_recipes()) - {"stair-paper"}:
        model = {"model.heads": ["tokens", "dense"], "model.teacher": "clip"}  # `distilled` needs a teacher
        written = tiny_training.read_config(folder, {**stages, **model}).model
        assert tiny_training.read_config(folder, {"recipe.name": name, **model}).model == written


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


def test_changes_are_in_the_copy(folder: Path) -> None:
    read = tiny_training.read_config(folder, {"optim.lr": 0.5, "model.image.top_k": 3})
    (folder / "copy.toml").write_text(read.text)
    loaded = read_train_config(folder / "copy.toml")
    assert isinstance(loaded, TrainConfig)
    assert (loaded.optim.lr, loaded.model.image.top_k) == (0.5, 3)
    assert loaded.stages == read.stages
