"""D2S's head over a tiny BLIP: vectors against an independent computation, the dense model it needs, broken checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.models.tiny_checkpoints import WORDS, build_d2s_config, draw_d2s_weights, write_checkpoint
from support.models.tiny_dense import write_blip

from stair_es.errors import ModelError
from stair_es.eval.models import get_dense_encoder
from stair_es.model import registry
from stair_es.model.adapters.d2s import DENSE_MODEL_ENV
from stair_es.model.base import Encoder, ModelSpec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_blip(tmp_path / "blip")
    return write_checkpoint(tmp_path / "d2s", build_d2s_config("../blip"), draw_d2s_weights())


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (2, 16, 16, 3), np.uint8)


def _load(folder: Path) -> Encoder:
    return registry.load_encoder(ModelSpec(name=str(folder)))


def _head(dense_BD: NDArray[np.float32]) -> NDArray[np.float64]:
    """`log1p(relu(W2 LN(W1 x + b1) + b2))` in numpy."""
    w = {name: value.double().numpy() for name, value in draw_d2s_weights().items()}
    hidden = dense_BD @ w["proj.weight"].T + w["proj.bias"]
    hidden = (hidden - hidden.mean(1, keepdims=True)) / np.sqrt(hidden.var(1, keepdims=True) + 1e-12)
    hidden = hidden * w["vocab_layer_norm.weight"] + w["vocab_layer_norm.bias"]
    weights: NDArray[np.float64] = np.log1p(np.maximum(hidden @ w["vocab_projector.weight"].T + w["vocab_projector.bias"], 0))
    return weights


def test_images_and_texts_match_numpy(folder: Path, pixels: NDArray[np.uint8]) -> None:
    encoder = _load(folder)
    assert encoder.has_dense
    assert get_dense_encoder(encoder) is encoder
    texts = ["a red dog", "cat"]
    pairs = [
        (encoder.encode_images(pixels), encoder.encode_images_dense(pixels)),
        (encoder.encode_texts(texts), encoder.encode_texts_dense(texts)),
    ]
    for vectors, dense in pairs:
        assert np.linalg.norm(dense, axis=1) == pytest.approx(1, abs=1e-5)
        for vector, weights_V in zip(vectors, _head(dense), strict=True):
            wanted = {word: weight for word, weight in zip(WORDS, weights_V.tolist(), strict=True) if weight > 0}
            assert vector.to_dict() == pytest.approx(wanted, abs=1e-5)


def test_alone_and_in_a_batch_are_the_same(folder: Path, pixels: NDArray[np.uint8]) -> None:
    encoder = _load(folder)
    texts = ["dog", "a red dog a red dog", "cat ."] * 4
    for vector, text in zip(encoder.encode_texts(texts), texts, strict=True):
        assert encoder.encode_texts([text])[0].to_dict() == pytest.approx(vector.to_dict(), abs=1e-5)
    for vector, one in zip(encoder.encode_images(pixels), pixels, strict=True):
        assert encoder.encode_images(one[None])[0].to_dict() == pytest.approx(vector.to_dict(), abs=1e-5)
    assert encoder.encode_images(pixels[:0]) == encoder.encode_texts([]) == []


def test_words(folder: Path) -> None:
    encoder = _load(folder)
    assert encoder.tokenize_word("dogs") == ("dog", "##s")
    assert not len(encoder.encode_texts(["xyz"])[0])


def test_the_dense_model_is_part_of_the_id(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = registry.resolve_model(ModelSpec(name=str(folder))).card
    assert first.image_spec.size_px == 16
    write_blip(tmp_path / "other", seed=9)
    monkeypatch.setenv(DENSE_MODEL_ENV, str(tmp_path / "other"))
    assert registry.resolve_model(ModelSpec(name=str(folder))).card.model_id != first.model_id


def test_missing_dense_model_is_reported(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "d2s", build_d2s_config(None), draw_d2s_weights())
    with pytest.raises(ModelError, match="without its dense model") as wrong:
        registry.resolve_model(ModelSpec(name=str(folder)))
    assert DENSE_MODEL_ENV in wrong.value.remedy
    (folder / "config.json").write_text(json.dumps(build_d2s_config(".")))
    with pytest.raises(ModelError, match="not a BLIP"):
        registry.resolve_model(ModelSpec(name=str(folder)))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("missing", r"lack vocab_layer_norm\.bias"),
        ("words", r"vocab_projector\.weight of shape \(5, 8\) instead of \(17, 8\)"),
        ("dense", r"proj\.weight of shape \(8, 7\) instead of \(8, 6\)"),
        ("extra", "distilbert"),
        ("broken", "can't be read as safetensors"),
    ],
)
def test_a_broken_head_is_reported(folder: Path, fault: str, said: str) -> None:
    weights = draw_d2s_weights()
    if fault == "missing":
        del weights["vocab_layer_norm.bias"]
    elif fault == "words":
        weights["vocab_projector.weight"] = torch.zeros(5, 8)
    elif fault == "dense":
        weights["proj.weight"] = torch.zeros(8, 7)
    elif fault == "extra":
        weights["distilbert.weight"] = torch.zeros(1)
    write_checkpoint(folder, build_d2s_config("../blip"), weights)
    if fault == "broken":
        (folder / "model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match=said):
        _load(folder).encode_texts(["dog"])


def test_a_dense_model_of_another_size(tmp_path: Path) -> None:
    write_blip(tmp_path / "blip", dense_size=4)
    folder = write_checkpoint(tmp_path / "d2s", build_d2s_config("../blip"), draw_d2s_weights())
    with pytest.raises(ModelError, match="4 dimensions"):
        _load(folder).encode_texts(["dog"])
