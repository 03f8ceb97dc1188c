"""stair-mini: its images, and its texts with the static table. Nothing here needs a network."""

from __future__ import annotations

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import build_mini
import numpy as np
import pytest
from stair_es.model.starter import Starter, meaningful

from stair_es.errors import ModelError
from stair_es.eval.contenders import contender
from stair_es.model import catalogue, stair_mini_files, starter_data
from stair_es.model.encoder import ModelSpec
from stair_es.model.image_network import ImageNetwork, Seen
from stair_es.model.stair_config import CONFIG_FILE, WEIGHTS_FILE
from stair_es.model.stair_mini import StairMini
from stair_es.sources.decode import DecodeLimits, decode
from stair_es.types import Pixels, SparseVector

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
NAMES = ("bison.jpg", "giant-panda.jpg", "kitten-with-yarn.jpg")
TOLERANCE = 1e-4
"""Stated in docs/stair-mini.md: how far a weight may differ between the backends."""


@pytest.fixture(scope="module")
def pixels_BHWC() -> Pixels:  # noqa: N802  a shape
    spec = catalogue.resolve("stair-mini").image_spec
    return np.stack([decode((PHOTOS / name).read_bytes(), spec, DecodeLimits()).pixels_HWC for name in NAMES])


@pytest.fixture(scope="module")
def mini() -> StairMini:
    return StairMini(ModelSpec(name="stair-mini", backend="onnx", text_tower="table", threads=1))


@pytest.fixture(scope="module")
def starter() -> Starter:
    return Starter(ModelSpec(name="starter", backend="onnx", text_tower="table", threads=1))


def distance(one: SparseVector, other: SparseVector) -> float:
    left, right = one.to_dict(), other.to_dict()
    return max(abs(left.get(word, 0.0) - right.get(word, 0.0)) for word in left.keys() | right.keys())


def test_an_image_alone_and_in_a_batch_is_the_same(mini: StairMini, pixels_BHWC: Pixels) -> None:
    batch = mini.encode_images(pixels_BHWC)
    assert [mini.encode_images(pixels_BHWC[i : i + 1])[0] for i in range(len(pixels_BHWC))] == batch
    assert mini.encode_images(pixels_BHWC[::-1]) == batch[::-1]
    assert mini.encode_images(pixels_BHWC[:0]) == []


def test_both_backends_give_the_same_words(mini: StairMini, pixels_BHWC: Pixels) -> None:
    by_torch = StairMini(ModelSpec(name="stair-mini", backend="torch", text_tower="table", threads=1))
    for ours, theirs in zip(mini.encode_images(pixels_BHWC), by_torch.encode_images(pixels_BHWC), strict=True):
        assert ours.features[0] == theirs.features[0]
        assert distance(ours, theirs) <= TOLERANCE


def test_threads_get_the_same_vectors(pixels_BHWC: Pixels) -> None:
    fresh = StairMini(ModelSpec(name="stair-mini", backend="onnx", text_tower="table", threads=1))
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(fresh.encode_images, [pixels_BHWC] * 8))
        texts = list(pool.map(fresh.encode_texts, [["a brown bear"]] * 8))
    assert all(vectors == images[0] for vectors in images)
    assert all(vectors == texts[0] for vectors in texts)


def test_vectors_are_unit_rounded_short_and_of_words_that_a_text_can_ask_for(mini: StairMini, pixels_BHWC: Pixels) -> None:
    stop, texts = starter_data.load_stop_words(), mini.encode_texts(["a brown bear", "two cups of coffee"])
    for vector in [*mini.encode_images(pixels_BHWC), *texts]:
        assert 0 < len(vector) <= 64
        assert sum(weight**2 for weight in vector.weights) == pytest.approx(1, abs=1e-3)
        assert all(weight == round(weight, 5) for weight in vector.weights)
        assert all(meaningful(word, stop) for word in vector.features)


