"""A checkpoint of whole words over packaged backbones. As graphs: see `test_stair_onnx`, and `test_train_paper` for these."""

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
from stair_es.model.stair.modeling import StairModel
from stair_es.model.stair.tokenizer import StairTokenizer, load_tokenizer
from stair_es.model.vocabularies.whole_words import WholeWordVocabulary

WORDS = ("hedgehog", "clownfish", "fish", "dog", "gray", "tree", "zeppelin")
TEXTS = ("two hedgehogs", "a clown fish & a fish", "GREY Dogs", "", "a tree, a tree, an airship", "x" * 200 + " tree")
OWN = ({"hedgehog"}, {"clownfish", "fish"}, {"gray", "dog"}, set[str](), {"tree", "zeppelin"}, {"tree"})


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random heads over the networks of stair-mini."""
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
    return checkpoint


def test_texts_have_their_own_words_and_images_some(model_folder: Path) -> None:
    encoder = registry.load_encoder(ModelSpec(name=str(model_folder), backend="torch"))
    assert encoder.tokens == WORDS
    for vector, own in zip(encoder.encode_texts(TEXTS), OWN, strict=True):
        assert own <= set(vector.tokens)
    size = encoder.image_spec.size_px
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    assert all(vector.tokens for vector in encoder.encode_images(pixels))
