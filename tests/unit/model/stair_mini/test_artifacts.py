"""Shipped files of stair-mini: consistency, packing, and inputs of a training."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mini_files
import mini_photos
import mini_words
import numpy as np
import pytest
from support.errors import expect_error
from support.oracles.mini_oracle import Oracle

from stair_es.model.stair.configuration import CONFIG_FILE, WEIGHTS_FILE
from stair_es.model.stair_mini import artifacts
from stair_es.model.stair_mini.artifacts import TRANSLATIONS_FILE, MiniArtifacts
from stair_es.model.vocabularies.stop_words import load_stop_words
from stair_es.model.vocabularies.whole_words import WHOLE_WORDS_FILE, list_plurals
from stair_es.model.vocabularies.wordpiece import load_wordpiece_vocabulary

BENCHMARKS = Path(__file__).parents[4] / "benchmarks"
FILES = (CONFIG_FILE, WHOLE_WORDS_FILE, WEIGHTS_FILE, TRANSLATIONS_FILE)


@pytest.fixture(scope="module")
def mini_artifacts() -> MiniArtifacts:
    return artifacts.read_mini_artifacts()


@pytest.fixture
def build_mini(monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401  a module
    pytest.importorskip("torch")
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import build_mini

    return build_mini


def test_shipped_files_are_small_and_credited() -> None:
    assert sum(path.stat().st_size for path in artifacts.MINI_FOLDER.iterdir()) < 7_000_000
    readme = (artifacts.MINI_FOLDER / "README.md").read_text(encoding="utf-8")
    credits = ("EmojiOne", "CC-BY-4.0", "Google (Noto Emoji)", "Microsoft (Fluent Emoji)", "Mozilla", "Open Clip Art")
    assert [credit for credit in credits if credit not in readme] == []


def test_words_and_spellings_are_whole_and_disjoint(mini_artifacts: MiniArtifacts) -> None:
    words, spellings = mini_artifacts.vocabulary.words, mini_artifacts.vocabulary.spellings
    assert list(words) == sorted(words)
    assert len(words) < 2**16
    assert not [word for word in words if "#" in word or not any(map(str.isalnum, word))]
    assert set(words) & load_stop_words() <= {"can"}  # a container
    assert not set(words) & set(spellings)
    assert set(spellings.values()) <= set(words)


def test_arrays_fit_together(mini_artifacts: MiniArtifacts) -> None:
    count, arrays = len(mini_artifacts.vocabulary), mini_artifacts.arrays
    assert mini_artifacts.classes.word_ids_KE.shape[0] == 1000
    assert mini_artifacts.objects.word_ids_KE.shape[0] == len(mini_artifacts.same_things) == 80
    scenes = len(mini_artifacts.scenes.word_ids_KE)
    assert (arrays["scenes.features_SP"].shape, arrays["scenes.biases_S"].shape) == ((scenes, 1280), (scenes,))
    for table in (mini_artifacts.classes, mini_artifacts.objects, mini_artifacts.scenes):
        assert table.word_ids_KE.shape == table.weights_KE.shape == table.is_general_KE.shape
        assert table.words == count > table.word_ids_KE.max()
        assert (table.weights_KE.max(axis=1) == 255).all()  # the first basic word
        assert np.isfinite(table.rarity).all()
        assert (table.rarity >= 0).all()
    assert all(0 <= index < 1000 for same in mini_artifacts.same_things for index in same)
    assert (arrays["gate.features_P"].shape, arrays["gate.statistics_S"].shape) == ((1280,), (11,))
    for name, rows in (("words_VD", count), ("classes_KD", 1000)):
        embeddings = arrays[f"embeddings.{name}"]
        assert embeddings.shape == (rows, 384)
        assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1, abs=0.01)
    for name in ("image.head.embedding_FT", "image.head.bias_F", "text.head.embedding_FT", "text.own_words.word_F"):
        assert arrays[name].shape[0] == count
    assert all(np.isfinite(array).all() for array in arrays.values())


def test_shipped_classes_match_their_file(mini_artifacts: MiniArtifacts) -> None:
    oracle = Oracle(mini_artifacts)
    for name, rows in (("classes.txt", oracle.classes), ("objects.txt", oracle.objects), ("scenes.txt", oracle.scenes)):
        for named, row in zip(mini_words.read_classes(mini_words.FOLDER / name), rows, strict=True):
            assert row == pytest.approx(named.weights, abs=0.5 / 255 + 1e-9), named.name


def test_table_has_nearest_tokens(mini_artifacts: MiniArtifacts) -> None:
    table, tokens, word_count = mini_artifacts.table, load_wordpiece_vocabulary(), len(mini_artifacts.vocabulary)
    assert table.word_ids_TN.shape == table.weights_TN.shape == (len(table.token_ids_T), 8)
    assert (np.diff(table.token_ids_T.astype(int)) > 0).all()
    assert (table.token_ids_T.max(), table.word_ids_TN.max()) < (len(tokens), word_count)
    assert mini_artifacts.vocabulary.words[int(table.find_near_tokens(tokens.ids["panda"], word_count).argmax())] == "panda"
    assert not {tokens.tokens[token] for token in table.token_ids_T} & load_stop_words()
    for token in (-1, 0, tokens.ids["the"], 30_521):
        assert not table.find_near_tokens(token, word_count).any()


def test_arrays_survive_packing() -> None:
    rng = np.random.default_rng(0)
    matrix, vector = rng.normal(size=(7, 5)).astype(np.float32), rng.normal(size=9).astype(np.float32)
    matrix[3] = 0
    unpacked = artifacts.dequantize_arrays(mini_files.quantize_arrays({"matrix": matrix, "vector": vector}))
    assert set(unpacked) == {"matrix", "vector"}
    assert not unpacked["matrix"][3].any()
    step = np.abs(matrix).max(axis=1, keepdims=True) / 127
    assert (np.abs(unpacked["matrix"] - matrix) <= step / 2 + 1e-7).all()
    assert np.allclose(unpacked["vector"], vector, rtol=1e-3, atol=1e-6)


def test_files_that_are_written_are_read(mini_artifacts: MiniArtifacts, tmp_path: Path) -> None:
    files = mini_files.serialize_mini_artifacts(mini_artifacts)
    assert set(files) == set(FILES)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    loaded = artifacts.read_mini_artifacts(tmp_path)
    assert (loaded.config, loaded.blend, loaded.same_things) == (
        mini_artifacts.config,
        mini_artifacts.blend,
        mini_artifacts.same_things,
    )
    assert (loaded.vocabulary.words, loaded.vocabulary.spellings) == (
        mini_artifacts.vocabulary.words,
        mini_artifacts.vocabulary.spellings,
    )
    assert mini_files.serialize_mini_artifacts(loaded) == files
    assert (loaded.never_added, loaded.translations) == (mini_artifacts.never_added, mini_artifacts.translations)
    assert files == {name: (artifacts.MINI_FOLDER / name).read_bytes() for name in FILES}


@pytest.mark.parametrize(
    ("name", "damage", "code"),
    [
        (CONFIG_FILE, None, "package-file-unreadable"),
        (WHOLE_WORDS_FILE, None, "checkpoint-error"),
        (WEIGHTS_FILE, None, "package-file-unreadable"),
        (TRANSLATIONS_FILE, lambda data: b"[", "package-file-unreadable"),
        (WEIGHTS_FILE, lambda data: data[:1000], "package-file-unreadable"),
        (WEIGHTS_FILE, lambda data: data.replace(b'"table.words"', b'"table.wards"'), "package-file-unreadable"),
        (CONFIG_FILE, lambda data: b"[]", "package-file-unreadable"),
        (CONFIG_FILE, lambda data: json.dumps({**json.loads(data), "version": 9}).encode(), "not-mini-artifacts"),
        (CONFIG_FILE, lambda data: data.replace(b'"blend"', b'"blond"'), "package-file-unreadable"),
    ],
)
def test_damaged_files_are_rejected(tmp_path: Path, name: str, damage: Callable[[bytes], bytes] | None, code: str) -> None:
    folder = Path(shutil.copytree(artifacts.MINI_FOLDER, tmp_path / "mini"))
    data = (folder / name).read_bytes()
    (folder / name).unlink()
    if damage:
        assert damage(data) != data
        (folder / name).write_bytes(damage(data))
    with expect_error(code) as caught:
        artifacts.read_mini_artifacts(folder)
    assert caught.value.remedy


def test_a_training_has_no_images_of_tux_paint(tmp_path: Path, build_mini: Any) -> None:  # noqa: ANN401
    rows = [
        {"image": f"{number}.png", "captions": [f"a {word}"], "source": source}
        for number, (source, word) in enumerate((("google", "zorilla"), ("tuxpaint-drawing", "quagga"), ("fluent", "zorilla")))
    ]
    for name in ("train", "train_more", "val_style", "val_concepts"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    work = tmp_path / "work"
    inputs = build_mini.prepare_inputs(tmp_path, work)
    lines = (work / "train.jsonl").read_text().splitlines()
    assert [json.loads(line)["source"] for line in lines] == 2 * ["google", "fluent"]
    assert (len(inputs.classes), len(inputs.objects)) == (1000, 80)
    labeled = {word for photo in mini_photos.read_labels() for word in photo.words}
    assert labeled - {mini_photos.NOT_A_PHOTO} == {scene.name for scene in inputs.scenes}
    assert {"zorilla", "tench"} <= set(inputs.vocabulary.words)
    assert "quagga" not in inputs.vocabulary.words
    config = build_mini.configure_training(tmp_path, work, seed=5)
    assert (config.seed, config.model.start_seed) == (5, 0)
    assert config.model.vocabulary == str(work / WHOLE_WORDS_FILE)
    [pair_set] = config.data.train
    assert (pair_set.captions, pair_set.images) == (str(work / "train.jsonl"), str(tmp_path))
    assert [Path(validation.captions).stem for validation in config.data.validation] == ["val_style", "val_concepts"]


def test_shipped_lists_match_their_files(mini_artifacts: MiniArtifacts) -> None:
    words, folder = mini_artifacts.vocabulary.words, mini_words.FOLDER
    assert mini_words.read_spellings(folder / "spellings.txt", words) == mini_artifacts.vocabulary.spellings
    assert mini_words.read_spellings(folder / "translations.txt", words) == mini_artifacts.translations
    assert mini_words.read_never_added(words) == mini_artifacts.never_added
    spellings = [line.split("=")[0].strip() for line in mini_words.read_lines(folder / "spellings.txt")]
    assert len(set(spellings)) == len(spellings)
    plurals = {
        (plural, word) for spelling, word in mini_artifacts.vocabulary.spellings.items() for plural in list_plurals(spelling)
    }
    assert [pair for pair in plurals if pair[0] in words and pair[0] != pair[1]] == []  # a build wouldn't have that token


def test_shipped_blend_and_classes_match_the_build(mini_artifacts: MiniArtifacts, build_mini: Any) -> None:  # noqa: ANN401
    assert mini_artifacts.blend == build_mini.BLEND
    packed = build_mini.pack_classes(mini_words.read_classes(mini_words.FOLDER / "classes.txt"), mini_artifacts.vocabulary)
    assert np.array_equal(packed.word_ids_KE, mini_artifacts.classes.word_ids_KE)
    assert np.array_equal(packed.weights_KE, mini_artifacts.classes.weights_KE)
    assert np.array_equal(packed.is_general_KE, mini_artifacts.classes.is_general_KE)
