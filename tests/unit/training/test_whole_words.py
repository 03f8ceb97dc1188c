"""Trainings with a vocabulary of whole words: output, loading, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from safetensors.numpy import load_file, save_file
from support.models import tiny_stair, tiny_training

from stair_es.config.defaults import DataDir
from stair_es.config.settings import resolve_settings
from stair_es.errors import ModelError, StairError, UsageError
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.model.stair import checkpoint
from stair_es.model.stair.modeling import StairModel, TextBatch
from stair_es.model.stair.tokenizer import StairTokenizer, list_candidate_tokens
from stair_es.model.vocabularies.whole_words import WholeWordVocabulary
from stair_es.training.callbacks import NO_CALLBACKS
from stair_es.training.data.feature_cache import CachedTextFeatures
from stair_es.training.data_module import build_training_sets
from stair_es.training.train import build_model, train_model

WORDS: dict[str, Any] = {"model.vocabulary": "words.json"}
LEARNS: dict[str, Any] = {"recipe.steps": 120, "validation.every": 60, "optim.lr": 3e-3, "optim.backbone_lr": 3e-3}
FROZEN: dict[str, Any] = {"recipe.frozen_backbones": True}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAIR_ES_HOME", str(tmp_path / "home"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_training.write_set(tmp_path / "set")
    tiny_training.write_words(tmp_path / "set", crimson="red")
    return tmp_path / "set"


def load(out: Path, **how: Any) -> Encoder:  # noqa: ANN401
    return registry.load_encoder(ModelSpec(name=str(out), **how))


def test_a_training_learns_whole_words(folder: Path, tmp_path: Path) -> None:
    trained = train_model(tiny_training.read_config(folder, {**WORDS, **LEARNS}), tmp_path / "out", device="cpu")
    assert trained.best > 0.5  # of 9 images: by chance 1/9
    encoder = load(tmp_path / "out")
    assert getattr(encoder, "tokens", None) == tiny_training.WHOLE
    bird, birds, none = encoder.encode_texts(["a blue bird", "Blue Birds", ""])
    assert {"bluebird", "bird"} <= set(bird.tokens)
    assert {"bluebird", "bird"} <= set(birds.tokens)
    assert set(none.tokens) <= set(tiny_training.WHOLE)
    assert [encoder.tokenize_word(word) for word in ("Dogs", "crimson", "the")] == [("dog",), ("red",), ()]
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert "feature_ids" not in weights
    assert weights["image.head.bias_F"].shape == weights["text.own_words.word_F"].shape == (len(tiny_training.WHOLE),)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocabulary"] == "words"


def test_training_is_reproducible(folder: Path, tmp_path: Path) -> None:
    ids = set()
    for name in ("one", "two"):
        train_model(tiny_training.read_config(folder, WORDS), tmp_path / name, device="cpu")
        ids.add(registry.resolve_model(ModelSpec(name=str(tmp_path / name))).card.model_id)
    assert len(ids) == 1
    loaded = checkpoint.load_stair_model(tmp_path / "one")
    tiny_stair.write_tensors(tmp_path / "two", loaded, tiny_stair.get_tensors(loaded))
    assert ids == {registry.resolve_model(ModelSpec(name=str(tmp_path / "two"))).card.model_id}
    (tmp_path / "two" / "words.json").write_text(WholeWordVocabulary(loaded.tokens.tokens).to_json())  # without a spelling
    assert registry.resolve_model(ModelSpec(name=str(tmp_path / "two"))).card.model_id not in ids


def test_kept_states_of_texts_have_the_places_of_the_vocabulary(tmp_path: Path) -> None:
    plain = tiny_stair.build_model(tiny_stair.build_config())
    words = tiny_stair.build_model(tiny_stair.build_config(vocabulary="words"))
    words.text.backbone.load_state_dict(plain.text.backbone.state_dict())
    texts = ["blue birds of the sea", "", "running", "a red dog " * 9]
    for model in (plain, words):
        for _ in range(2):  # computed, and from the file
            kept = CachedTextFeatures(model, texts, tmp_path, lambda what, done, total: None).load_batch(texts)
            expected = TextBatch.from_tokenized(model.tokens.encode(texts))
            for name in ("ids_BL", "mask_BL", "features_BL"):
                result = getattr(kept, name)
                assert torch.equal(result, getattr(expected, name)), name
                assert result.dtype == getattr(expected, name).dtype
    assert len(list(tmp_path.iterdir())) == 1, "states don't depend on the vocabulary"


def test_a_training_from_kept_states_learns_whole_words(folder: Path, tmp_path: Path) -> None:
    changes = {**WORDS, **LEARNS, **FROZEN, "data.cache": True, "data.views": 1, "optim.lr": 1e-2}
    trained = train_model(tiny_training.read_config(folder, changes), tmp_path / "out", device="cpu")
    assert trained.best > 0.3
    (result,) = load(tmp_path / "out").encode_texts(["blue bird"])
    assert {"bluebird", "bird"} <= set(result.tokens)


def test_bag_texts_have_their_literal_words(folder: Path, tmp_path: Path) -> None:
    changes = {**WORDS, "recipe.name": "bag-of-words", "model.text.always_masked": True}
    train_model(tiny_training.read_config(folder, changes), tmp_path / "out", device="cpu")
    result = [set(each.tokens) for each in load(tmp_path / "out").encode_texts(["blue bird of the seas", "xyzzy"])]
    assert result[0] <= {"bluebird", "bird", "sea"}
    assert result[0]
    assert result[1] == set()


def test_a_whole_word_begins_as_the_mean_of_its_tokens() -> None:
    config = tiny_stair.build_config(
        vocabulary="words", image_transform_dim=tiny_stair.WIDTH, text_transform_dim=tiny_stair.WIDTH
    )
    model = StairModel(config, StairTokenizer(tiny_stair.build_tokenizer(), WholeWordVocabulary(["dog", "running", "dogs"]), 12))
    model.initialize_from_text_embeddings()
    table = model.text.backbone.word_embeddings_VD.detach()
    index = tiny_stair.build_tokenizer().token_to_id
    rows = torch.stack(
        [table[[index(piece) for piece in pieces]].mean(0) for pieces in (["dog"], ["run", "##n", "##ing"], ["dog", "##s"])]
    )
    expected = torch.nn.functional.normalize(rows - rows.mean(0), dim=1)
    for head in (model.image.head, model.text.head):
        assert torch.allclose(head.embedding_FT, expected, atol=1e-6)


def test_tokens_start_as_exact_embeddings() -> None:
    model = tiny_stair.build_model(
        tiny_stair.build_config(image_transform_dim=tiny_stair.WIDTH, text_transform_dim=tiny_stair.WIDTH)
    )
    model.initialize_from_text_embeddings()
    rows = model.text.backbone.word_embeddings_VD.detach()[torch.from_numpy(list_candidate_tokens(tiny_stair.build_tokenizer()))]
    assert torch.equal(model.text.head.embedding_FT, torch.nn.functional.normalize(rows - rows.mean(0), dim=1))


def test_a_training_continues_with_the_same_words_only(folder: Path, tmp_path: Path) -> None:
    config = tiny_training.read_config(folder, WORDS)
    train_model(config, tmp_path / "out", device="cpu")
    assert train_model(config, tmp_path / "out", device="cpu").steps == 6
    tiny_training.write_words(folder, scarlet="red")
    with pytest.raises(UsageError, match="another configuration or other data"):
        train_model(config, tmp_path / "out", device="cpu")


def test_whole_word_checkpoints_resume(folder: Path, tmp_path: Path) -> None:
    train_model(tiny_training.read_config(folder, WORDS), tmp_path / "first", device="cpu")
    train_model(tiny_training.read_config(folder, {"model.start": str(tmp_path / "first")}), tmp_path / "second", device="cpu")
    assert (tmp_path / "second" / "words.json").read_bytes() == (tmp_path / "first" / "words.json").read_bytes()
    tiny_training.write_words(folder, scarlet="red")  # other spellings of the same words
    train_model(
        tiny_training.read_config(folder, {**WORDS, "model.start": str(tmp_path / "first")}), tmp_path / "third", device="cpu"
    )
    assert checkpoint.load_stair_model(tmp_path / "third").tokens.tokenize_word("scarlet") == ("red",)
    tiny_training.write_words(folder, tiny_training.WHOLE[::-1])
    with pytest.raises(ModelError, match="other tokens than the words of"):
        train_model(
            tiny_training.read_config(folder, {**WORDS, "model.start": str(tmp_path / "first")}), tmp_path / "no", device="cpu"
        )
    train_model(tiny_training.read_config(folder), tmp_path / "tokens", device="cpu")
    with pytest.raises(ModelError, match="other tokens than the words of"):
        train_model(
            tiny_training.read_config(folder, {**WORDS, "model.start": str(tmp_path / "tokens")}), tmp_path / "no", device="cpu"
        )


def test_whole_words_of_an_earlier_checkpoint_are_removed(folder: Path, tmp_path: Path) -> None:
    train_model(tiny_training.read_config(folder, WORDS), tmp_path / "out", device="cpu")
    assert (tmp_path / "out" / "words.json").is_file()
    train_model(tiny_training.read_config(folder), tmp_path / "tokens", device="cpu")
    model = checkpoint.load_stair_model(tmp_path / "tokens")
    tiny_stair.write_tensors(tmp_path / "out", model, tiny_stair.get_tensors(model))
    assert not (tmp_path / "out" / "words.json").exists()
    assert load(tmp_path / "out").encode_texts(["red dog"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.vocabulary": "words"}, "unknown vocabulary 'words'"),
        ({"model.vocabulary": "words.txt"}, r"unknown vocabulary 'words\.txt'"),
        ({**WORDS, "model.text.tie": True}, "shares the embeddings of tokens"),
    ],
)
def test_impossible_settings_are_usage_errors(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        tiny_training.read_config(folder, changes)
    assert error.value.remedy


def test_a_missing_file_is_reported(folder: Path, tmp_path: Path) -> None:
    config = tiny_training.read_config(folder, {"model.vocabulary": "nowhere.json"})
    with pytest.raises(StairError, match=r"vocabulary .*nowhere\.json can't be read"):
        build_model(
            config, build_training_sets(config, NO_CALLBACKS, 1, resolve_settings(None)), NO_CALLBACKS, DataDir.from_env()
        )


def test_a_checkpoint_whose_words_do_not_fit_is_rejected(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train_model(tiny_training.read_config(folder, WORDS), out, device="cpu")
    whole = (out / "words.json").read_bytes()
    for words, message in (
        (
            WholeWordVocabulary(tiny_training.WHOLE[:-1]).to_json().encode(),
            r"words\.json has 9 words, model\.safetensors weights for 10",
        ),
        (b'{"words": 3}', r"words\.json can't be read"),
        (None, r"can't read .*words\.json"),
    ):
        (out / "words.json").unlink()
        if words is not None:
            (out / "words.json").write_bytes(words)
        with pytest.raises(ModelError, match=message):
            load(out).encode_texts(["red dog"])
    (out / "words.json").write_bytes(whole)
    weights = load_file(out / "model.safetensors")
    save_file({name: each for name, each in weights.items() if name != "image.head.embedding_FT"}, out / "model.safetensors")
    with pytest.raises(ModelError, match=r"lacks image\.head\.embedding_FT"):
        load(out, backend="torch").encode_texts(["red dog"])
