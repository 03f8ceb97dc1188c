"""`stair-es distill --method head` with a tiny CLIP: the checkpoint, its encoder, errors; images alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from support.commands import CommandRunner
from support.models import tiny_dense, tiny_training

from stair_es.distill.dense_model import open_dense_model
from stair_es.errors import ModelError, UsageError
from stair_es.eval.models import get_dense_encoder
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.model.registry import Model
from stair_es.model.stair.configuration import BackboneConfig, ImageTowerConfig, StairConfig, TextTowerConfig
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.training.data.dataset import PairFile, read_pairs
from stair_es.training.data.dense_features import add_noise
from stair_es.types import Pixels

TEXTS = ["red dog", "a car", "", "zebra"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 images with captions in `set`, a CLIP in `clip`, and what was distilled of them in `made`."""
    folder = tmp_path_factory.mktemp("distill")
    tiny_training.write_set(folder / "set")
    tiny_dense.write_clip(folder / "clip")
    output = make_runner(folder).read_json(
        folder / "clip", "--captions", folder / "set" / "train.jsonl", "--out", folder / "made", "--steps", "30"
    )
    assert (output["checkpoint"], output["pairs"], output["problems"]) == (str(folder / "made"), 16, [])
    assert output["best"] is not None
    return folder


def make_runner(folder: Path) -> CommandRunner:
    return CommandRunner({"STAIR_ES_HOME": str(folder / "home")}, "distill", "--method", "head")


def load(folder: Path) -> Encoder:
    return registry.load_encoder(ModelSpec(name=str(folder)))


def read_pixels(folder: Path, encoder: Encoder) -> Pixels:
    paths = sorted((folder / "set").glob("*.png"))
    return np.stack([decode_image(path.read_bytes(), encoder.image_spec, DecodeLimits()).pixels_HWC for path in paths])


def test_the_checkpoint_has_readable_tokens_and_the_dense_vectors_of_its_model(folder: Path) -> None:
    made, clip = load(folder / "made"), load(folder / "clip")
    assert made.image_spec == clip.image_spec
    pixels = read_pixels(folder, made)
    images, texts = made.encode_images(pixels), made.encode_texts(TEXTS)
    words = {"bird", "blue", "car", "cat", "dog", "red", "sea", "tree"}  # `the` is a stop word
    assert {token for vector in (*images, *texts) for token in vector.tokens} <= words
    assert {"red", "dog"} <= set(texts[0].tokens)
    assert made.encode_images(pixels[3:4]) == [images[3]]
    dense, expected = get_dense_encoder(made), get_dense_encoder(clip)
    assert dense is not None
    assert expected is not None
    np.testing.assert_array_equal(dense.encode_images_dense(pixels), expected.encode_images_dense(pixels))
    np.testing.assert_array_equal(dense.encode_texts_dense(TEXTS), expected.encode_texts_dense(TEXTS))
    assert made.encode_texts([]) == []


def test_a_moved_checkpoint_is_the_same_model_and_another_dense_model_another_one(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "made", tmp_path / "moved")
    made, moved = load(folder / "made"), load(tmp_path / "moved")
    assert moved.model_id == made.model_id
    assert moved.encode_texts(TEXTS) == made.encode_texts(TEXTS)
    tiny_dense.write_clip(tmp_path / "other", seed=1)
    shutil.copyfile(tmp_path / "other" / "model.safetensors", tmp_path / "moved" / "dense" / "model.safetensors")
    assert load(tmp_path / "moved").model_id != made.model_id
    shutil.rmtree(tmp_path / "moved" / "dense")
    with pytest.raises(ModelError, match="dense"):
        load(tmp_path / "moved")


def test_the_same_command_resumes_and_gives_the_same_model(folder: Path, tmp_path: Path) -> None:
    runner, out = make_runner(folder), tmp_path / "again"
    arguments = (folder / "clip", "--captions", folder / "set" / "train.jsonl", "--out", out, "--steps", "30")
    runner.read_json(*arguments)
    assert load(out).model_id == load(folder / "made").model_id
    (out / "config.json").unlink()  # killed before the end
    assert runner.read_json(*arguments)["checkpoint"] == str(out)
    assert load(out).model_id == load(folder / "made").model_id
    assert "another configuration" in runner.read_error(*arguments[:-1], "40").message


def test_images_alone_load_the_dense_model_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load_model(model: Model, threads: int | None = None) -> Encoder:
        loaded.append(model.spec.name)
        return original(model, threads)

    original = Model.load
    monkeypatch.setattr(Model, "load", load_model)
    make_runner(folder).read_json(folder / "clip", "--images", folder / "set", "--out", tmp_path / "out", "--steps", "2")
    assert loaded == [str(folder / "clip")]


