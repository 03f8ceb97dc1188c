"""stair-mini with the text network: its heads against PyTorch's, and what its texts are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from stair_es.model.starter import Starter
from tokenizers import Tokenizer

from stair_es.config import Home
from stair_es.eval.dense import dense_of
from stair_es.model import minilm_files, stair_mini_files, starter_data
from stair_es.model.encoder import ModelSpec
from stair_es.model.minilm import MAX_TOKENS, MiniLM
from stair_es.model.stair import Stair, TextBatch
from stair_es.model.stair_mini import StairMini
from stair_es.model.stair_numpy import NumpyHeads
from stair_es.model.stair_tokens import Tokens
from stair_es.sources.decode import DecodeLimits, decode
from stair_es.types import SparseVector

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
TEXTS = ("a red bus", "smiling face with sunglasses", "horses on a mountain", "the dog, the cat & the dog!", "x" * 200 + " tree")


@pytest.fixture(scope="module")
def folder() -> Path:
    return minilm_files.ensure(Home.from_env().models)


@pytest.fixture(scope="module")
def mini(folder: Path) -> StairMini:
    return StairMini(ModelSpec(name="stair-mini", backend="onnx", threads=1))


@pytest.fixture(scope="module")
def module(folder: Path) -> Stair:
    """What was shipped, as the module that was trained."""
    shipped = stair_mini_files.read()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = Stair(shipped.config, Tokens(tokenizer, shipped.feature_ids_F, MAX_TOKENS))
    state = {name: torch.from_numpy(array) for name, array in shipped.arrays.items()}
    left = model.load_state_dict(state, strict=False)
    assert not left.unexpected_keys
    assert all(".backbone." in name or name == "log_scale" for name in left.missing_keys)
    model.eval()
    return model


def test_heads_in_numpy_are_those_that_were_trained(folder: Path, module: Stair, mini: StairMini) -> None:
    shipped, vocabulary = stair_mini_files.read(), starter_data.load_vocabulary()
    heads, network = NumpyHeads(shipped.config, shipped.arrays), MiniLM(folder / minilm_files.WEIGHTS)
    own_V = module.tokens.own_feature_of_V
    for text in TEXTS:
        ids = vocabulary.with_ends(vocabulary.encode(text), MAX_TOKENS)
        assert ids == module.tokens.encode([text]).ids_BL[0].tolist()
        ours = heads.of_states(network.states(ids), own_V[ids])[0]
        with torch.inference_mode():
            asked = TextBatch(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool), torch.from_numpy(own_V[[ids]]))
            theirs = module.encode_texts(asked).weights_BF  # the text network is PyTorch's here, too
        assert ours is not None
        assert theirs is not None
        assert np.abs(ours - theirs[0].numpy()).max() < 1e-5
    pixels = np.stack([decode(path.read_bytes(), mini.image_spec, DecodeLimits()).pixels_HWC for path in _photos()])
    for features_D in mini.image_network.see(pixels).features_BD:
        seen = heads.of_features(features_D)[0]
        with torch.inference_mode():
            theirs = module.encode_images(torch.from_numpy(features_D)[None, None]).weights_BF
        assert seen is not None
        assert theirs is not None
        assert np.abs(seen - theirs[0].numpy()).max() < 1e-5


def _photos() -> list[Path]:
    return sorted(PHOTOS.glob("*.jpg"))[:6]


def test_every_token_that_a_text_may_ask_for_is_known_by_its_place(module: Stair, mini: StairMini) -> None:
    assert np.array_equal(mini._places_V, module.tokens.own_feature_of_V)


def test_a_text_is_the_starters_words_and_those_of_the_heads(folder: Path, mini: StairMini, module: Stair) -> None:
    """The formula of docs/stair-mini.md with plain dictionaries."""
    starter, words = Starter(ModelSpec(name="starter")), module.tokens.words
    for text, ours, known in zip(TEXTS, mini.encode_texts(TEXTS), starter.encode_texts(TEXTS), strict=True):
        found = module.tokens.encode([text])
        with torch.inference_mode():
            asked = TextBatch.from_tokenized(found)
            weights_BF = module.encode_texts(asked).weights_BF
        assert weights_BF is not None
        learned = {words[place]: float(weight) for place, weight in enumerate(weights_BF[0]) if weight > 0}
        assert len(learned) <= 32
        length = sum(weight**2 for weight in learned.values()) ** 0.5
        added = {word: weight / length for word, weight in learned.items()}
        for word, weight in known:
            added[word] = added.get(word, 0.0) + weight
        best = sorted(added.values(), reverse=True)[:48]
        scale = sum(weight**2 for weight in best) ** 0.5
        assert 0 < len(ours) <= 48
        for word, weight in ours:
            assert weight == pytest.approx(added[word] / scale, abs=5e-5)


def test_a_text_alone_with_others_and_in_threads_is_the_same(mini: StairMini) -> None:
    together = mini.encode_texts(TEXTS)
    assert [mini.encode_texts([text])[0] for text in TEXTS] == together
    fresh = StairMini(ModelSpec(name="stair-mini"))
    with ThreadPoolExecutor(4) as pool:
        assert all(found == together for found in pool.map(fresh.encode_texts, [TEXTS] * 8))


def test_the_text_network_runs_once_for_a_text(folder: Path, mini: StairMini, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    states = MiniLM.states

    def counting(network: MiniLM, ids: list[int]) -> object:
        runs.append(len(ids))
        return states(network, ids)

    monkeypatch.setattr(MiniLM, "states", counting)
    assert len(mini.encode_texts(["a red bus"])[0])
    assert runs == [5]


def test_empty_unknown_and_long_texts(mini: StairMini) -> None:
    empty, stop, symbol, first, longer = mini.encode_texts(
        ["", "the of", "\U0001f9ab", "bear river " * 127, "bear river " * 9000]
    )
    assert len(empty) == len(stop) == len(symbol) == 0
    assert first == longer


def test_the_table_says_nearly_the_same(mini: StairMini) -> None:
    table = StairMini(ModelSpec(name="stair-mini", text_tower="table"))
    asked = ["a kitten", "a red bus", "pizza", "snowman in winter", "a castle on a hill"]
    cosines = [full.dot(light) for full, light in zip(mini.encode_texts(asked), table.encode_texts(asked), strict=True)]
    assert min(cosines) > 0.5
    assert max(cosines) < 0.999


def test_dense_vectors_are_those_of_the_starters_networks(mini: StairMini) -> None:
    ours, theirs = dense_of(mini), dense_of(Starter(ModelSpec(name="starter")))
    assert ours is not None
    assert theirs is not None
    assert np.array_equal(ours.encode_texts_dense(TEXTS), theirs.encode_texts_dense(TEXTS))


def test_a_drawing_is_found_by_its_name(mini: StairMini) -> None:
    """What the starter can't: a face, drawn with three circles."""
    size = mini.image_spec.size_px
    y, x = np.mgrid[:size, :size]
    pixels = np.full((1, size, size, 3), 255, np.uint8)

    def disc(row: float, column: float, radius: float, colour: tuple[int, int, int]) -> None:
        pixels[0][(y - row * size) ** 2 + (x - column * size) ** 2 < (radius * size) ** 2] = colour

    disc(0.5, 0.5, 0.45, (255, 204, 50))
    for column in (0.35, 0.65):
        disc(0.4, column, 0.06, (90, 60, 20))
    disc(0.62, 0.5, 0.2, (90, 60, 20))
    disc(0.55, 0.5, 0.2, (255, 204, 50))
    [seen] = mini.encode_images(pixels)
    scores = {text: vector.dot(seen) for text, vector in zip(_ASKED, mini.encode_texts(_ASKED), strict=True)}
    assert max(scores, key=lambda text: scores[text]) == "smiling face"
    assert isinstance(seen, SparseVector)


_ASKED = ("smiling face", "a red bus", "a dog", "a mountain", "a cup of coffee")
