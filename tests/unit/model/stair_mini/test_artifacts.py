"""Shipped files of stair-mini: consistency, packing, and start of a training."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import mini_files
import mini_words
import numpy as np
import pytest
from support.oracles.mini_oracle import Oracle

from stair_es.errors import ModelError
from stair_es.model.stair.configuration import CONFIG_FILE, WEIGHTS_FILE
from stair_es.model.stair_mini import artifacts
from stair_es.model.stair_mini.artifacts import MiniArtifacts
from stair_es.model.vocabularies.stop_words import load_stop_words
from stair_es.model.vocabularies.whole_words import WHOLE_WORDS_FILE
from stair_es.model.vocabularies.wordpiece import load_wordpiece_vocabulary

BENCHMARKS = Path(__file__).parents[4] / "benchmarks"
FILES = (CONFIG_FILE, WHOLE_WORDS_FILE, WEIGHTS_FILE)


@pytest.fixture(scope="module")
def mini() -> MiniArtifacts:
    return artifacts.read_mini_artifacts()


@pytest.fixture
def build_mini(monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401  a module
    pytest.importorskip("torch")
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import build_mini

    return build_mini


def test_shipped_files_are_small_and_credited() -> None:
    assert sum(path.stat().st_size for path in artifacts.MINI_FOLDER.iterdir()) < 7_000_000
    told = (artifacts.MINI_FOLDER / "README.md").read_text(encoding="utf-8")
    for credit in ("EmojiOne", "CC-BY-4.0", "Google (Noto Emoji)", "Microsoft (Fluent Emoji)", "Mozilla", "Open Clip Art"):
        assert credit in told


def test_words_and_spellings_are_whole_disjoint_and_sayable(mini: MiniArtifacts) -> None:
    words, spellings = mini.vocabulary.words, mini.vocabulary.spellings
    assert list(words) == sorted(words)
    assert len(words) < 2**16
    assert not [word for word in words if "#" in word or not any(map(str.isalnum, word))]
    assert set(words) & load_stop_words() <= {"can"}  # what milk is in
    assert not set(words) & set(spellings)
    assert set(spellings.values()) <= set(words)


def test_arrays_fit_together(mini: MiniArtifacts) -> None:
    count, arrays = len(mini.vocabulary), mini.arrays
    assert mini.classes.word_ids_KE.shape[0] == 1000
    assert mini.objects.word_ids_KE.shape[0] == len(mini.same_things) == 80
    for table in (mini.classes, mini.objects):
        assert table.word_ids_KE.shape == table.weights_KE.shape
        assert table.words == count > table.word_ids_KE.max()
        assert (table.weights_KE.max(axis=1) == 255).all()  # the first basic word
        assert np.isfinite(table.rarity).all()
        assert (table.rarity >= 0).all()
    assert all(0 <= index < 1000 for same in mini.same_things for index in same)
    assert (arrays["gate.features_P"].shape, arrays["gate.statistics_S"].shape) == ((1280,), (11,))
    for name, rows in (("words_VD", count), ("classes_KD", 1000)):
        embeddings = arrays[f"embeddings.{name}"]
        assert embeddings.shape == (rows, 384)
        assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1, abs=0.01)
    for name in ("image.head.embedding_FT", "image.head.bias_F", "text.head.embedding_FT", "text.own_words.word_F"):
        assert arrays[name].shape[0] == count
    assert all(np.isfinite(array).all() for array in arrays.values())


def test_shipped_classes_match_their_file(mini: MiniArtifacts) -> None:
    oracle = Oracle(mini)
    for name, rows in (("classes.txt", oracle.classes), ("objects.txt", oracle.objects)):
        for named, row in zip(mini_words.read_classes(mini_words.FOLDER / name), rows, strict=True):
            assert row == pytest.approx(named.weights, abs=0.5 / 255 + 1e-9), named.name


def test_table_has_nearest_tokens(mini: MiniArtifacts) -> None:
    table, tokens, count = mini.table, load_wordpiece_vocabulary(), len(mini.vocabulary)
    assert table.word_ids_TN.shape == table.weights_TN.shape == (len(table.token_ids_T), 8)
    assert (np.diff(table.token_ids_T.astype(int)) > 0).all()
    assert (table.token_ids_T.max(), table.word_ids_TN.max()) < (len(tokens), count)
    assert mini.vocabulary.words[int(table.find_near_tokens(tokens.ids["panda"], count).argmax())] == "panda"
    stop = load_stop_words()
    assert not [tokens.tokens[token] for token in table.token_ids_T if tokens.tokens[token] in stop]
    for token in (-1, 0, tokens.ids["the"], 30_521):
        assert not table.find_near_tokens(token, count).any()


def test_arrays_survive_packing() -> None:
    rng = np.random.default_rng(0)
    arrays = {"m": rng.normal(size=(7, 5)).astype(np.float32), "v": rng.normal(size=9).astype(np.float32)}
    arrays["m"][3] = 0
    back = artifacts.dequantize_arrays(mini_files.quantize_arrays(arrays))
    assert set(back) == set(arrays)
    assert not back["m"][3].any()
    step = np.abs(arrays["m"]).max(axis=1, keepdims=True) / 127
    assert (np.abs(back["m"] - arrays["m"]) <= step / 2 + 1e-7).all()
    assert np.allclose(back["v"], arrays["v"], rtol=1e-3, atol=1e-6)


def test_files_that_are_written_are_read(mini: MiniArtifacts, tmp_path: Path) -> None:
    written = mini_files.serialize_mini_artifacts(mini)
    assert set(written) == set(FILES)
    for name, data in written.items():
        (tmp_path / name).write_bytes(data)
    back = artifacts.read_mini_artifacts(tmp_path)
    assert (back.config, back.blend, back.same_things) == (mini.config, mini.blend, mini.same_things)
    assert (back.vocabulary.words, back.vocabulary.spellings) == (mini.vocabulary.words, mini.vocabulary.spellings)
    assert mini_files.serialize_mini_artifacts(back) == written
    assert written == {name: (artifacts.MINI_FOLDER / name).read_bytes() for name in FILES}


@pytest.mark.parametrize("harm", [*(f"{name} gone" for name in FILES), "cut", "other version", "no blend", "no list", "no table"])
def test_broken_files_fail(tmp_path: Path, mini: MiniArtifacts, harm: str) -> None:
    folder = tmp_path / "mini"
    shutil.copytree(artifacts.MINI_FOLDER, folder)
    output = json.loads((folder / CONFIG_FILE).read_text())
    if harm.endswith("gone"):
        (folder / harm.split()[0]).unlink()
    elif harm == "cut":
        (folder / WEIGHTS_FILE).write_bytes((folder / WEIGHTS_FILE).read_bytes()[:1000])
    elif harm == "other version":
        (folder / CONFIG_FILE).write_text(json.dumps({**output, "version": 9}))
    elif harm == "no blend":
        (folder / CONFIG_FILE).write_text(json.dumps({name: value for name, value in output.items() if name != "blend"}))
    elif harm == "no list":
        (folder / CONFIG_FILE).write_text("[]")
    else:
        data = (folder / WEIGHTS_FILE).read_bytes()
        (folder / WEIGHTS_FILE).write_bytes(data.replace(b'"table.words"', b'"table.wards"'))
    with pytest.raises(ModelError) as error:
        artifacts.read_mini_artifacts(folder)
    assert error.value.remedy


def test_a_training_of_it_learns_no_picture_of_tux_paint(tmp_path: Path, build_mini: Any) -> None:  # noqa: ANN401
    rows = [
        {"image": f"{number}.png", "captions": [f"a {word}"], "source": source}
        for number, (source, word) in enumerate((("google", "zorilla"), ("tuxpaint-drawing", "quagga"), ("fluent", "zorilla")))
    ]
    for name in ("train", "train_more", "val_style", "val_concepts"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    work = tmp_path / "work"
    inputs = build_mini.prepare_inputs(tmp_path, work)
    kept = (work / "train.jsonl").read_text().splitlines()
    assert [json.loads(line)["source"] for line in kept] == 2 * ["google", "fluent"]
    assert (len(inputs.classes), len(inputs.objects)) == (1000, 80)
    assert {"zorilla", "tench"} <= set(inputs.vocabulary.words)
    assert "quagga" not in inputs.vocabulary.words
    config = build_mini.configure_training(tmp_path, work, seed=5)
    assert (config.seed, config.model.start_seed) == (5, 0)
    assert config.model.vocabulary == str(work / WHOLE_WORDS_FILE)
    [given] = config.data.train
    assert (given.captions, given.images) == (str(work / "train.jsonl"), str(tmp_path))
    assert [Path(each.captions).stem for each in config.data.validation] == ["val_style", "val_concepts"]


def test_shipped_blend_and_classes_match_the_build(mini: MiniArtifacts, build_mini: Any) -> None:  # noqa: ANN401
    assert mini.blend == build_mini.BLEND
    packed = build_mini.pack_classes(mini_words.read_classes(mini_words.FOLDER / "classes.txt"), mini.vocabulary)
    assert np.array_equal(packed.word_ids_KE, mini.classes.word_ids_KE)
    assert np.array_equal(packed.weights_KE, mini.classes.weights_KE)
