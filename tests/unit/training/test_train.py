"""Whole trainings of tiny models: output, errors, unchanged files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from safetensors.torch import load_file
from support.models import tiny_dense, tiny_training

from stair_es.errors import ModelError, StairError, UsageError
from stair_es.eval.metrics import compute_ranks, summarize_ranks
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.model.stair import checkpoint
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.training.callbacks import NO_CALLBACKS, Callbacks, StepMetrics
from stair_es.training.config.train_config import list_recipes, read_train_config
from stair_es.training.data_module import split_rows
from stair_es.training.train import prepare_output_folder, train_model


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAIR_ES_HOME", str(tmp_path / "home"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_training.write_set(tmp_path / "set")
    return tmp_path / "set"


def weights(out: Path) -> dict[str, torch.Tensor]:
    result: dict[str, torch.Tensor] = load_file(out / "model.safetensors")
    return result


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_training_writes_a_checkpoint_that_finds_its_images(folder: Path, tmp_path: Path) -> None:
    moments: list[StepMetrics] = []
    callbacks = Callbacks(on_message=lambda line: None, on_metrics=moments.append, on_progress=lambda what, done, total: None)
    config = tiny_training.read_config(
        folder, {"recipe.steps": 120, "validation.every": 60, "optim.lr": 3e-3, "optim.backbone_lr": 3e-3}
    )
    trained = train_model(config, tmp_path / "out", callbacks, device="cpu")
    assert (trained.steps, trained.pairs, trained.problems, trained.stopped_early) == (120, tiny_training.PAIRS, [], False)
    assert trained.best > 0.5  # of 9 images: by chance 1/9
    assert trained.best == max(
        (float(at["t2i@1"]) + float(at["i2t@1"])) / 2
        for at in ({row["name"]: row["value"] for row in rows(tmp_path / "out") if row["step"] == step} for step in ("60", "120"))
    )
    losses = [moment.values["loss"] for moment in moments if "loss" in moment.values]
    assert len(losses) == 120
    assert losses[-1] < losses[0] / 2
    encoder = registry.load_encoder(ModelSpec(name=str(tmp_path / "out")))
    (text,) = encoder.encode_texts(["red dog"])
    assert set(text.tokens) >= {"red", "dog"}
    assert (tmp_path / "out" / "train.toml").read_text().count("steps = 120") == 1  # with the changes


def test_training_recalls_match_an_evaluation(folder: Path, tmp_path: Path) -> None:
    val = [json.loads(line) for line in (folder / "val.jsonl").read_text().splitlines()]
    val.append({"image": "the-sea.png", "captions": [val[0]["captions"][0]]})  # two images of one text
    tiny_training.write_captions(folder / "val.jsonl", val)
    train_model(tiny_training.read_config(folder, {"recipe.steps": 20, "validation.every": 20}), tmp_path / "out", device="cpu")
    told = {row["name"]: float(row["value"]) for row in rows(tmp_path / "out") if row["kind"] == "val"}
    encoder = registry.load_encoder(ModelSpec(name=str(tmp_path / "out")))
    pixels = [decode_image((folder / row["image"]).read_bytes(), encoder.image_spec, DecodeLimits()).pixels_HWC for row in val]
    images = [vector.to_dict() for vector in encoder.encode_images(np.stack(pixels))]
    captions = [row["captions"][0] for row in val]
    asked = list(dict.fromkeys(captions))
    texts = [vector.to_dict() for vector in encoder.encode_texts(asked)]
    scores = np.array(
        [[sum(weight * image.get(word, 0.0) for word, weight in text.items()) for image in images] for text in texts]
    )
    to_image = [
        compute_ranks(scores[row], [at for at, own in enumerate(captions) if own == text])[:1] for row, text in enumerate(asked)
    ]
    to_text = [compute_ranks(scores[:, at], [asked.index(text)]) for at, text in enumerate(captions)]
    assert {f"t2i@{cut}": value for cut, value in summarize_ranks(to_image).hit.items()} == pytest.approx(
        {name: value for name, value in told.items() if name.startswith("t2i")}, rel=1e-5
    )
    assert {f"i2t@{cut}": value for cut, value in summarize_ranks(to_text).hit.items()} == pytest.approx(
        {name: value for name, value in told.items() if name.startswith("i2t")}, rel=1e-5
    )
    assert told["tokens"] == pytest.approx(np.mean([len(image) for image in images]), abs=0.2)  # what rounds to 0 is dropped
    own = [any(word in image for word in caption.split()) for image, caption in zip(images, captions, strict=True)]
    assert told["own@20"] == pytest.approx(np.mean(own), abs=0.11)


def test_the_same_seed_gives_the_same_model_and_another_one_another(folder: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        train_model(
            tiny_training.read_config(folder, {"seed": seed, "data.augment": "strong"}), tmp_path / name, device="cpu", threads=2
        )
    one, two, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two", "other"))
    assert one == two
    assert one != other
    assert (tmp_path / "one" / "log.csv").read_bytes() == (tmp_path / "two" / "log.csv").read_bytes()


@pytest.mark.parametrize("name", sorted(list_recipes()))
def test_each_recipe_runs(folder: Path, tmp_path: Path, name: str) -> None:
    heads = {"dense": ["dense"], "dense-grounded": ["tokens", "dense"]}.get(name, ["tokens"])
    changes = {"recipe.name": name, "recipe.steps": 4, "model.heads": heads, "validation.keep": "last"}
    if name == "stair-paper":  # tied embeddings are as wide as the text network
        changes |= {"model.image.transform_dim": 32, "model.text.transform_dim": 32}
    if name == "distilled":
        changes["model.teacher"] = str(tiny_dense.write_clip(tmp_path / "clip"))
    config = tiny_training.read_config(folder, changes)
    trained = train_model(config, tmp_path / "out", device="cpu")
    assert trained.steps == 4
    assert 0 <= trained.best <= 1


@pytest.mark.parametrize("value", [0.0, -2.5])
def test_training_starts_with_the_given_bias(folder: Path, tmp_path: Path, value: float) -> None:
    still = {"optim.lr": 0.0, "optim.backbone_lr": 0.0, "optim.scale_lr": 0.0, "recipe.steps": 1}
    train_model(tiny_training.read_config(folder, {**still, "model.start_bias": value}), tmp_path / "out", device="cpu")
    train_model(tiny_training.read_config(folder, still), tmp_path / "plain", device="cpu")
    asked, plain = weights(tmp_path / "out"), weights(tmp_path / "plain")
    for name in asked:
        if name.endswith("bias_F"):
            assert torch.equal(asked[name], torch.full_like(asked[name], value))
            assert torch.equal(plain[name], torch.full_like(plain[name], -1.0))
        else:
            assert torch.equal(asked[name], plain[name]), name


def test_trainings_with_one_start_seed_begin_alike(folder: Path, tmp_path: Path) -> None:
    still = {"optim.lr": 0.0, "optim.backbone_lr": 0.0, "optim.scale_lr": 0.0, "recipe.steps": 1}
    begun = []
    for name, changes in (("one", {"seed": 1}), ("two", {"seed": 2}), ("other", {"seed": 2, "model.start_seed": 3})):
        train_model(tiny_training.read_config(folder, {**still, "model.start_seed": 1, **changes}), tmp_path / name, device="cpu")
        begun.append(weights(tmp_path / name))
    one, two, other = begun
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_tied_towers_share_one_table_that_learns_with_the_text_network(folder: Path, tmp_path: Path) -> None:
    (folder / "tiny.toml").write_text(tiny_training.CONFIG.replace("top_k = 8\n", "").replace("own_words = true\n", ""))
    widths = {"model.image.transform_dim": 32, "model.text.transform_dim": 32}
    config = tiny_training.read_config(
        folder, {"recipe.name": "stair-paper", "recipe.steps": 8, "validation.keep": "last", **widths}
    )
    train_model(config, tmp_path / "out", device="cpu")
    result = weights(tmp_path / "out")
    assert not [name for name in result if name.endswith("embedding_FT")]
    encoder = registry.load_encoder(ModelSpec(name=str(tmp_path / "out")))
    model = checkpoint.load_stair_model(tmp_path / "out")
    table_FT = result["text.backbone.network.embeddings.word_embeddings.weight"][model.tokens.feature_ids_F]
    assert torch.equal(model.get_text_embeddings(), table_FT)
    (image,) = encoder.encode_images(np.zeros((1, 32, 32, 3), np.uint8))
    with torch.inference_mode():
        states_BLD = model.image.compute_states(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
        hidden_LT = model.image.head.transform(states_BLD)[0]
        logits_F = (hidden_LT @ table_FT.T + model.image.head.bias_F).amax(dim=0)
    expected = dict(zip(model.tokens.tokens, torch.log1p(logits_F.relu()).tolist(), strict=True))
    assert image.to_dict() == pytest.approx({word: weight for word, weight in expected.items() if weight > 5e-6}, abs=2e-5)


def test_only_unfrozen_parts_change(folder: Path, tmp_path: Path) -> None:
    changes = {
        "recipe": {},
        "validation.keep": "last",
        "stages": [{"name": "text", "steps": 2, "train": ["text.backbone", "text.head"]}],
        "optim.weight_decay": 0.1,
    }
    train_model(
        tiny_training.read_config(folder, {**changes, "optim.lr": 0.0, "optim.backbone_lr": 0.0}),
        tmp_path / "still",
        device="cpu",
    )
    train_model(tiny_training.read_config(folder, changes), tmp_path / "out", device="cpu")
    before, after = weights(tmp_path / "still"), weights(tmp_path / "out")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert {name.split(".")[0] for name in moved} == {"text", "log_scale"}
    assert any(".backbone." in name for name in moved)
    assert any(".head." in name for name in moved)


def test_frozen_batch_norms_are_kept(folder: Path, tmp_path: Path) -> None:
    name = "test_resnet"
    changes = {
        "model.image.backbone": {"kind": "timm", "name": name, "config": {"num_classes": 0}},
        "recipe.frozen_backbones": True,
        "validation.keep": "last",
    }
    train_model(tiny_training.read_config(folder, {**changes, "recipe.steps": 1}), tmp_path / "one", device="cpu")
    train_model(tiny_training.read_config(folder, {**changes, "recipe.steps": 4}), tmp_path / "four", device="cpu")
    one, four = weights(tmp_path / "one"), weights(tmp_path / "four")
    norms = [key for key in one if "running_mean" in key]
    assert norms
    assert all(torch.equal(one[key], four[key]) for key in one if ".backbone." in key)


def test_training_begins_with_a_checkpoint(folder: Path, tmp_path: Path) -> None:
    train_model(tiny_training.read_config(folder), tmp_path / "first", device="cpu")
    still = {"model.start": str(tmp_path / "first"), "optim.lr": 0.0, "optim.backbone_lr": 0.0, "optim.scale_lr": 0.0}
    train_model(tiny_training.read_config(folder, {**still, "seed": 9}), tmp_path / "second", device="cpu")
    first, second = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    wider = tiny_training.read_config(folder, {"model.start": str(tmp_path / "first"), "model.text.transform_dim": 8})
    with pytest.raises(ModelError, match="wrong shape"):
        train_model(wider, tmp_path / "third", device="cpu")


def test_a_dense_checkpoint_teaches(folder: Path, tmp_path: Path) -> None:
    dense = {"model.heads": ["dense"], "recipe.name": "dense", "recipe.steps": 40, "optim.lr": 3e-3, "optim.backbone_lr": 3e-3}
    train_model(tiny_training.read_config(folder, dense), folder / "teacher", device="cpu")
    stages = [{"name": "distil", "steps": 30, "losses": {"distil": 1.0}}]
    changes = {"recipe": {}, "stages": stages, "model.teacher": "teacher", "optim.lr": 3e-3, "optim.backbone_lr": 3e-3}
    train_model(tiny_training.read_config(folder, changes), tmp_path / "out", device="cpu")
    told = [float(row["value"]) for row in rows(tmp_path / "out") if row["name"] == "distil"]
    assert sum(told[-5:]) < sum(told[:5]) / 2
    with pytest.raises(StairError, match="has no dense vectors"):
        train_model(
            tiny_training.read_config(folder, {**changes, "model.teacher": str(tmp_path / "out")}), tmp_path / "no", device="cpu"
        )


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_kept_states_give_the_same_training(folder: Path, tmp_path: Path, pool: str) -> None:
    changes = {
        "recipe.frozen_backbones": True,
        "model.image.pool": pool,
        "model.text.pool": pool,
        "model.image.top_k": 0,  # a cap is a step: a rounding may let another word in
        "model.text.top_k": 0,
        "optim.lr": 1e-4,
        "validation.keep": "last",
    }
    told: list[str] = []
    callbacks = Callbacks(
        on_message=told.append, on_metrics=lambda moment: None, on_progress=lambda what, done, total: told.append(what)
    )
    train_model(tiny_training.read_config(folder, changes), tmp_path / "live", device="cpu")
    config = tiny_training.read_config(folder, {**changes, "data.cache": True})
    train_model(config, tmp_path / "kept", callbacks, device="cpu")
    live, kept = rows(tmp_path / "live"), rows(tmp_path / "kept")
    for at, same in zip(live, kept, strict=True):
        if at["kind"] == "train":
            assert (same["step"], same["name"]) == (at["step"], at["name"])
            assert float(same["value"]) == pytest.approx(float(at["value"]), rel=1e-2), at
    first = {row["name"]: float(row["value"]) for row in live if row["step"] == "1"}
    assert {row["name"]: float(row["value"]) for row in kept if row["step"] == "1"} == pytest.approx(first, rel=2e-3)
    assert "states of images" in told
    told.clear()
    train_model(config, tmp_path / "again", callbacks, device="cpu")
    assert "states of images" not in told  # they were there
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "kept" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("cache", [False, True])
def test_unreadable_images_are_skipped_and_reported_once(folder: Path, tmp_path: Path, cache: bool) -> None:
    (folder / "red-cat.png").write_bytes(b"no picture")
    (folder / "red-sea.png").write_bytes(b"")
    (folder / "red-dog.png").unlink()
    changes = {"recipe.steps": 12, "recipe.frozen_backbones": True, "data.cache": cache, "data.views": 2}
    for _ in range(2):  # the second time the states are there already
        trained = train_model(tiny_training.read_config(folder, changes), tmp_path / "out", device="cpu")
        assert trained.steps == 12
        assert trained.pairs == tiny_training.PAIRS - 1
        counts = sorted(line.partition(" ")[0] for line in trained.problems)
        assert counts == ["1", "1", "1"], trained.problems
        assert any("red-dog.png" in line for line in trained.problems)
        prepare_output_folder(tmp_path / "out", restart=True)


def test_only_unreadable_images_are_an_error(folder: Path, tmp_path: Path) -> None:
    for path in folder.glob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(StairError, match="can't be read"):
        train_model(tiny_training.read_config(folder), tmp_path / "out", device="cpu")


def test_early_stopping_keeps_the_best(folder: Path, tmp_path: Path) -> None:
    changes = {"optim.lr": 0.0, "optim.backbone_lr": 0.0, "optim.scale_lr": 0.0, "recipe.steps": 50, "validation.patience": 2}
    trained = train_model(tiny_training.read_config(folder, changes), tmp_path / "out", device="cpu")
    assert trained.stopped_early
    assert (trained.steps, trained.best_step) == (6, 2)  # validations at 2, 4 and 6 are alike
    resumed = train_model(tiny_training.read_config(folder, changes), tmp_path / "out", device="cpu")
    assert (resumed.steps, resumed.stopped_early) == (6, True)


def test_held_out_images_leave_the_training_set(folder: Path, tmp_path: Path) -> None:
    trained = train_model(
        tiny_training.read_config(folder, {"data.held_out": [{"captions": "val.jsonl"}]}), tmp_path / "out", device="cpu"
    )
    assert 0 < trained.pairs <= tiny_training.PAIRS - 9  # some of the others look like one of them
    with pytest.raises(UsageError, match="no pair is left"):
        train_model(
            tiny_training.read_config(folder, {"data.held_out": [{"captions": "train.jsonl"}]}), tmp_path / "none", device="cpu"
        )


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_narrow_precisions_learn(folder: Path, tmp_path: Path, precision: str) -> None:
    changes = {"optim.precision": precision, "recipe.steps": 30, "optim.lr": 3e-3, "optim.backbone_lr": 3e-3}
    trained = train_model(tiny_training.read_config(folder, changes), tmp_path / "out", device="cpu")
    told = [float(row["value"]) for row in rows(tmp_path / "out") if row["name"] == "loss"]
    assert trained.steps == 30
    assert told[-1] < told[0] * 0.8
    assert {tensor.dtype for name, tensor in weights(tmp_path / "out").items() if name != "feature_ids"} == {torch.float32}


def test_average_is_saved(folder: Path, tmp_path: Path) -> None:
    changes = {"recipe.steps": 1, "data.validation": []}
    still = {"optim.lr": 0.0, "optim.backbone_lr": 0.0, "optim.scale_lr": 0.0}
    for name, more in (("begin", still), ("plain", {}), ("mean", {"optim.ema": 0.75})):
        train_model(tiny_training.read_config(folder, {**changes, **more}), tmp_path / name, device="cpu")
    begin, plain, mean = (weights(tmp_path / name) for name in ("begin", "plain", "mean"))
    for name in begin:
        if name != checkpoint.FEATURE_IDS_TENSOR:
            torch.testing.assert_close(mean[name], 0.75 * begin[name] + 0.25 * plain[name], atol=1e-6, rtol=1e-5)


def test_infinite_loss_ends_the_training(folder: Path, tmp_path: Path) -> None:
    changes = {"optim.lr": 1e30, "optim.backbone_lr": 1e30, "optim.warmup_steps": 0, "optim.clip": 0.0, "recipe.steps": 30}
    with pytest.raises(StairError, match=r"in step \d+ \(stage 'grounded'\)") as caught:
        train_model(tiny_training.read_config(folder, changes), tmp_path / "out", device="cpu")
    assert "optim.lr" in caught.value.remedy


def test_other_configurations_and_folders_are_rejected(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train_model(tiny_training.read_config(folder), out, device="cpu")
    with pytest.raises(UsageError, match="another configuration") as caught:
        train_model(tiny_training.read_config(folder, {"optim.lr": 0.5}), out, device="cpu")
    assert "--restart" in caught.value.remedy
    assert prepare_output_folder(out, restart=False)
    train_model(
        tiny_training.read_config(folder, {"batch.chunk": 3, "validation.every": 5}), out, device="cpu"
    )  # these may change
    assert not prepare_output_folder(out, restart=True)
    assert not (out / "state.pt").exists()
    with pytest.raises(UsageError, match="a model without training state"):
        prepare_output_folder(out, restart=False)
    assert not prepare_output_folder(tmp_path / "new", restart=False)
    (out / "state.pt").write_bytes(b"broken")
    with pytest.raises(UsageError, match=r"can't read .*state\.pt"):
        train_model(tiny_training.read_config(folder), out, NO_CALLBACKS, device="cpu")


def test_a_batch_larger_than_the_set_is_rejected(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a batch of 64 requires 64 different captions, but the training set has 18"):
        train_model(tiny_training.read_config(folder, {"batch.size": 64}), tmp_path / "out", device="cpu")


def test_configuration_copy_is_equal(folder: Path, tmp_path: Path) -> None:
    config = tiny_training.read_config(folder, {"optim.lr": 1e-4, "data.augment": "light"})
    train_model(config, tmp_path / "out", device="cpu")
    copy = tmp_path / "set" / "copy.toml"
    copy.write_text((tmp_path / "out" / "train.toml").read_text())
    loaded = read_train_config(copy)
    assert (loaded.model, loaded.data, loaded.stages, loaded.optim) == (config.model, config.data, config.stages, config.optim)


def test_a_share_of_the_images_is_held_out_by_name(folder: Path, tmp_path: Path) -> None:
    changes = {"data.validation": [], "data.validation_share": 0.25, "validation.patience": 2}
    trained = train_model(tiny_training.read_config(folder, changes), tmp_path / "out", device="cpu")
    assert trained.pairs == tiny_training.PAIRS - 4
    assert 0 <= trained.best <= 1
    names = [f"{number}.png" for number in range(40)]
    train, held_out = split_rows(names, 0.1)
    assert (len(held_out), sorted(train + held_out)) == (4, list(range(40)))
    _, again = split_rows(names[::-1], 0.1)
    assert {names[row] for row in held_out} == {names[::-1][row] for row in again}
    with pytest.raises(UsageError, match="too few"):
        split_rows(names[:4], 0.1)
    with pytest.raises(UsageError, match="validation_share"):
        tiny_training.read_config(folder, {"data.validation_share": 0.25})
