"""Whole trainings of tiny models: output, errors, unchanged files."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from support.commands import CommandRunner
from support.errors import expect_error
from support.models import tiny_dense, tiny_training
from support.models.tiny_training import read_config, run_training
from tokenizers import Tokenizer

from stair_es.eval.metrics import compute_ranks, summarize_ranks
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.model.checkpoint import read_license
from stair_es.model.stair import checkpoint
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.sources.io.local_file import FileLocator
from stair_es.training import validation
from stair_es.training.callbacks import NO_CALLBACKS, Callbacks, StepMetrics
from stair_es.training.config.train_config import list_recipes, read_train_config
from stair_es.training.data.dataset import TrainingPair, TrainingSet
from stair_es.training.data_module import split_rows
from stair_es.training.train import prepare_output_folder

ZERO_RATES: dict[str, Any] = {"optim.lr": 0.0, "optim.backbone_lr": 0.0, "optim.scale_lr": 0.0}
HIGH_RATES: dict[str, Any] = {"optim.lr": 5e-3, "optim.backbone_lr": 3e-3}


def read_weights(out: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = load_file(out / "model.safetensors")
    return weights


def read_log(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open() as file:
        return list(csv.DictReader(file))


def read_metric(out: Path, name: str) -> list[float]:
    """Return the values of a metric in the order of the steps."""
    return [float(row["value"]) for row in read_log(out) if row["name"] == name]


def list_different(weights: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> set[str]:
    """Return the names of the tensors that differ."""
    assert weights.keys() == others.keys()
    return {name for name in weights if not torch.equal(weights[name], others[name])}


def test_a_training_writes_a_checkpoint_that_finds_its_images(
    training_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics: list[StepMetrics] = []
    callbacks = Callbacks(on_message=lambda line: None, on_metrics=metrics.append, on_progress=lambda what, done, total: None)
    out = tmp_path / "out"
    monkeypatch.setattr(validation, "MIN_IMAGES_TO_CHOOSE", 9)
    changes = {"recipe.steps": 60, "validation.every": 30, "data.tag_share": 0.25, **HIGH_RATES}
    result = run_training(training_folder, out, changes, callbacks=callbacks)
    assert (result.steps, result.pairs, result.problems, result.stopped_early) == (60, tiny_training.PAIRS, [], False)
    assert result.best > 0.5  # of 9 images: by chance 1/9
    recalls = zip(read_metric(out, "t2i@1"), read_metric(out, "i2t@1"), strict=True)
    assert result.best == max((to_image + to_text) / 2 for to_image, to_text in recalls)
    losses = [step.values["loss"] for step in metrics if "loss" in step.values]
    assert len(losses) == 60
    assert losses[-1] < losses[0] / 2
    [vector] = registry.load_encoder(ModelSpec(name=str(out))).encode_texts(["red dog"])
    assert set(vector.tokens) >= {"red", "dog"}
    config, copy = read_config(training_folder, changes), training_folder / "copy.toml"
    copy.write_text((out / "train.toml").read_text())
    loaded = read_train_config(copy)
    assert (loaded.model, loaded.data, loaded.stages, loaded.optim) == (config.model, config.data, config.stages, config.optim)


def test_training_recalls_match_an_evaluation(training_folder: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (training_folder / "val.jsonl").read_text().splitlines()]
    rows.append({"image": "the-sea.png", "captions": [rows[0]["captions"][0]]})  # two images of one text
    tiny_training.write_captions(training_folder / "val.jsonl", rows)
    run_training(training_folder, tmp_path / "out", {"recipe.steps": 20, "validation.every": 20})
    metrics = {row["name"]: float(row["value"]) for row in read_log(tmp_path / "out") if row["kind"] == "val"}
    encoder = registry.load_encoder(ModelSpec(name=str(tmp_path / "out")))
    files = [(training_folder / row["image"]).read_bytes() for row in rows]
    pixels_BHWC = np.stack([decode_image(data, encoder.image_spec, DecodeLimits()).pixels_HWC for data in files])
    images = [vector.to_dict() for vector in encoder.encode_images(pixels_BHWC)]
    captions = [row["captions"][0] for row in rows]
    queries = list(dict.fromkeys(captions))
    texts = [vector.to_dict() for vector in encoder.encode_texts(queries)]
    scores_QN = np.array(
        [[sum(weight * image.get(word, 0.0) for word, weight in text.items()) for image in images] for text in texts]
    )
    to_image = [
        compute_ranks(scores_QN[query], [image for image, caption in enumerate(captions) if caption == text])[:1]
        for query, text in enumerate(queries)
    ]
    to_text = [compute_ranks(scores_QN[:, image], [queries.index(text)]) for image, text in enumerate(captions)]
    for direction, ranks in (("t2i", to_image), ("i2t", to_text)):
        expected = {f"{direction}@{cut}": value for cut, value in summarize_ranks(ranks).hit.items()}
        assert {name: value for name, value in metrics.items() if name.startswith(direction)} == pytest.approx(expected, rel=1e-5)
    assert metrics["tokens"] == pytest.approx(np.mean([len(image) for image in images]), abs=0.2)  # weights that round to 0
    assert metrics["text_tokens"] == pytest.approx(np.mean([len(text) for text in texts]), abs=0.2)
    own = [any(word in image for word in caption.split()) for image, caption in zip(images, captions, strict=True)]
    assert metrics["own@20"] == pytest.approx(np.mean(own), abs=0.11)


def test_zero_shot_accuracies_match_an_evaluation(training_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for noun in tiny_training.NOUNS:
        (training_folder / "shapes" / noun).mkdir(parents=True)
        for path in training_folder.glob(f"*-{noun}.png"):
            shutil.copy(path, training_folder / "shapes" / noun)
    out, changes = tmp_path / "out", {"recipe.steps": 40, "validation.every": 20, **HIGH_RATES}
    result = run_training(
        training_folder, out, {**changes, "data.validation": [{"captions": "val.jsonl"}, {"classes": "shapes"}]}
    )
    [_, top1], [_, top5] = read_metric(out, "top1"), read_metric(out, "top5")
    report = CommandRunner({}, "evaluate", "zero-shot").read_json(training_folder / "shapes", "--model", out)
    [row] = report["rows"]
    assert [top1, top5] == pytest.approx([row["top1"], row["top5"]], abs=1e-5)
    assert row["images"] == tiny_training.PAIRS
    recalls = read_metric(out, "t2i@1")[-1], read_metric(out, "i2t@1")[-1]
    assert result.best == pytest.approx(sum(recalls) / 2, abs=1e-5)  # not of the classes
    card = ModelCard.load(out / "README.md").data.eval_results or ()
    assert {"zero-shot-image-classification", "retrieval"} == {each.task_type for each in card}
    monkeypatch.setattr(validation, "MIN_IMAGES_TO_CHOOSE", tiny_training.PAIRS)
    alone = run_training(training_folder, tmp_path / "alone", {**changes, "data.validation": [{"classes": "shapes"}]})
    assert alone.best == max(read_metric(tmp_path / "alone", "top1"))
    cached = {"data.cache": True, "recipe.frozen_backbones": True, "recipe.steps": 2, "data.validation": [{"classes": "shapes"}]}
    assert 0 <= run_training(training_folder, tmp_path / "cached", cached).best <= 1


def test_the_seed_decides_the_model(training_folder: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        run_training(training_folder, tmp_path / name, {"seed": seed, "data.augment": "strong"}, threads=2)
    one, two, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two", "other"))
    assert one == two
    assert one != other
    assert (tmp_path / "one" / "log.csv").read_bytes() == (tmp_path / "two" / "log.csv").read_bytes()


@pytest.mark.parametrize("name", sorted(list_recipes()))
def test_each_recipe_runs(training_folder: Path, tmp_path: Path, name: str) -> None:
    heads = {"dense": ["dense"], "dense-grounded": ["tokens", "dense"], "joint": ["tokens", "dense"]}.get(name, ["tokens"])
    changes = {"recipe.name": name, "recipe.steps": 4, "model.heads": heads, "validation.keep": "last"}
    if name == "stair-paper":  # tied embeddings are as wide as the text network
        changes |= {"model.image.transform_dim": 32, "model.text.transform_dim": 32}
    if name == "distilled":
        changes["model.teacher"] = str(tiny_dense.write_clip(tmp_path / "clip"))
    result = run_training(training_folder, tmp_path / "out", changes)
    assert result.steps == 4
    assert 0 <= result.best <= 1


@pytest.mark.parametrize("bias", [0.0, -2.5])
def test_training_starts_with_the_given_bias(training_folder: Path, tmp_path: Path, bias: float) -> None:
    changes = {**ZERO_RATES, "recipe.steps": 1}
    run_training(training_folder, tmp_path / "biased", {**changes, "model.start_bias": bias})
    run_training(training_folder, tmp_path / "plain", changes)
    biased, plain = read_weights(tmp_path / "biased"), read_weights(tmp_path / "plain")
    biases = {name for name in biased if name.endswith("bias_F")}
    assert list_different(biased, plain) == biases
    for name in biases:
        assert torch.equal(biased[name], torch.full_like(biased[name], bias))
        assert torch.equal(plain[name], torch.full_like(plain[name], -1.0))


def test_training_starts_with_the_given_scale(training_folder: Path, tmp_path: Path) -> None:
    changes = {**ZERO_RATES, "recipe.steps": 1, "validation.keep": "last", "model.max_scale": 10.0}
    run_training(training_folder, tmp_path / "first", {**changes, "model.start_scale": 5.0})
    later = {**changes, "model.start": str(tmp_path / "first"), "model.start_scale": 7.0, "model.max_scale": 7.0}
    run_training(training_folder, tmp_path / "second", later)  # the checkpoint's own scale wins
    for name in ("first", "second"):
        assert float(read_weights(tmp_path / name)["log_scale"].exp()) == pytest.approx(5.0)
        assert read_metric(tmp_path / name, "scale") == pytest.approx([5.0], rel=1e-3)
    run_training(training_folder, tmp_path / "third", {**later, "model.start_scale": 2.0, "model.max_scale": 3.0})
    assert read_metric(tmp_path / "third", "scale") == [3.0]


@pytest.mark.nightly("torch.compile")
def test_what_torch_compile_lacks_is_reported(training_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, str(tmp_path / "no-compiler")))
    compile_module = torch.nn.Module.compile

    def lack_headers(*_: object) -> None:
        raise torch._inductor.exc.CppCompileError(["g++"], "x.h:1: fatal error: no Python.h\n 1 | #include")

    for backend, reason in (("inductor", "no-compiler"), (lack_headers, "no Python.h")):
        monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(compile_module, backend=backend))
        with expect_error("compile-failed") as caught:
            run_training(training_folder, tmp_path / reason, {"optim.compile": True})
        assert reason in caught.value.message
        assert "optim.compile" in caught.value.remedy


def test_trainings_with_one_start_seed_begin_alike(training_folder: Path, tmp_path: Path) -> None:
    for name, seed, start_seed in (("one", 1, 1), ("two", 2, 1), ("other", 2, 3)):
        changes = {**ZERO_RATES, "recipe.steps": 1, "seed": seed, "model.start_seed": start_seed}
        run_training(training_folder, tmp_path / name, changes)
    one, two, other = (read_weights(tmp_path / name) for name in ("one", "two", "other"))
    assert not list_different(one, two)
    assert list_different(one, other)


def test_tied_towers_share_the_table_of_the_text_network(training_folder: Path, tmp_path: Path) -> None:
    config = tiny_training.CONFIG.replace("top_k = 8\n", "").replace("own_words = true\n", "")
    (training_folder / "tiny.toml").write_text(config)
    changes = {"recipe.name": "stair-paper", "recipe.steps": 8, "validation.keep": "last"}
    changes |= {"model.image.transform_dim": 32, "model.text.transform_dim": 32}
    run_training(training_folder, tmp_path / "out", changes)
    weights = read_weights(tmp_path / "out")
    assert not [name for name in weights if name.endswith("embedding_FT")]
    encoder = registry.load_encoder(ModelSpec(name=str(tmp_path / "out")))
    model = checkpoint.load_stair_model(tmp_path / "out")
    table_FT = weights["text.backbone.network.embeddings.word_embeddings.weight"][model.tokens.feature_ids_F]
    assert torch.equal(model.get_text_embeddings(), table_FT)
    [vector] = encoder.encode_images(np.zeros((1, 32, 32, 3), np.uint8))
    with torch.inference_mode():
        states_BLD = model.image.compute_states(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
        hidden_LT = model.image.head.transform(states_BLD)[0]
        logits_F = (hidden_LT @ table_FT.T + model.image.head.bias_F).amax(dim=0)
    expected = dict(zip(model.tokens.tokens, torch.log1p(logits_F.relu()).tolist(), strict=True))
    assert vector.to_dict() == pytest.approx({word: weight for word, weight in expected.items() if weight > 5e-6}, abs=2e-5)


def test_only_unfrozen_parts_change(training_folder: Path, tmp_path: Path) -> None:
    changes = {
        "recipe": {},
        "validation.keep": "last",
        "stages": [{"name": "text", "steps": 2, "train": ["text.backbone", "text.head"]}],
        "optim.weight_decay": 0.1,
    }
    run_training(training_folder, tmp_path / "before", {**changes, "optim.lr": 0.0, "optim.backbone_lr": 0.0})
    run_training(training_folder, tmp_path / "after", changes)
    changed = list_different(read_weights(tmp_path / "before"), read_weights(tmp_path / "after"))
    assert {name.split(".")[0] for name in changed} == {"text", "log_scale"}
    assert any(".backbone." in name for name in changed)
    assert any(".head." in name for name in changed)


def test_frozen_batch_norms_are_kept(training_folder: Path, tmp_path: Path) -> None:
    changes = {
        "model.image.backbone": {"kind": "timm", "name": "test_resnet", "config": {"num_classes": 0}},
        "recipe.frozen_backbones": True,
        "validation.keep": "last",
    }
    run_training(training_folder, tmp_path / "one", {**changes, "recipe.steps": 1})
    run_training(training_folder, tmp_path / "four", {**changes, "recipe.steps": 4})
    one, four = read_weights(tmp_path / "one"), read_weights(tmp_path / "four")
    assert any("running_mean" in name for name in one)
    assert not [name for name in list_different(one, four) if ".backbone." in name]


def test_training_begins_with_a_checkpoint(training_folder: Path, tmp_path: Path) -> None:
    run_training(training_folder, tmp_path / "first")
    start = {"model.start": str(tmp_path / "first")}
    run_training(training_folder, tmp_path / "second", {**start, **ZERO_RATES, "seed": 9})
    assert not list_different(read_weights(tmp_path / "first"), read_weights(tmp_path / "second"))
    with expect_error("checkpoint-error") as caught:
        run_training(training_folder, tmp_path / "third", {**start, "model.text.transform_dim": 8})
    assert "text.head" in caught.value.message


def test_a_dense_checkpoint_teaches(training_folder: Path, tmp_path: Path) -> None:
    dense = {"model.heads": ["dense"], "recipe.name": "dense", "recipe.steps": 1}
    run_training(training_folder, training_folder / "teacher", dense)
    stages = [{"name": "distil", "steps": 12, "losses": {"distil": 1.0}}]
    changes = {"recipe": {}, "stages": stages, "model.teacher": "teacher", "validation.every": 12, **HIGH_RATES}
    run_training(training_folder, tmp_path / "out", changes)
    losses = read_metric(tmp_path / "out", "distil")
    assert sum(losses[-5:]) < sum(losses[:5]) / 2
    with expect_error("config-error") as caught:
        run_training(training_folder, tmp_path / "no", {**changes, "model.teacher": str(tmp_path / "out")})
    assert f"{tmp_path / 'out'}" in caught.value.message


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_cached_features_give_the_same_training(training_folder: Path, tmp_path: Path, pool: str) -> None:
    changes = {
        "recipe.frozen_backbones": True,
        "model.image.pool": pool,
        "model.text.pool": pool,
        "model.image.top_k": 0,  # a cap is a step: a rounding may let another token in
        "model.text.top_k": 0,
        "optim.lr": 1e-4,
        "validation.keep": "last",
    }
    tasks: set[str] = set()
    callbacks = Callbacks(
        on_message=lambda line: None, on_metrics=lambda step: None, on_progress=lambda what, done, total: tasks.add(what)
    )
    run_training(training_folder, tmp_path / "live", changes)
    run_training(training_folder, tmp_path / "cached", {**changes, "data.cache": True}, callbacks=callbacks)
    live, cached = read_log(tmp_path / "live"), read_log(tmp_path / "cached")
    for live_row, cached_row in zip(live, cached, strict=True):
        if live_row["kind"] == "train":
            assert (cached_row["step"], cached_row["name"]) == (live_row["step"], live_row["name"])
            assert float(cached_row["value"]) == pytest.approx(float(live_row["value"]), rel=1e-2), live_row
    first = {row["name"]: float(row["value"]) for row in live if row["step"] == "1"}
    assert {row["name"]: float(row["value"]) for row in cached if row["step"] == "1"} == pytest.approx(first, rel=2e-3)
    assert "states of images" in tasks
    tasks.clear()
    run_training(training_folder, tmp_path / "again", {**changes, "data.cache": True}, callbacks=callbacks)
    assert "states of images" not in tasks
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "cached" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("cache", [False, True])
def test_unreadable_images_are_skipped_and_reported_once(training_folder: Path, tmp_path: Path, cache: bool) -> None:
    (training_folder / "red-cat.png").write_bytes(b"no picture")
    (training_folder / "red-sea.png").write_bytes(b"")
    (training_folder / "red-dog.png").unlink()
    changes = {"recipe.steps": 6, "recipe.frozen_backbones": True, "data.cache": cache, "data.views": 2}
    for _ in range(2):  # the second time, the features are in the cache
        result = run_training(training_folder, tmp_path / "out", changes)
        assert (result.steps, result.pairs) == (6, tiny_training.PAIRS - 1)
        assert [line.partition(" ")[0] for line in result.problems] == ["1", "1", "1"], result.problems
        assert any("red-dog.png" in line for line in result.problems)
        prepare_output_folder(tmp_path / "out", restart=True)


def test_only_unreadable_images_are_an_error(training_folder: Path, tmp_path: Path) -> None:
    for path in training_folder.glob("*.png"):
        path.write_bytes(b"no picture")
    with expect_error("pair-unreadable"):
        run_training(training_folder, tmp_path / "out")


def test_early_stopping_keeps_the_best(training_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "MIN_IMAGES_TO_CHOOSE", 9)
    changes = {**ZERO_RATES, "recipe.steps": 50, "validation.patience": 2}
    result = run_training(training_folder, tmp_path / "out", changes)
    assert result.stopped_early
    assert (result.steps, result.best_step) == (6, 2)  # validations at 2, 4 and 6 are alike
    resumed = run_training(training_folder, tmp_path / "out", changes)
    assert (resumed.steps, resumed.stopped_early) == (6, True)


def test_few_images_choose_neither_checkpoint_nor_end(training_folder: Path, tmp_path: Path) -> None:
    messages: list[str] = []
    callbacks = replace(NO_CALLBACKS, on_message=messages.append)
    changes = {"optim.lr": 0.02, "validation.every": 1, "recipe.steps": 8}
    chosen = run_training(training_folder, tmp_path / "out", {**changes, "validation.patience": 1}, callbacks=callbacks)
    assert (chosen.steps, chosen.best_step, chosen.stopped_early) == (8, 8, False)
    assert [line for line in messages if "9 images" in line and "100" in line]
    run_training(training_folder, tmp_path / "last", {**changes, "validation.keep": "last"}, callbacks=NO_CALLBACKS)
    assert not list_different(read_weights(tmp_path / "out"), read_weights(tmp_path / "last"))


def test_held_out_images_leave_the_training_set(training_folder: Path, tmp_path: Path) -> None:
    result = run_training(training_folder, tmp_path / "out", {"data.held_out": [{"captions": "val.jsonl"}]})
    assert result.pairs is not None
    assert 0 < result.pairs <= tiny_training.PAIRS - 9  # some of the others look like one of them
    with expect_error("dataset-error"):
        run_training(training_folder, tmp_path / "none", {"data.held_out": [{"captions": "train.jsonl"}]})


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_narrow_precisions_learn(training_folder: Path, tmp_path: Path, precision: str) -> None:
    changes = {"optim.precision": precision, "recipe.steps": 15, "validation.every": 15, **HIGH_RATES}
    result = run_training(training_folder, tmp_path / "out", changes)
    losses = read_metric(tmp_path / "out", "loss")
    assert result.steps == 15
    assert losses[-1] < losses[0] * 0.8
    assert {tensor.dtype for name, tensor in read_weights(tmp_path / "out").items() if name != "feature_ids"} == {torch.float32}


def test_average_is_saved(training_folder: Path, tmp_path: Path) -> None:
    changes = {"recipe.steps": 1, "data.validation": []}
    for name, more in (("begin", ZERO_RATES), ("plain", {}), ("mean", {"optim.ema": 0.75})):
        run_training(training_folder, tmp_path / name, {**changes, **more})
    begin, plain, mean = (read_weights(tmp_path / name) for name in ("begin", "plain", "mean"))
    for name in begin:
        if name != checkpoint.FEATURE_IDS_TENSOR:
            torch.testing.assert_close(mean[name], 0.75 * begin[name] + 0.25 * plain[name], atol=1e-6, rtol=1e-5)


def test_the_model_card_is_one_of_the_hub(training_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = {
        "license": "cc-by-4.0",
        "language": ["en"],
        "datasets": ["org/set"],
        "base_model": ["org/base"],
        "data": "Drawings: 18.",
    }
    run_training(training_folder, tmp_path / "out", {f"card.{name}": value for name, value in card.items()})
    loaded = ModelCard.load(tmp_path / "out" / "README.md")
    data = loaded.data.to_dict()
    assert {name: data[name] for name in card if name != "data"} == {name: card[name] for name in card if name != "data"}
    assert card["data"] in loaded.content
    assert read_license(tmp_path / "out") == ("weights: cc-by-4.0, as their model card says",)
    results = {result.metric_name: result for result in loaded.data.eval_results or ()}
    assert {"t2i@1", "t2i@5", "i2t@1", "i2t@10"} <= results.keys()
    assert (loaded.data.model_name, results["t2i@1"].task_type, results["t2i@1"].dataset_name) == ("tiny", "retrieval", "val")
    assert results["t2i@1"].metric_value == pytest.approx(read_metric(tmp_path / "out", "t2i@1")[-1], abs=1e-5)
    monkeypatch.setattr(validation, "MIN_IMAGES_TO_CHOOSE", 9)
    changes = {"validation.keep": "last", "optim.lr": 0.1, "validation.every": 1, "recipe.steps": 12}
    assert run_training(training_folder, tmp_path / "last", changes).best_step < 12  # but the results are those of step 12
    last = {each.metric_name: each for each in ModelCard.load(tmp_path / "last" / "README.md").data.eval_results or ()}
    assert last["t2i@1"].metric_value == pytest.approx(read_metric(tmp_path / "last", "t2i@1")[-1], abs=1e-5)
    run_training(training_folder, tmp_path / "plain", {"data.validation": []})
    plain = ModelCard.load(tmp_path / "plain" / "README.md")
    assert [name for name in ("license", "model-index", "base_model") if name in plain.data.to_dict()] == []
    assert "License: not stated" in plain.content


def test_infinite_loss_ends_the_training(training_folder: Path, tmp_path: Path) -> None:
    changes = {"optim.lr": 1e30, "optim.backbone_lr": 1e30, "optim.warmup_steps": 0, "optim.clip": 0.0, "recipe.steps": 30}
    with expect_error("loss-not-finite") as caught:
        run_training(training_folder, tmp_path / "out", changes)
    assert "'grounded'" in caught.value.message
    assert "optim.lr" in caught.value.remedy


def test_other_configurations_and_folders_are_rejected(training_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_training(training_folder, out)
    with expect_error("state-of-other-training") as caught:
        run_training(training_folder, out, {"optim.lr": 0.5})
    assert "--restart" in caught.value.remedy
    assert prepare_output_folder(out, restart=False)
    run_training(training_folder, out, {"batch.chunk": 3, "batch.checkpointing": True, "validation.every": 5})  # these may change
    assert not prepare_output_folder(out, restart=True)
    assert not (out / "state.pt").exists()
    with expect_error("model-without-state"):
        prepare_output_folder(out, restart=False)
    assert not prepare_output_folder(tmp_path / "new", restart=False)
    (out / "state.pt").write_bytes(b"broken")
    with expect_error("state-unreadable") as caught:
        run_training(training_folder, out)
    assert str(out / "state.pt") in caught.value.message


def test_a_tokenizer_larger_than_its_embeddings_is_rejected(training_folder: Path, tmp_path: Path) -> None:
    path = training_folder / "text" / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_tokens(["zebra"])
    tokenizer.save(str(path))
    with expect_error("checkpoint-error") as caught:
        run_training(training_folder, tmp_path / "out")
    assert [fact for fact in ("'zebra'", str(training_folder / "text")) if fact not in caught.value.message] == []


def test_a_batch_larger_than_the_set_is_rejected(training_folder: Path, tmp_path: Path) -> None:
    with expect_error("config-error") as caught:
        run_training(training_folder, tmp_path / "out", {"batch.size": 64})
    assert [fact for fact in ("64", "18") if fact not in caught.value.message] == []


def test_a_share_of_the_images_is_held_out_by_name(training_folder: Path, tmp_path: Path) -> None:
    changes = {"data.validation": [], "data.validation_share": 0.25, "validation.patience": 2}
    result = run_training(training_folder, tmp_path / "out", changes)
    assert result.pairs == tiny_training.PAIRS - 4
    assert 0 <= result.best <= 1
    names = [f"{number}.png" for number in range(40)]
    pairs = TrainingSet.from_pairs(TrainingPair(name, FileLocator(f"file:///{name}"), ("caption",)) for name in names)
    train, held_out = split_rows(pairs, 0.1)
    assert (len(held_out), sorted([*train, *held_out])) == (4, list(range(40)))
    _, held_out_reversed = split_rows(pairs.select_pairs(range(40)[::-1]), 0.1)
    assert set(held_out) == {39 - row for row in held_out_reversed}
    with expect_error("dataset-error") as caught:
        split_rows(pairs.select_pairs(range(4)), 0.1)
    assert "10%" in caught.value.message


def test_impossible_trainings_on_ray_are_reported_first(training_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from stair_es.training.ray_train import train_on_ray

    config = tiny_training.read_config(training_folder)
    with expect_error("config-error") as caught:
        train_on_ray(config, tmp_path / "out", NO_CALLBACKS, workers=4, device="cpu")
    assert re.findall(r"\d+", caught.value.message) == ["6", "4"]
    with expect_error("ray-unreachable") as caught:
        train_on_ray(config, tmp_path / "out", NO_CALLBACKS, workers=2, device="cpu", address="127.0.0.1:9")
    assert "127.0.0.1:9" in caught.value.message
    assert not (tmp_path / "out").exists()