def test_images_alone_are_captioned_with_words(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("dog\ncat\ncar\ntree\nred\nblue\nsea\nbird\n")
    output = make_runner(folder).read_json(
        folder / "clip", "--images", folder / "set", "--words", tmp_path / "words.txt", "--out", tmp_path / "out", "--steps", "10"
    )
    lines = [json.loads(line) for line in (tmp_path / "out" / "captions.jsonl").read_text().splitlines()]
    assert len(lines) == tiny_training.PAIRS
    assert output["pairs"] == 16
    assert all(line["captions"] for line in lines)
    assert len(read_pairs([PairFile(path=tmp_path / "out" / "captions.jsonl")])) == tiny_training.PAIRS  # a caption set
    (vector,) = load(tmp_path / "out").encode_texts(["dog"])
    assert vector.tokens


def test_wrong_use_is_explained(folder: Path, tmp_path: Path) -> None:
    runner, captions = make_runner(folder), folder / "set" / "train.jsonl"
    for arguments, problem in (
        ((folder / "clip",), "requires --captions or --images"),
        ((folder / "clip", "--captions", captions, "--images", folder / "set"), "can't use both"),
        ((folder / "clip", "--captions", captions, "--l1", "0.3"), "--l1 applies only to --method dictionary"),
        (
            (folder / "clip", "--images", folder / "set", "--method", "dictionary", "--steps", "3"),
            "--steps applies only to --method head",
        ),
        ((folder / "made", "--captions", captions), "already made from a dense model"),
        (("stair-mini", "--captions", captions), "not a checkpoint folder"),
    ):
        assert problem in runner.read_error(*arguments, "--out", tmp_path / "out").message
    tiny_training.write_captions(tmp_path / "few.jsonl", [{"image": str(folder / "set" / "red-dog.png"), "captions": ["a dog"]}])
    error = runner.read_error(folder / "clip", "--captions", tmp_path / "few.jsonl", "--out", tmp_path / "out")
    assert "too few" in error.message


def test_the_checkpoint_is_no_dense_model_but_the_one_in_it_is(folder: Path) -> None:
    with pytest.raises(UsageError, match="was already made from a dense model") as wrong:
        open_dense_model(ModelSpec(name=str(folder / "made")))
    assert str(folder / "made" / "dense") in wrong.value.remedy
    assert open_dense_model(ModelSpec(name=str(folder / "made" / "dense"))).folder == folder / "made" / "dense"


def test_it_runs_in_pytorch_only(folder: Path) -> None:
    with pytest.raises(ModelError, match="only in PyTorch"):
        registry.load_encoder(ModelSpec(name=str(folder / "made"), backend="onnx"))
    error = CommandRunner({}, "export").read_error(folder / "made")
    assert "can't be exported" in error.message


def test_dense_backbones_are_checked() -> None:
    dense = BackboneConfig(kind="dense", name="clip", config={"dimensions": 4})
    image = ImageTowerConfig(backbone=dense, size_px=16, mean=(0.0,) * 3, std=(1.0,) * 3, fit="crop", resample="bilinear")
    assert (image.image_spec.fit, image.image_spec.resample) == ("crop", "bilinear")
    text = TextTowerConfig(backbone=dense)
    assert StairConfig(name="x", image=image, text=text).has_dense_backbones
    other = TextTowerConfig(backbone=BackboneConfig(kind="transformers", name="bert"))
    with pytest.raises(ModelError, match="only one tower"):
        StairConfig(name="x", image=image, text=other)
    with pytest.raises(ModelError, match="only token heads"):
        StairConfig(name="x", image=image, text=text, heads=("dense",))
    with pytest.raises(ModelError, match="dimensions"):
        _ = BackboneConfig(kind="dense", name="clip", config={"dimensions": 0}).dimensions
    with pytest.raises(ModelError, match="image fit"):
        ImageTowerConfig(backbone=other.backbone, size_px=16, mean=(0.0,) * 3, std=(1.0,) * 3, fit="crop")


def test_a_training_over_a_dense_model_is_checked(folder: Path) -> None:
    changes = {
        "model.image.backbone": {"kind": "dense", "name": str(folder / "clip")},
        "model.text.backbone": {"kind": "dense", "name": str(folder / "clip")},
    }
    with pytest.raises(UsageError, match="is a dense model"):
        tiny_training.read_config(folder / "set", changes)
    changes["recipe.frozen_backbones"] = True  # type: ignore[assignment]
    with pytest.raises(UsageError, match="cached vectors"):
        tiny_training.read_config(folder / "set", changes)
    changes["data.cache"] = True  # type: ignore[assignment]
    with pytest.raises(UsageError, match="no tokens"):
        tiny_training.read_config(folder / "set", changes)
    changes |= {"model.vocabulary": "captions", "model.start_embeddings": True}  # type: ignore[dict-item]
    with pytest.raises(UsageError, match="no token embeddings"):
        tiny_training.read_config(folder / "set", changes)


def test_noise_moves_vectors_and_keeps_their_length() -> None:
    states_BLD = torch.nn.functional.normalize(torch.randn(2000, 1, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    noisy_BLD = add_noise(states_BLD, 1.0, np.random.default_rng(0))
    torch.testing.assert_close(noisy_BLD.norm(dim=-1), torch.ones(2000, 1))
    cosines = (states_BLD * noisy_BLD).sum(dim=-1)
    assert 0.85 < float(cosines.mean()) < 0.95
    assert float(cosines.min()) > 0.3
    torch.testing.assert_close(add_noise(states_BLD, 0.0, np.random.default_rng(0)), states_BLD)
    assert torch.equal(add_noise(states_BLD, 1.0, np.random.default_rng(0)), noisy_BLD)
