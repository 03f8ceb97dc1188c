"""STAIR checkpoints: bitwise round trips of every backbone, clear errors, no unpickling."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from support.models import tiny_stair

from stair_es.errors import ModelError
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.model.stair import checkpoint
from stair_es.model.stair.configuration import StairConfig, read_stair_config

BOTH = [(image, "bert") for image in tiny_stair.IMAGES] + [("vit", "distilbert")]


@pytest.mark.parametrize(("image", "text"), BOTH)
def test_a_checkpoint_is_the_model_bit_for_bit(tmp_path: Path, image: str, text: str) -> None:
    config = tiny_stair.build_config(image, text, text_own_words=True, heads=("tokens", "dense"), dense_dim=7)
    model = tiny_stair.build_model(config)
    tiny_stair.write_tensors(tmp_path / "one", model, tiny_stair.get_tensors(model))
    loaded = checkpoint.load_stair_model(tmp_path / "one")
    assert loaded.config == config
    kept, result = model.state_dict(), loaded.state_dict()
    assert list(kept) == list(result)
    assert all(kept[name].dtype == result[name].dtype and torch.equal(kept[name], result[name]) for name in kept)
    assert loaded.tokens.tokens == model.tokens.tokens
    pixels = torch.from_numpy(_pixels(2))
    with torch.inference_mode():
        one, other = model.encode_images(pixels), loaded.encode_images(pixels)
    assert torch.equal(one.weights_BF, other.weights_BF)
    assert torch.equal(one.dense_BE, other.dense_BE)
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
    first = registry.resolve_model(ModelSpec(name=str(tiny_stair.write_checkpoint(tmp_path / "a")))).card.model_id
    assert first == registry.resolve_model(ModelSpec(name=str(tiny_stair.write_checkpoint(tmp_path / "b")))).card.model_id
    (tmp_path / "b" / "README.md").write_text("another card")
    (tmp_path / "b" / "image.onnx").write_bytes(b"a graph")
    assert first == registry.resolve_model(ModelSpec(name=str(tmp_path / "b"))).card.model_id
    others = (tiny_stair.build_config(image_top_k=5), tiny_stair.build_config(similarity="dot"))
    ids = {
        registry.resolve_model(ModelSpec(name=str(tiny_stair.write_checkpoint(tmp_path / f"c{i}", other)))).card.model_id
        for i, other in enumerate(others)
    }
    ids.add(registry.resolve_model(ModelSpec(name=str(tiny_stair.write_checkpoint(tmp_path / "d", seed=1)))).card.model_id)
    assert len(ids | {first}) == 4
    assert first.startswith("tiny-")
    assert len(first) == len("tiny-") + 12


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_stair.write_checkpoint(tmp_path_factory.mktemp("made") / "m")


@pytest.fixture
def folder(_made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_made, tmp_path / "m"))


def _weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def fault(folder: Path) -> None:
        model = tiny_stair.build_model(tiny_stair.build_config())
        weights = tiny_stair.get_tensors(model)
        change(weights)
        tiny_stair.write_tensors(folder, model, weights)

    return fault


def _config(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def fault(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text())
        change(values)
        (folder / "config.json").write_text(json.dumps(values))

    return fault


def _cut(name: str, keep: int) -> Callable[[Path], None]:
    return lambda folder: _write(folder / name, (folder / name).read_bytes()[:keep])


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "lacks a tensor": (_weights(lambda w: _drop(w, "image.head.bias_F")), r"model\.safetensors lacks image\.head\.bias_F"),
    "lacks many": (
        _weights(lambda w: _drop(w, *[name for name in w if name.startswith("text.backbone")])),
        r"lacks text\.backbone\.\S+, text\.backbone\.\S+, text\.backbone\.\S+ and \d+ more",
    ),
    "one too many": (_weights(lambda w: w.update(other=torch.zeros(1))), "has tensors that its configuration lacks: other"),
    "other shape": (
        _weights(lambda w: w.update({"image.head.bias_F": torch.zeros(3)})),
        r"the wrong shape: image\.head\.bias_F \[3\], not \[17\]",
    ),
    "no features": (_weights(lambda w: _drop(w, "feature_ids")), "no tensor 'feature_ids'"),
    "features in disorder": (
        _weights(lambda w: w.update(feature_ids=w["feature_ids"].flip(0).contiguous())),
        "must be one ascending row",
    ),
    "a special token as a feature": (
        _weights(lambda w: w.update(feature_ids=torch.cat([torch.tensor([2]), w["feature_ids"][1:]]))),
        "no token for 1 of the model's features, such as token 2",
    ),
    "a feature beyond the vocabulary": (
        _weights(lambda w: w.update(feature_ids=torch.cat([w["feature_ids"][:-1], torch.tensor([999])]))),
        "no token for 1 of the model's features, such as token 999",
    ),
    "a newer version": (_config(lambda c: c.update(version=2)), "version 2 of the format 'stair-es', but this stair-es reads 1"),
    "no version": (_config(lambda c: c.pop("version")), "version None"),
    "an unknown field": (_config(lambda c: c.update(color="red")), "model has unknown fields: color"),
    "an unknown field of a tower": (_config(lambda c: c["image"].update(color="red")), "image has unknown fields: color"),
    "no tower": (_config(lambda c: c.pop("text")), "text must be an object with a backbone"),
    "a missing field": (_config(lambda c: c["image"].pop("size_px")), "size_px"),
    "an unknown vocabulary": (_config(lambda c: c.update(vocabulary="bytes")), "unknown vocabulary 'bytes'"),
    "no whole words": (_config(lambda c: c.update(vocabulary="words")), r"can't read .*words\.json"),
    "whole words tied to tokens": (
        _config(lambda c: c.update(vocabulary="words", text={**c["text"], "tie": True})),
        "shares the embeddings of tokens",
    ),
    "an unknown head": (_config(lambda c: c.update(heads=["feet"])), "unknown head 'feet'"),
    "no head": (_config(lambda c: c.update(heads=[])), "needs a head"),
    "an unknown network": (
        _config(lambda c: c["image"]["backbone"]["config"].update(model_type="nothing")),
        "the backbone 'tiny-vit' can't be built",
    ),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), r"can't read .*tokenizer\.json"),
    "half a tokenizer": (_cut("tokenizer.json", 100), r"can't read the tokenizer .*tokenizer\.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"can't read .*model\.safetensors"),
    "half the weights": (_cut("model.safetensors", 9000), r"can't read .*model\.safetensors"),
    "no weights at all": (_cut("model.safetensors", 0), r"can't read .*model\.safetensors"),
    "half a configuration": (_cut("config.json", 60), r"config\.json"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_incompatible_files_are_rejected_with_the_reason(folder: Path, fault: str) -> None:
    spoil, message = FAULTS[fault]
    spoil(folder)
    with pytest.raises(ModelError, match=message) as error:
        registry.load_encoder(ModelSpec(name=str(folder), backend="torch")).encode_images(_pixels(1))
    assert error.value.remedy


class _MaliciousPickle:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


def test_pickles_are_never_read(folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    before = registry.resolve_model(ModelSpec(name=str(folder))).card.model_id
    for name in ("pytorch_model.bin", "model.pt", "training_args.bin"):
        (folder / name).write_bytes(pickle.dumps(_MaliciousPickle(trace)))
    assert registry.resolve_model(ModelSpec(name=str(folder))).card.model_id == before
    assert len(registry.load_encoder(ModelSpec(name=str(folder))).encode_images(_pixels(1))[0])
    (folder / "model.safetensors").write_bytes(pickle.dumps(_MaliciousPickle(trace)))
    with pytest.raises(ModelError, match=r"can't read .*model\.safetensors"):
        registry.load_encoder(ModelSpec(name=str(folder))).encode_images(_pixels(1))
    assert not trace.exists()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"precision": "int4"}, "unknown precision 'int4'"),
        ({"backend": "tensorrt"}, "unknown backend 'tensorrt'"),
        ({"threads": -1}, "threads must be 0 or more"),
        ({"text_tower": "table"}, "no text tower 'table'"),
    ],
)
def test_an_unsupported_spec_is_rejected(folder: Path, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        registry.load_encoder(ModelSpec(name=str(folder), **spec))


def test_configuration_round_trips(folder: Path) -> None:
    config = read_stair_config(folder)
    assert config == tiny_stair.build_config()
    assert StairConfig.from_dict(json.loads(config.to_json())) == config


def _drop(weights: dict[str, torch.Tensor], *names: str) -> None:
    for name in names:
        del weights[name]


def _pixels(count: int) -> Any:  # noqa: ANN401
    return np.random.default_rng(5).integers(0, 256, (count, tiny_stair.SIZE_PX, tiny_stair.SIZE_PX, 3), np.uint8)
