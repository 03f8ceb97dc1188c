"""STAIR checkpoints: bitwise round trips of every backbone, damaged files, no unpickling."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from support.errors import expect_error
from support.models import tiny_stair

from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.model.stair import checkpoint
from stair_es.model.stair.configuration import StairConfig, read_stair_config
from stair_es.types import Pixels

BACKBONES = [(image, "bert") for image in tiny_stair.IMAGES] + [("vit", "distilbert")]


def draw_pixels(count: int) -> Pixels:
    return np.random.default_rng(5).integers(0, 256, (count, tiny_stair.SIZE_PX, tiny_stair.SIZE_PX, 3), np.uint8)


def resolve_model_id(folder: Path) -> str:
    return registry.resolve_model(ModelSpec(name=str(folder))).card.model_id


@pytest.mark.parametrize(("image", "text"), BACKBONES)
def test_a_checkpoint_is_the_model_bit_for_bit(tmp_path: Path, image: str, text: str) -> None:
    config = tiny_stair.build_config(image, text, text_own_words=True, heads=("tokens", "dense"), dense_dim=7)
    model = tiny_stair.build_model(config)
    tiny_stair.write_tensors(tmp_path / "one", model, tiny_stair.get_tensors(model))
    loaded = checkpoint.load_stair_model(tmp_path / "one")
    assert loaded.config == config
    tensors, loaded_tensors = model.state_dict(), loaded.state_dict()
    assert list(tensors) == list(loaded_tensors)
    for name, tensor in tensors.items():
        assert tensor.dtype == loaded_tensors[name].dtype
        assert torch.equal(tensor, loaded_tensors[name])
    assert loaded.tokens.tokens == model.tokens.tokens
    pixels_BHWC = torch.from_numpy(draw_pixels(2))
    with torch.inference_mode():
        output, loaded_output = model.encode_images(pixels_BHWC), loaded.encode_images(pixels_BHWC)
    assert torch.equal(output.weights_BF, loaded_output.weights_BF)
    assert torch.equal(output.dense_BE, loaded_output.dense_BE)
    tiny_stair.write_tensors(tmp_path / "two", loaded, tiny_stair.get_tensors(loaded))
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert not [path.name for path in (tmp_path / "one").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "changes",
    [
        {"text_tie": True, "text_transform_dim": tiny_stair.WIDTH},
        {"text_tie": True, "image_tie": True, "text_transform_dim": tiny_stair.WIDTH, "image_transform_dim": tiny_stair.WIDTH},
        {"image_tie": True, "image_pool": "mean"},
        {"heads": ("dense",)},
        {"image_top_k": 0, "text_always_masked": True, "similarity": "dot"},
        {"vocabulary": "words", "text_own_words": True, "image_tie": True},
    ],
)
def test_ties_pools_and_heads_reload(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = tiny_stair.build_model(tiny_stair.build_config(**changes))
    tiny_stair.write_tensors(tmp_path, model, tiny_stair.get_tensors(model))
    loaded = checkpoint.load_stair_model(tmp_path)
    assert loaded.config == model.config
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), loaded.parameters(), strict=True))


def test_model_id_depends_on_vector_files(tmp_path: Path) -> None:
    model_id = resolve_model_id(tiny_stair.write_checkpoint(tmp_path / "first"))
    assert re.fullmatch(r"tiny-.{12}", model_id)
    copy = tiny_stair.write_checkpoint(tmp_path / "copy")
    assert resolve_model_id(copy) == model_id
    (copy / "README.md").write_text("another card")
    (copy / "image.onnx").write_bytes(b"a graph")
    assert resolve_model_id(copy) == model_id
    others = (
        tiny_stair.write_checkpoint(tmp_path / "top-k", tiny_stair.build_config(image_top_k=5)),
        tiny_stair.write_checkpoint(tmp_path / "similarity", tiny_stair.build_config(similarity="dot")),
        tiny_stair.write_checkpoint(tmp_path / "seed", seed=1),
    )
    assert len({model_id, *map(resolve_model_id, others)}) == 4


@pytest.fixture(scope="module")
def written_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_stair.write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "m")


@pytest.fixture
def checkpoint_folder(written_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(written_checkpoint, tmp_path / "m"))


Damage = Callable[[Path], object]


def change_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def write_changed_weights(folder: Path) -> None:
        model = tiny_stair.build_model(tiny_stair.build_config())
        weights = tiny_stair.get_tensors(model)
        change(weights)
        tiny_stair.write_tensors(folder, model, weights)

    return write_changed_weights


def set_tensor(name: str, tensor: torch.Tensor) -> Damage:
    return change_weights(lambda weights: weights.update({name: tensor}))


def remove_tensors(prefix: str) -> Damage:
    return change_weights(lambda weights: [weights.pop(name) for name in list(weights) if name.startswith(prefix)])


def change_feature_ids(change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    return change_weights(lambda weights: weights.update(feature_ids=change(weights["feature_ids"]).contiguous()))


def change_config(changes: dict[str, Any]) -> Damage:
    """Set keys, written with dots; None removes one."""

    def write_changed_config(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        for path, value in changes.items():
            *sections, key = path.split(".")
            section = reduce(lambda parent, name: parent[name], sections, config)
            if value is None:
                del section[key]
            else:
                section[key] = value
        (folder / "config.json").write_text(json.dumps(config))

    return write_changed_config


def remove_file(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def truncate_file(name: str, size_bytes: int) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size_bytes])


DAMAGES: dict[str, tuple[Damage, str]] = {
    "a missing tensor": (remove_tensors("image.head.bias_F"), "image.head.bias_F"),
    "many missing tensors": (remove_tensors("text.backbone"), " more"),
    "an unknown tensor": (set_tensor("other", torch.zeros(1)), ": other"),
    "another shape": (set_tensor("image.head.bias_F", torch.zeros(3)), "image.head.bias_F [3], not [17]"),
    "no feature ids": (remove_tensors("feature_ids"), "'feature_ids'"),
    "unsorted feature ids": (change_feature_ids(lambda ids_F: ids_F.flip(0)), "feature_ids"),
    "a special token": (change_feature_ids(lambda ids_F: torch.cat([torch.tensor([2]), ids_F[1:]])), "token 2"),
    "a token beyond": (change_feature_ids(lambda ids_F: torch.cat([ids_F[:-1], torch.tensor([999])])), "token 999"),
    "a newer version": (change_config({"version": 2}), "version 2"),
    "no version": (change_config({"version": None}), "version None"),
    "an unknown field": (change_config({"color": "red"}), ": color"),
    "an unknown field of a tower": (change_config({"image.color": "red"}), ": color"),
    "no tower": (change_config({"text": None}), ": text"),
    "a missing field": (change_config({"image.size_px": None}), "size_px"),
    "no whole words": (change_config({"vocabulary": "words"}), "words.json"),
    "whole words tied to tokens": (change_config({"vocabulary": "words", "text.tie": True}), "text.tie"),
    "no head": (change_config({"heads": []}), "a head"),
    "no tokenizer": (remove_file("tokenizer.json"), "tokenizer.json"),
    "half a tokenizer": (truncate_file("tokenizer.json", 100), "tokenizer.json"),
    "no weights": (remove_file("model.safetensors"), "model.safetensors"),
    "half the weights": (truncate_file("model.safetensors", 9000), "model.safetensors"),
    "empty weights": (truncate_file("model.safetensors", 0), "model.safetensors"),
    "half a configuration": (truncate_file("config.json", 60), "config.json"),
}


@pytest.mark.parametrize(("damage", "fact"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_checkpoints_are_rejected(checkpoint_folder: Path, damage: Damage, fact: str) -> None:
    damage(checkpoint_folder)
    with expect_error("checkpoint-error") as caught:
        registry.load_encoder(ModelSpec(name=str(checkpoint_folder), backend="torch")).encode_images(draw_pixels(1))
    assert fact in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("key", "value", "code", "fact"),
    [
        ("vocabulary", "bytes", "checkpoint-error", "'bytes'"),
        ("heads", ["feet"], "checkpoint-error", "'feet'"),
        ("image.backbone.config.model_type", "nothing", "backbone-not-built", "'tiny-vit'"),
    ],
)
def test_unknown_values_are_rejected(checkpoint_folder: Path, key: str, value: object, code: str, fact: str) -> None:
    change_config({key: value})(checkpoint_folder)
    with expect_error(code) as caught:
        registry.load_encoder(ModelSpec(name=str(checkpoint_folder), backend="torch")).encode_images(draw_pixels(1))
    assert fact in caught.value.message
    assert caught.value.remedy


class MaliciousPickle:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


def test_pickles_are_never_read(checkpoint_folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    model_id = resolve_model_id(checkpoint_folder)
    for name in ("pytorch_model.bin", "model.pt", "training_args.bin"):
        (checkpoint_folder / name).write_bytes(pickle.dumps(MaliciousPickle(trace)))
    assert resolve_model_id(checkpoint_folder) == model_id
    assert len(registry.load_encoder(ModelSpec(name=str(checkpoint_folder))).encode_images(draw_pixels(1))[0])
    (checkpoint_folder / "model.safetensors").write_bytes(pickle.dumps(MaliciousPickle(trace)))
    with expect_error("checkpoint-error") as caught:
        registry.load_encoder(ModelSpec(name=str(checkpoint_folder))).encode_images(draw_pixels(1))
    assert "model.safetensors" in caught.value.message
    assert not trace.exists()


@pytest.mark.parametrize(
    ("options", "code", "fact"),
    [
        ({"precision": "int4"}, "unknown-choice", "'int4'"),
        ({"backend": "tensorrt"}, "unknown-choice", "'tensorrt'"),
        ({"threads": -1}, "invalid-threads", "-1"),
        ({"text_tower": "table"}, "no-text-tower", "'table'"),
    ],
)
def test_an_unsupported_spec_is_rejected(checkpoint_folder: Path, options: dict[str, Any], code: str, fact: str) -> None:
    with expect_error(code) as caught:
        registry.load_encoder(ModelSpec(name=str(checkpoint_folder), **options))
    assert fact in caught.value.message


def test_configuration_round_trips(checkpoint_folder: Path) -> None:
    config = read_stair_config(checkpoint_folder)
    assert config == tiny_stair.build_config()
    assert StairConfig.from_dict(json.loads(config.to_json())) == config
