"""`stair-es distill --method head` with a tiny CLIP: the checkpoint, its encoder, errors; images alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from support.commands import CommandRunner
from support.errors import expect_error
from support.models import tiny_dense, tiny_training

from stair_es.distill.dense_model import open_dense_model
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
def distill_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 images with captions in `set`, a CLIP in `clip`, and the checkpoint distilled from them in `distilled`."""
    folder = tmp_path_factory.mktemp("distill")
    tiny_training.write_set(folder / "set")
    tiny_dense.write_clip(folder / "clip")
    output = build_runner(folder).read_json(
        folder / "clip", "--captions", folder / "set" / "train.jsonl", "--out", folder / "distilled", "--steps", "30"
    )
    assert (output["checkpoint"], output["pairs"], output["problems"]) == (str(folder / "distilled"), 16, [])
    assert output["best"] is not None
    return folder


def build_runner(folder: Path) -> CommandRunner:
    return CommandRunner({"STAIR_ES_HOME": str(folder / "home")}, "distill", "--method", "head")


def load_encoder(folder: Path) -> Encoder:
    return registry.load_encoder(ModelSpec(name=str(folder)))


def read_pixels(folder: Path, encoder: Encoder) -> Pixels:
    paths = sorted((folder / "set").glob("*.png"))
    return np.stack([decode_image(path.read_bytes(), encoder.image_spec, DecodeLimits()).pixels_HWC for path in paths])


def test_readable_tokens_and_the_dense_vectors_of_the_model(distill_folder: Path) -> None:
    distilled, clip = load_encoder(distill_folder / "distilled"), load_encoder(distill_folder / "clip")
    assert distilled.image_spec == clip.image_spec
    pixels_BHWC = read_pixels(distill_folder, distilled)
    images, texts = distilled.encode_images(pixels_BHWC), distilled.encode_texts(TEXTS)
    words = {"bird", "blue", "car", "cat", "dog", "red", "sea", "tree"}  # `the` is a stop word
    assert {token for vector in (*images, *texts) for token in vector.tokens} <= words
    assert {"red", "dog"} <= set(texts[0].tokens)
    assert distilled.encode_images(pixels_BHWC[3:4]) == [images[3]]
    dense, expected = get_dense_encoder(distilled), get_dense_encoder(clip)
    assert dense is not None
    assert expected is not None
    np.testing.assert_array_equal(dense.encode_images_dense(pixels_BHWC), expected.encode_images_dense(pixels_BHWC))
    np.testing.assert_array_equal(dense.encode_texts_dense(TEXTS), expected.encode_texts_dense(TEXTS))
    assert distilled.encode_texts([]) == []


