"""Checkpoints of whole words over packaged backbones: onnxruntime gives the vectors of PyTorch, and the words of the texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.models import tiny_stair

from stair_es.config.defaults import DataDir
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.model.networks import minilm_download
from stair_es.model.stair.configuration import TOKENIZER_FILE, BackboneConfig, ImageTowerConfig, StairConfig, TextTowerConfig
from stair_es.model.stair.encoder import StairEncoder
from stair_es.model.stair.export_onnx import export_onnx
from stair_es.model.stair.modeling import StairModel
from stair_es.model.stair.tokenizer import StairTokenizer, load_tokenizer
from stair_es.model.vocabularies.whole_words import WholeWordVocabulary

WORDS = ("hedgehog", "clownfish", "fish", "dog", "gray", "tree", "zeppelin")
TEXTS = ("two hedgehogs", "a clown fish & a fish", "GREY Dogs", "", "a tree, a tree, an airship", "x" * 200 + " tree")
OWN = ({"hedgehog"}, {"clownfish", "fish"}, {"gray", "dog"}, set[str](), {"tree", "zeppelin"}, {"tree"})
ALIKE = 1.01e-5


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random heads over the networks of stair-mini, with graphs."""
    tokenizer = load_tokenizer(minilm_download.ensure_minilm(DataDir.from_env().models) / TOKENIZER_FILE)
    vocabulary = WholeWordVocabulary(WORDS, {"grey": "gray", "airship": "zeppelin"})
    config = StairConfig(
        name="words",
        vocabulary="words",
        image=ImageTowerConfig(
            backbone=BackboneConfig(kind="package", name="efficientnet-lite2"),
            size_px=260,
            mean=(0.498, 0.498, 0.498),
            std=(0.502, 0.502, 0.502),
            pool="mean",
            transform_dim=384,
        ),
        text=TextTowerConfig(
            backbone=BackboneConfig(kind="package", name="all-minilm-l6-v2"), pool="mean", transform_dim=384, own_words=True
        ),
    )
    torch.manual_seed(0)
    model = StairModel(config, StairTokenizer(tokenizer, vocabulary, config.text.max_tokens)).eval()
    model.initialize_from_text_embeddings()
    with torch.no_grad():
        assert model.text.own_words is not None
        model.text.own_words.state_D.add_(torch.randn_like(model.text.own_words.state_D) * 0.01)
    checkpoint = tmp_path_factory.mktemp("models") / "words"
    tiny_stair.write_tensors(checkpoint, model, tiny_stair.get_tensors(model))
    export_onnx(checkpoint)
    return checkpoint


def test_onnxruntime_gives_the_vectors_of_pytorch(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoders = [registry.load_encoder(ModelSpec(name=str(model_folder), backend=backend)) for backend in ("onnx", "torch")]
    assert encoders[0].model_id == encoders[1].model_id
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    size = encoders[0].image_spec.size_px
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    results = []
    for encoder, name in zip(encoders, ("OnnxDualEncoder", "TorchDualEncoder"), strict=True):
        assert isinstance(encoder, StairEncoder)
        assert type(encoder._towers).__name__ == name
        assert encoder.tokens == WORDS
        results.append((encoder.encode_texts(TEXTS), encoder.encode_images(pixels)))
    for ones, others in zip(*results, strict=True):
        for one, other in zip(ones, others, strict=True):
            for word in {*one.tokens, *other.tokens}:
                assert one.to_dict().get(word, 0) == pytest.approx(other.to_dict().get(word, 0), abs=ALIKE), word
    for vector, own in zip(results[0][0], OWN, strict=True):
        assert own <= set(vector.tokens)
