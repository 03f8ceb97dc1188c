"""D2S's head over a tiny BLIP: vectors against an independent computation, the dense model it needs, broken checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.errors import expect_error
from support.models.tiny_checkpoints import WORDS, build_d2s_config, draw_d2s_weights, write_checkpoint
from support.models.tiny_dense import write_blip

from stair_es.eval.models import get_dense_encoder
from stair_es.model import registry
from stair_es.model.adapters.d2s import DENSE_MODEL_ENV
from stair_es.model.base import Encoder, ModelSpec


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    write_blip(tmp_path / "blip")
    return write_checkpoint(tmp_path / "d2s", build_d2s_config("../blip"), draw_d2s_weights())


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (2, 16, 16, 3), np.uint8)


def load_encoder(checkpoint: Path) -> Encoder:
    return registry.load_encoder(ModelSpec(name=str(checkpoint)))


def compute_weights(dense_BD: NDArray[np.float32]) -> NDArray[np.float64]:
    """`log1p(relu(W2 LN(W1 x + b1) + b2))` in numpy."""
    w = {name: value.double().numpy() for name, value in draw_d2s_weights().items()}
    hidden = dense_BD @ w["proj.weight"].T + w["proj.bias"]
    hidden = (hidden - hidden.mean(1, keepdims=True)) / np.sqrt(hidden.var(1, keepdims=True) + 1e-12)
    hidden = hidden * w["vocab_layer_norm.weight"] + w["vocab_layer_norm.bias"]
    weights: NDArray[np.float64] = np.log1p(np.maximum(hidden @ w["vocab_projector.weight"].T + w["vocab_projector.bias"], 0))
    return weights


def test_images_and_texts_match_numpy(checkpoint: Path, pixels: NDArray[np.uint8]) -> None:
    encoder = load_encoder(checkpoint)
    assert encoder.has_dense
    assert get_dense_encoder(encoder) is encoder
    texts = ["a red dog", "cat"]
    pairs = [
        (encoder.encode_images(pixels), encoder.encode_images_dense(pixels)),
        (encoder.encode_texts(texts), encoder.encode_texts_dense(texts)),
    ]
    for vectors, dense in pairs:
        assert np.linalg.norm(dense, axis=1) == pytest.approx(1, abs=1e-5)
        for vector, weights_V in zip(vectors, compute_weights(dense), strict=True):
            expected = {word: weight for word, weight in zip(WORDS, weights_V.tolist(), strict=True) if weight > 0}
            assert vector.to_dict() == pytest.approx(expected, abs=1e-5)


def test_alone_and_in_a_batch_are_the_same(checkpoint: Path, pixels: NDArray[np.uint8]) -> None:
    encoder = load_encoder(checkpoint)
    texts = ["dog", "a red dog a red dog", "cat ."] * 4
    for vector, text in zip(encoder.encode_texts(texts), texts, strict=True):
        assert encoder.encode_texts([text])[0].to_dict() == pytest.approx(vector.to_dict(), abs=1.2e-5)
    for vector, one in zip(encoder.encode_images(pixels), pixels, strict=True):
        assert encoder.encode_images(one[None])[0].to_dict() == pytest.approx(vector.to_dict(), abs=1.2e-5)
    assert encoder.encode_images(pixels[:0]) == encoder.encode_texts([]) == []


def test_words(checkpoint: Path) -> None:
    encoder = load_encoder(checkpoint)
    assert encoder.tokenize_word("dogs") == ("dog", "##s")
    assert not len(encoder.encode_texts(["xyz"])[0])


def test_the_dense_model_is_part_of_the_id(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = registry.resolve_model(ModelSpec(name=str(checkpoint))).card
    assert first.image_spec.size_px == 16
    write_blip(tmp_path / "other", seed=9)
    monkeypatch.setenv(DENSE_MODEL_ENV, str(tmp_path / "other"))
    assert registry.resolve_model(ModelSpec(name=str(checkpoint))).card.model_id != first.model_id


def test_missing_dense_model_is_reported(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "d2s", build_d2s_config(None), draw_d2s_weights())
    with expect_error("checkpoint-error") as caught:
        registry.resolve_model(ModelSpec(name=str(checkpoint)))
    assert DENSE_MODEL_ENV in caught.value.remedy
    (checkpoint / "config.json").write_text(json.dumps(build_d2s_config(".")))
    with expect_error("checkpoint-error") as caught:
        registry.resolve_model(ModelSpec(name=str(checkpoint)))
    assert "BLIP" in caught.value.message


@pytest.mark.parametrize(
    ("name", "tensor", "facts"),
    [
        ("vocab_layer_norm.bias", None, ["vocab_layer_norm.bias"]),
        ("vocab_projector.weight", torch.zeros(5, 8), ["vocab_projector.weight", "(5, 8)", "(17, 8)"]),
        ("proj.weight", torch.zeros(8, 7), ["proj.weight", "(8, 7)", "(8, 6)"]),
        ("distilbert.weight", torch.zeros(1), ["distilbert"]),
    ],
    ids=["missing", "words", "dimensions", "unknown"],
)
def test_weights_that_do_not_fit_are_reported(checkpoint: Path, name: str, tensor: torch.Tensor | None, facts: list[str]) -> None:
    changed = {**draw_d2s_weights(), name: tensor}
    weights = {name: tensor for name, tensor in changed.items() if tensor is not None}
    write_checkpoint(checkpoint, build_d2s_config("../blip"), weights)
    with expect_error("checkpoint-error") as caught:
        load_encoder(checkpoint).encode_texts(["dog"])
    assert [fact for fact in facts if fact not in caught.value.message] == []


def test_a_damaged_file_is_reported(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(b"nothing of the kind")
    with expect_error("checkpoint-error") as caught:
        load_encoder(checkpoint).encode_texts(["dog"])
    assert "model.safetensors" in caught.value.message


def test_a_dense_model_of_another_size(tmp_path: Path) -> None:
    write_blip(tmp_path / "blip", dense_size=4)
    checkpoint = write_checkpoint(tmp_path / "d2s", build_d2s_config("../blip"), draw_d2s_weights())
    with expect_error("checkpoint-error") as caught:
        load_encoder(checkpoint).encode_texts(["dog"])
    assert "has 4 dimensions" in caught.value.message