def test_the_model_id_depends_on_the_dense_model_not_the_folder(distill_folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(distill_folder / "distilled", moved)
    encoder, moved_encoder = load_encoder(distill_folder / "distilled"), load_encoder(moved)
    assert moved_encoder.model_id == encoder.model_id
    assert moved_encoder.encode_texts(TEXTS) == encoder.encode_texts(TEXTS)
    tiny_dense.write_clip(tmp_path / "other", seed=1)
    shutil.copyfile(tmp_path / "other" / "model.safetensors", moved / "dense" / "model.safetensors")
    assert load_encoder(moved).model_id != encoder.model_id
    shutil.rmtree(moved / "dense")
    with expect_error("checkpoint-error") as caught:
        load_encoder(moved)
    assert str(moved / "dense") in caught.value.message


def test_the_same_command_resumes_and_gives_the_same_model(distill_folder: Path, tmp_path: Path) -> None:
    runner, out = build_runner(distill_folder), tmp_path / "again"
    arguments = (distill_folder / "clip", "--captions", distill_folder / "set" / "train.jsonl", "--out", out, "--steps", "30")
    model_id = load_encoder(distill_folder / "distilled").model_id
    for _ in range(2):
        assert runner.read_json(*arguments)["checkpoint"] == str(out)
        assert load_encoder(out).model_id == model_id
        (out / "config.json").unlink()  # killed before the end
    assert runner.read_error(*arguments[:-1], "40").code == "state-of-other-training"


def test_images_alone_load_the_dense_model_once(distill_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load_model(model: Model, threads: int | None = None) -> Encoder:
        loaded.append(model.spec.name)
        return original(model, threads)

    original = Model.load
    monkeypatch.setattr(Model, "load", load_model)
    arguments = ("--images", distill_folder / "set", "--out", tmp_path / "out", "--steps", "2")
    build_runner(distill_folder).read_json(distill_folder / "clip", *arguments)
    assert loaded == [str(distill_folder / "clip")]


def test_images_alone_are_captioned_with_words(distill_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("dog\ncat\ncar\ntree\nred\nblue\nsea\nbird\n")
    arguments = (
        "--images",
        distill_folder / "set",
        "--words",
        tmp_path / "words.txt",
        "--only-given-words",
        "--out",
        tmp_path / "out",
    )
    output = build_runner(distill_folder).read_json(distill_folder / "clip", *arguments, "--steps", "10")
    assert output["pairs"] == 16
    pairs = read_pairs([PairFile(path=tmp_path / "out" / "captions.jsonl")])  # a caption set
    assert len(pairs) == tiny_training.PAIRS
    assert all(pair.captions for pair in pairs)
    [vector] = load_encoder(tmp_path / "out").encode_texts(["dog"])
    assert vector.tokens


def test_invalid_arguments_are_rejected(distill_folder: Path, tmp_path: Path) -> None:
    runner, clip, images = build_runner(distill_folder), distill_folder / "clip", distill_folder / "set"
    captions, few = images / "train.jsonl", tmp_path / "few.jsonl"
    tiny_training.write_captions(few, [{"image": str(images / "red-dog.png"), "captions": ["a dog"]}])
    for arguments, code, fact in (
        ((clip,), "method-needs-images", "--captions"),
        ((clip, "--captions", captions, "--images", images), "method-needs-images", "both"),
        ((clip, "--captions", captions, "--prompt", "a {}"), "option-conflict", "--prompt"),
        ((clip, "--images", images, "--method", "labels", "--steps", "3"), "option-conflict", "--steps"),
        ((clip, "--captions", few), "dataset-error", "1 "),
        ((distill_folder / "distilled", "--captions", captions), "no-dense-vectors", str(distill_folder / "distilled")),
        (("stair-mini", "--captions", captions), "not-a-checkpoint-folder", "stair-mini"),
    ):
        error = runner.read_error(*arguments, "--out", tmp_path / "out")
        assert error.code == code
        assert fact in error.message


def test_the_dense_model_of_a_checkpoint_is_found_inside(distill_folder: Path) -> None:
    dense = distill_folder / "distilled" / "dense"
    with expect_error("already-distilled") as caught:
        open_dense_model(ModelSpec(name=str(distill_folder / "distilled")))
    assert str(dense) in caught.value.remedy
    assert open_dense_model(ModelSpec(name=str(dense))).folder == dense


def test_it_runs_in_pytorch_only(distill_folder: Path) -> None:
    with expect_error("model-needs-torch"):
        registry.load_encoder(ModelSpec(name=str(distill_folder / "distilled"), backend="onnx"))
    error = CommandRunner({}, "export").read_error(distill_folder / "distilled")
    assert error.code == "dense-heads-not-exportable"


def test_dense_backbones_are_checked() -> None:
    dense = BackboneConfig(kind="dense", name="clip", config={"dimensions": 4})
    image = ImageTowerConfig(backbone=dense, size_px=16, mean=(0.0,) * 3, std=(1.0,) * 3, fit="crop", resample="bilinear")
    assert (image.image_spec.fit, image.image_spec.resample) == ("crop", "bilinear")
    text = TextTowerConfig(backbone=dense)
    assert StairConfig(name="x", image=image, text=text).has_dense_backbones
    other = TextTowerConfig(backbone=BackboneConfig(kind="transformers", name="bert"))
    with expect_error("checkpoint-error") as caught:
        StairConfig(name="x", image=image, text=other)
    assert 'kind = "dense"' in caught.value.remedy
    with expect_error("checkpoint-error") as caught:
        StairConfig(name="x", image=image, text=text, heads=("dense",))
    assert "heads = ['tokens']" in caught.value.remedy
    with expect_error("checkpoint-error") as caught:
        _ = BackboneConfig(kind="dense", name="clip", config={"dimensions": 0}).dimensions
    assert "dimensions = 0" in caught.value.message
    with expect_error("checkpoint-error") as caught:
        ImageTowerConfig(backbone=other.backbone, size_px=16, mean=(0.0,) * 3, std=(1.0,) * 3, fit="crop")
    assert "'crop'" in caught.value.message


def test_a_training_over_a_dense_model_is_checked(distill_folder: Path) -> None:
    backbone = {"kind": "dense", "name": str(distill_folder / "clip")}
    changes: dict[str, Any] = {"model.image.backbone": backbone, "model.text.backbone": backbone}
    for more, remedy in (
        ({}, "recipe.frozen_backbones = true"),
        ({"recipe.frozen_backbones": True}, "data.cache = true"),
        ({"data.cache": True}, "model.vocabulary = "),
        ({"model.vocabulary": "captions", "model.start_embeddings": True}, "model.start_embeddings = false"),
    ):
        changes |= more
        with expect_error("config-error") as caught:
            tiny_training.read_config(distill_folder / "set", changes)
        assert remedy in caught.value.remedy


def test_noise_moves_vectors_and_keeps_their_length() -> None:
    states_BLD = torch.nn.functional.normalize(torch.randn(2000, 1, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    noisy_BLD = add_noise(states_BLD, 1.0, np.random.default_rng(0))
    torch.testing.assert_close(noisy_BLD.norm(dim=-1), torch.ones(2000, 1))
    cosines_BL = (states_BLD * noisy_BLD).sum(dim=-1)
    assert 0.85 < float(cosines_BL.mean()) < 0.95
    assert float(cosines_BL.min()) > 0.3
    torch.testing.assert_close(add_noise(states_BLD, 0.0, np.random.default_rng(0)), states_BLD)
    assert torch.equal(add_noise(states_BLD, 1.0, np.random.default_rng(0)), noisy_BLD)