def test_an_image_is_the_starters_words_and_those_of_the_heads(mini: StairMini, starter: Starter, pixels_BHWC: Pixels) -> None:
    """The formula of docs/stair-mini.md, computed with plain dictionaries from what the two parts say."""
    shipped, words = stair_mini_files.read(), starter_data.load_vocabulary().words
    seen = mini.image_network.see(pixels_BHWC)
    for ours, known, logits, features in zip(
        mini.encode_images(pixels_BHWC), starter.encode_images(pixels_BHWC), seen.logits_BK, seen.features_BD, strict=True
    ):
        learned = mini._heads.of_features(features)[0]  # against PyTorch: tests/integration/test_model_mini.py
        assert learned is not None
        raised = {words[token]: float(w) ** 1.5 for token, w in zip(shipped.feature_ids_F, learned, strict=True) if w > 0}
        assert len(raised) <= 64
        length = sum(weight**2 for weight in raised.values()) ** 0.5
        odds = np.exp(logits.astype(float) - logits.max())
        share = 0.5 + odds.max() / odds.sum()
        added = {word: weight / length for word, weight in raised.items()}
        for word, weight in known:
            added[word] = added.get(word, 0.0) + share * weight
        best = sorted(added.values(), reverse=True)[:64]
        scale = sum(weight**2 for weight in best) ** 0.5
        for word, weight in ours:
            assert weight == pytest.approx(added[word] / scale, abs=3e-5)


class Counting:
    """Passes pictures on to a network, and counts."""

    def __init__(self, network: ImageNetwork) -> None:
        self.backend, self._network, self.seen = network.backend, network, 0

    def see(self, pixels_BHWC: Pixels) -> Seen:
        self.seen += len(pixels_BHWC)
        return self._network.see(pixels_BHWC)


