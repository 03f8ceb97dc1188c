"""The recipe `stair-paper` over the packaged networks: trained by the installed command, read with and without PyTorch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.models import tiny_training

from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.model.stair.export_onnx import export_onnx
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import Backend

pytestmark = pytest.mark.nightly("the recipe of the paper, trained and exported; test_train_resume trains in short")

CONFIG = """\
name = "paper"

[model]
vocabulary = "captions"

[model.image]
backbone = { kind = "package", name = "efficientnet-lite2" }
size_px = 260
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
pool = "mean"
transform_dim = 384

[model.text]
backbone = { kind = "package", name = "all-minilm-l6-v2" }
pool = "mean"
transform_dim = 384

[[data.train]]
captions = "train.jsonl"

[[data.validation]]
captions = "val.jsonl"

[recipe]
name = "stair-paper"
steps = 8
frozen_backbones = true

[batch]
size = 6

[validation]
keep = "last"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    tiny_training.write_set(folder)
    (folder / "paper.toml").write_text(CONFIG)
    command = [str(Path(sys.executable).with_name("stair-es")), "train", str(folder / "paper.toml"), "--out", str(folder / "out")]
    done = subprocess.run(
        [*command, "--device", "cpu", "--json"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 8
    export_onnx(folder / "out")
    return folder


def _vectors(folder: Path, backend: Backend) -> list[dict[str, float]]:
    encoder = registry.load_encoder(ModelSpec(name=str(folder / "out"), backend=backend))
    photos = [folder / name for name in ("red-dog.png", "blue-sea.png", "the-cat.png")]
    pixels = np.stack([decode_image(photo.read_bytes(), encoder.image_spec, DecodeLimits()).pixels_HWC for photo in photos])
    found: list[Any] = [*encoder.encode_images(pixels), *encoder.encode_texts(["red dog", "a sea of the blue"])]
    return [vector.to_dict() for vector in found]


def test_trained_models_load_and_runtimes_agree(folder: Path) -> None:
    config = json.loads((folder / "out" / "config.json").read_text())
    assert config["similarity"] == "dot"
    assert all((config[side]["top_k"], config[side]["tie"]) == (0, True) for side in ("image", "text"))
    onnx, torch = _vectors(folder, "onnx"), _vectors(folder, "torch")
    for one, other in zip(onnx, torch, strict=True):
        for word in {*one, *other}:
            assert one.get(word, 0.0) == pytest.approx(other.get(word, 0.0), abs=1e-4), word
    lengths = [sum(weight**2 for weight in vector.values()) ** 0.5 for vector in onnx]
    assert not any(length == pytest.approx(1, abs=1e-3) for length in lengths), "a dot product leaves lengths alone"


def test_stop_words_are_words_of_the_model(folder: Path) -> None:
    encoder = registry.load_encoder(ModelSpec(name=str(folder / "out"), backend="onnx"))
    assert {"the", "of", "red", "dog"} <= set(encoder.tokens)
