"""Trainings with a vocabulary of whole words: output, loading, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from safetensors.numpy import load_file, save_file
from support.errors import expect_error
from support.models import tiny_stair, tiny_training
from support.models.tiny_training import read_config, run_training

from stair_es.config.defaults import DataDir
from stair_es.config.settings import resolve_settings
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.model.stair import checkpoint
from stair_es.model.stair.modeling import StairModel, TextBatch
from stair_es.model.stair.tokenizer import StairTokenizer, list_candidate_tokens
from stair_es.model.vocabularies.whole_words import WholeWordVocabulary
from stair_es.training.callbacks import NO_CALLBACKS
from stair_es.training.data.feature_cache import CachedTextFeatures
from stair_es.training.data_module import build_training_sets
from stair_es.training.train import build_model

WORDS: dict[str, Any] = {"model.vocabulary": "words.json", "recipe.steps": 2}
LONG: dict[str, Any] = {"recipe.steps": 60, "validation.every": 30, "optim.lr": 5e-3, "optim.backbone_lr": 3e-3}


@pytest.fixture
def words_folder(training_folder: Path) -> Path:
    """A training set with a vocabulary of whole words, `words.json`."""
    tiny_training.write_words(training_folder, crimson="red")
    return training_folder


def load_encoder(out: Path, **options: Any) -> Encoder:  # noqa: ANN401
    return registry.load_encoder(ModelSpec(name=str(out), **options))


def resolve_model_id(folder: Path) -> str:
    return registry.resolve_model(ModelSpec(name=str(folder))).card.model_id


def test_a_training_learns_whole_words(words_folder: Path, tmp_path: Path) -> None:
    assert run_training(words_folder, tmp_path / "out", {**WORDS, **LONG}).best > 0.5  # of 9 images: by chance 1/9
    encoder = load_encoder(tmp_path / "out")
    assert getattr(encoder, "tokens", None) == tiny_training.WHOLE
    singular, plural, empty = (set(vector.tokens) for vector in encoder.encode_texts(["a blue bird", "Blue Birds", ""]))
    assert {"bluebird", "bird"} <= singular & plural
    assert empty <= set(tiny_training.WHOLE)
    assert [encoder.tokenize_word(word) for word in ("Dogs", "crimson", "the")] == [("dog",), ("red",), ()]
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert "feature_ids" not in weights
    assert weights["image.head.bias_F"].shape == weights["text.own_words.word_F"].shape == (len(tiny_training.WHOLE),)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocabulary"] == "words"


def test_training_is_reproducible(words_folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run_training(words_folder, tmp_path / name, WORDS)
    model_id = resolve_model_id(tmp_path / "one")
    assert resolve_model_id(tmp_path / "two") == model_id
    loaded = checkpoint.load_stair_model(tmp_path / "one")
    tiny_stair.write_tensors(tmp_path / "two", loaded, tiny_stair.get_tensors(loaded))
    assert resolve_model_id(tmp_path / "two") == model_id
    (tmp_path / "two" / "words.json").write_text(WholeWordVocabulary(loaded.tokens.tokens).to_json())  # without a spelling
    assert resolve_model_id(tmp_path / "two") != model_id


def test_cached_texts_have_the_features_of_the_vocabulary(tmp_path: Path) -> None:
    plain = tiny_stair.build_model(tiny_stair.build_config())
    words = tiny_stair.build_model(tiny_stair.build_config(vocabulary="words"))
    words.text.backbone.load_state_dict(plain.text.backbone.state_dict())
    texts = ["blue birds of the sea", "", "running", "a red dog " * 9]
    for model in (plain, words):
        for _ in range(2):  # computed, then from the file
            cached = CachedTextFeatures(model, texts, tmp_path, lambda what, done, total: None).load_batch(texts)
            expected = TextBatch.from_tokenized(model.tokens.encode(texts))
            for name in ("ids_BL", "mask_BL", "features_BL"):
                assert torch.equal(getattr(cached, name), getattr(expected, name)), name
                assert getattr(cached, name).dtype == getattr(expected, name).dtype
    assert len(list(tmp_path.iterdir())) == 1  # the vocabulary makes no difference


def test_a_training_on_cached_features_learns_whole_words(words_folder: Path, tmp_path: Path) -> None:
    changes = {**WORDS, **LONG, "recipe.frozen_backbones": True, "data.cache": True, "data.views": 1, "optim.lr": 1e-2}
    assert run_training(words_folder, tmp_path / "out", changes).best > 0.3
    [vector] = load_encoder(tmp_path / "out").encode_texts(["blue bird"])
    assert {"bluebird", "bird"} <= set(vector.tokens)


def test_bag_texts_have_their_literal_words(words_folder: Path, tmp_path: Path) -> None:
    changes = {**WORDS, "recipe.name": "bag-of-words", "model.text.always_masked": True}
    run_training(words_folder, tmp_path / "out", changes)
    known, unknown = load_encoder(tmp_path / "out").encode_texts(["blue bird of the seas", "xyzzy"])
    assert set() < set(known.tokens) <= {"bluebird", "bird", "sea"}
    assert not unknown.tokens


def test_a_whole_word_begins_as_the_mean_of_its_tokens() -> None:
    config = tiny_stair.build_config(
        vocabulary="words", image_transform_dim=tiny_stair.WIDTH, text_transform_dim=tiny_stair.WIDTH
    )
    model = StairModel(config, StairTokenizer(tiny_stair.build_tokenizer(), WholeWordVocabulary(["dog", "running", "dogs"]), 12))
    model.initialize_from_text_embeddings()
    table_VD = model.text.backbone.word_embeddings_VD.detach()
    get_id = tiny_stair.build_tokenizer().token_to_id
    words = (["dog"], ["run", "##n", "##ing"], ["dog", "##s"])
    means_FD = torch.stack([table_VD[[get_id(token) for token in tokens]].mean(0) for tokens in words])
    expected_FT = torch.nn.functional.normalize(means_FD - means_FD.mean(0), dim=1)
    for head in (model.image.head, model.text.head):
        assert torch.allclose(head.embedding_FT, expected_FT, atol=1e-6)


def test_tokens_start_as_exact_embeddings() -> None:
    model = tiny_stair.build_model(
        tiny_stair.build_config(image_transform_dim=tiny_stair.WIDTH, text_transform_dim=tiny_stair.WIDTH)
    )
    model.initialize_from_text_embeddings()
    ids_F = torch.from_numpy(list_candidate_tokens(tiny_stair.build_tokenizer()))
    rows_FD = model.text.backbone.word_embeddings_VD.detach()[ids_F]
    assert torch.equal(model.text.head.embedding_FT, torch.nn.functional.normalize(rows_FD - rows_FD.mean(0), dim=1))


def test_a_training_continues_with_the_same_words_only(words_folder: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert run_training(words_folder, tmp_path / "out", WORDS).steps == 2
    tiny_training.write_words(words_folder, scarlet="red")
    with expect_error("state-of-other-training"):
        run_training(words_folder, tmp_path / "out", WORDS)


def test_trainings_start_from_whole_word_checkpoints(words_folder: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run_training(words_folder, first, WORDS)
    run_training(words_folder, second, {"model.start": str(first)})
    assert (second / "words.json").read_bytes() == (first / "words.json").read_bytes()
    tiny_training.write_words(words_folder, scarlet="red")  # other spellings of the same words
    run_training(words_folder, tmp_path / "third", {**WORDS, "model.start": str(first)})
    assert checkpoint.load_stair_model(tmp_path / "third").tokens.tokenize_word("scarlet") == ("red",)
    tiny_training.write_words(words_folder, tiny_training.WHOLE[::-1])
    run_training(words_folder, tmp_path / "tokens")
    for start in (first, tmp_path / "tokens"):
        with expect_error("vocabulary-differs"):
            run_training(words_folder, tmp_path / "no", {**WORDS, "model.start": str(start)})


def test_whole_words_of_an_earlier_checkpoint_are_removed(words_folder: Path, tmp_path: Path) -> None:
    run_training(words_folder, tmp_path / "out", WORDS)
    assert (tmp_path / "out" / "words.json").is_file()
    run_training(words_folder, tmp_path / "tokens")
    model = checkpoint.load_stair_model(tmp_path / "tokens")
    tiny_stair.write_tensors(tmp_path / "out", model, tiny_stair.get_tensors(model))
    assert not (tmp_path / "out" / "words.json").exists()
    assert load_encoder(tmp_path / "out").encode_texts(["red dog"])


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"model.vocabulary": "words"}, "'words'"),
        ({"model.vocabulary": "words.txt"}, "'words.txt'"),
        ({**WORDS, "model.text.tie": True}, "text.tie"),
    ],
)
def test_impossible_settings_are_rejected(words_folder: Path, changes: dict[str, Any], fact: str) -> None:
    with expect_error("config-error") as caught:
        read_config(words_folder, changes)
    assert fact in caught.value.message


def test_a_missing_file_is_reported(words_folder: Path) -> None:
    config = read_config(words_folder, {"model.vocabulary": "nowhere.json"})
    sets = build_training_sets(config, NO_CALLBACKS, 1, resolve_settings(None))
    with expect_error("checkpoint-error") as caught:
        build_model(config, sets, NO_CALLBACKS, DataDir.from_env())
    assert "nowhere.json" in caught.value.message


def test_a_checkpoint_whose_words_do_not_fit_is_rejected(words_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_training(words_folder, out, WORDS)
    words = (out / "words.json").read_bytes()
    fewer = WholeWordVocabulary(tiny_training.WHOLE[:-1]).to_json().encode()
    for content, facts in ((fewer, ("9 words", "10")), (b'{"words": 3}', ("words.json",)), (None, ("words.json",))):
        (out / "words.json").unlink()
        if content is not None:
            (out / "words.json").write_bytes(content)
        with expect_error("checkpoint-error") as caught:
            load_encoder(out).encode_texts(["red dog"])
        assert [fact for fact in facts if fact not in caught.value.message] == []
    (out / "words.json").write_bytes(words)
    weights = load_file(out / "model.safetensors")
    del weights["image.head.embedding_FT"]
    save_file(weights, out / "model.safetensors")
    with expect_error("checkpoint-error") as caught:
        load_encoder(out, backend="torch").encode_texts(["red dog"])
    assert "image.head.embedding_FT" in caught.value.message