def test_the_network_runs_once_for_an_image(mini: StairMini, pixels_BHWC: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(mini.image_network)
    monkeypatch.setattr("stair_es.model.starter.load_network", lambda backend, threads, precision: counting)
    fresh = StairMini(ModelSpec(name="stair-mini"))
    assert fresh.encode_images(pixels_BHWC) == mini.encode_images(pixels_BHWC)
    assert counting.seen == len(pixels_BHWC)


@pytest.mark.parametrize("grey", [0, 127, 255])
def test_an_empty_image_still_has_words(mini: StairMini, grey: int) -> None:
    assert len(mini.encode_images(np.full((1, 260, 260, 3), grey, np.uint8))[0]) >= 1


def test_other_pixels_are_refused_by_name(mini: StairMini) -> None:
    with pytest.raises(ModelError, match="stair-mini wants uint8 pixels"):
        mini.encode_images(np.zeros((1, 224, 224, 3), np.uint8))


def test_with_the_table_a_text_is_its_words_and_related_ones(mini: StairMini, starter: Starter) -> None:
    for text in ("a photo of the buses", "a red bus", "christmas tree", "an astronaut on the moon"):
        [ours], [known] = mini.encode_texts([text]), starter.encode_texts([text])
        assert set(ours.features) <= set(known.features)  # the heads add weight to own words, the table says which others
        assert ours.dot(known) > 0.9


def test_what_the_heads_learned_of_a_word_counts(mini: StairMini, starter: Starter) -> None:
    """In "smiling face" the starter takes both for the same; a word that many drawings share says less than a rare one."""
    learned = stair_mini_files.read()
    strength = dict(zip(learned.feature_ids_F.tolist(), learned.arrays["text.own_words.word_F"].tolist(), strict=True))
    ids = starter_data.load_vocabulary().ids
    common, rare = sorted(("face", "monkey"), key=lambda word: strength[ids[word]])
    [vector], [known] = mini.encode_texts(["face monkey"]), starter.encode_texts(["face monkey"])
    assert vector.to_dict()[rare] / vector.to_dict()[common] > known.to_dict()[rare] / known.to_dict()[common]


@pytest.mark.parametrize("text", ["", "the of and", "?!", "\U0001f9ab"])
def test_a_text_without_a_known_word_is_empty(mini: StairMini, text: str) -> None:
    assert len(mini.encode_texts([text])[0]) == 0


def test_it_spells_and_is_compared_as_the_starter_is(mini: StairMini, starter: Starter) -> None:
    for word in ("Dogs", "macaw", "the", "?"):
        assert mini.spell(word) == starter.spell(word)
    ours = contender(StairMini(ModelSpec(name="stair-mini")), ModelSpec(name="stair-mini"))
    assert ours.dense is not None
    assert ours.features == contender(starter, ModelSpec(name="starter", text_tower="table")).features
    assert contender(mini, ModelSpec(name="stair-mini", text_tower="table")).dense is None  # it would need the text network


def test_the_catalogue_knows_it_without_loading_it() -> None:
    card = catalogue.resolve("stair-mini")
    assert (card.name, card.model_id) == ("stair-mini", "stair-mini-1")
    assert any("EmojiOne 2.x (CC-BY-4.0)" in line for line in card.licences)
    spec = pickle.loads(pickle.dumps(ModelSpec(name="stair-mini", text_tower="table")))
    assert catalogue.load(spec).model_id == card.model_id


def test_an_unknown_text_tower_is_refused() -> None:
    with pytest.raises(ModelError, match="unknown text tower"):
        StairMini(ModelSpec(name="stair-mini", text_tower="half"))  # type: ignore[arg-type]


def test_what_is_shipped_is_small_and_credits_its_sources() -> None:
    assert sum(path.stat().st_size for path in stair_mini_files.FOLDER.iterdir()) < 6_000_000
    told = (stair_mini_files.FOLDER / "README.md").read_text(encoding="utf-8")
    for credit in ("EmojiOne", "CC-BY-4.0", "Google (Noto Emoji)", "Microsoft (Fluent Emoji)", "Mozilla", "Open Clip Art"):
        assert credit in told
    shipped, words = stair_mini_files.read(), starter_data.load_vocabulary().words
    stop = starter_data.load_stop_words()
    assert all(meaningful(words[token], stop) for token in shipped.feature_ids_F)


def test_heads_survive_packing() -> None:
    rng = np.random.default_rng(0)
    arrays = {"m": rng.normal(size=(7, 5)).astype(np.float32), "v": rng.normal(size=9).astype(np.float32)}
    arrays["m"][3] = 0
    back = stair_mini_files.unpacked(stair_mini_files.packed(arrays))
    assert set(back) == set(arrays)
    assert not back["m"][3].any()
    step = np.abs(arrays["m"]).max(axis=1, keepdims=True) / 127
    assert (np.abs(back["m"] - arrays["m"]) <= step / 2 + 1e-7).all()
    assert np.allclose(back["v"], arrays["v"], rtol=1e-3, atol=1e-6)


def test_files_that_are_written_are_read() -> None:
    shipped = stair_mini_files.read()
    assert stair_mini_files.files(shipped) == {
        name: (stair_mini_files.FOLDER / name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE)
    }


@pytest.mark.parametrize("harm", ["gone", "cut", "other version", "no blend"])
def test_broken_files_are_told(tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "mini"
    shutil.copytree(stair_mini_files.FOLDER, folder)
    told = json.loads((folder / CONFIG_FILE).read_text())
    if harm == "gone":
        (folder / WEIGHTS_FILE).unlink()
    elif harm == "cut":
        (folder / WEIGHTS_FILE).write_bytes((folder / WEIGHTS_FILE).read_bytes()[:1000])
    elif harm == "other version":
        (folder / CONFIG_FILE).write_text(json.dumps({**told, "version": 9}))
    else:
        (folder / CONFIG_FILE).write_text(json.dumps({name: value for name, value in told.items() if name != "blend"}))
    with pytest.raises(ModelError) as wrong:
        stair_mini_files.read(folder)
    assert wrong.value.remedy


def test_no_picture_of_tux_paint_is_learned_from(tmp_path: Path) -> None:
    rows = [{"image": f"{n}.png", "captions": ["x"], "source": s} for n, s in enumerate(("google", "tuxpaint-drawing", "fluent"))]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = build_mini.configured(tmp_path, tmp_path / "work")
    kept = (tmp_path / "work" / "train.jsonl").read_text().splitlines()
    assert [json.loads(line)["source"] for line in kept] == ["google", "fluent"]
    [given] = config.data.train
    assert (given.captions, given.images) == (str(tmp_path / "work" / "train.jsonl"), str(tmp_path))
    assert [Path(each.captions).stem for each in config.data.validation] == ["val_style", "val_concepts"]
