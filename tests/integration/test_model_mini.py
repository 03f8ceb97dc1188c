"""stair-mini with the text network: its heads against PyTorch's, and its texts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.oracles import mini_oracle
from support.oracles.mini_oracle import Oracle
from tokenizers import Tokenizer

from stair_es.config.defaults import DataDir
from stair_es.eval.models import ConseEncoder, get_dense_encoder
from stair_es.model.base import ModelSpec
from stair_es.model.networks import minilm_download
from stair_es.model.networks.image_networks import CLASSIFIER_SIZE_PX
from stair_es.model.networks.minilm import MINILM_MAX_TOKENS, MiniLM
from stair_es.model.stair.modeling import StairModel, TextBatch
from stair_es.model.stair.tokenizer import StairTokenizer
from stair_es.model.stair_mini import artifacts
from stair_es.model.stair_mini.artifacts import MiniArtifacts
from stair_es.model.stair_mini.encoder import StairMiniEncoder, resize_square_pixels
from stair_es.model.stair_mini.heads import NumpyHeads
from stair_es.model.vocabularies.wordpiece import load_wordpiece_vocabulary
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import Pixels

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
TEXTS = (
    *("a red bus", "smiling face with sunglasses", "horses on a mountain", "the dog, the cat & the dog!", "x" * 200 + " tree"),
    *("two CAFÉS in Zürich", "clown fish, wolves and grey mice", "an unbelievable labrador", "T-shirt"),
)


@pytest.fixture(scope="module")
def folder() -> Path:
    return minilm_download.ensure_minilm(DataDir.from_env().models)


@pytest.fixture(scope="module")
def mini(folder: Path) -> StairMiniEncoder:
    return StairMiniEncoder(ModelSpec(name="stair-mini", backend="onnx", threads=1))


@pytest.fixture(scope="module")
def shipped() -> MiniArtifacts:
    return artifacts.read_mini_artifacts()


@pytest.fixture(scope="module")
def module(folder: Path, shipped: MiniArtifacts) -> StairModel:
    """The shipped heads as the module that was trained."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = StairModel(shipped.config, StairTokenizer(tokenizer, shipped.vocabulary, MINILM_MAX_TOKENS))
    heads = {name: array for name, array in shipped.arrays.items() if not name.startswith(("gate.", "embeddings."))}
    left = model.load_state_dict({name: torch.from_numpy(array) for name, array in heads.items()}, strict=False)
    assert not left.unexpected_keys
    assert all(".backbone." in name or name == "log_scale" for name in left.missing_keys)
    model.eval()
    return model


@pytest.fixture(scope="module")
def pixels_BHWC(mini: StairMiniEncoder) -> Pixels:  # noqa: N802  a shape
    photos = sorted(PHOTOS.glob("*.jpg"))[:6]
    return np.stack([decode_image(path.read_bytes(), mini.image_spec, DecodeLimits()).pixels_HWC for path in photos])


def test_numpy_text_heads_match_the_trained_ones(folder: Path, shipped: MiniArtifacts, module: StairModel) -> None:
    heads, network, tokens = (
        NumpyHeads(shipped.config, shipped.arrays),
        MiniLM(folder / minilm_download.MINILM_WEIGHTS),
        load_wordpiece_vocabulary(),
    )
    for text in TEXTS:
        written = tokens.encode_with_offsets(text, MINILM_MAX_TOKENS)
        features_L = np.array(shipped.vocabulary.match_tokens(text, written.offsets), np.int64)
        found = module.tokens.encode([text])
        assert (written.ids, features_L.tolist()) == (found.ids_BL[0].tolist(), found.features_BL[0].tolist())
        ours = heads.apply_to_states(network.compute_states(written.ids), features_L)
        with torch.inference_mode():
            theirs = module.encode_texts(TextBatch.from_tokenized(found)).weights_BF  # the text network is PyTorch's, too
        assert theirs is not None
        assert np.abs(ours - theirs[0].numpy()).max() < 1e-5


def test_numpy_image_heads_match_the_trained_ones(
    mini: StairMiniEncoder, shipped: MiniArtifacts, module: StairModel, pixels_BHWC: Pixels
) -> None:
    heads = NumpyHeads(shipped.config, shipped.arrays)
    for features_D in mini.image_network.run_network(resize_square_pixels(pixels_BHWC, CLASSIFIER_SIZE_PX)).features_BD:
        ours = heads.apply_to_features(features_D)
        with torch.inference_mode():
            theirs = module.encode_images(torch.from_numpy(features_D)[None, None]).weights_BF
        assert theirs is not None
        assert np.abs(ours - theirs[0].numpy()).max() < 1e-5


def test_tokens_and_offsets_match_the_text_network(folder: Path) -> None:
    theirs, ours = Tokenizer.from_file(str(folder / "tokenizer.json")), load_wordpiece_vocabulary()
    theirs.no_padding()
    theirs.enable_truncation(MINILM_MAX_TOKENS)
    for text in (*TEXTS, "", "re\u0301sume\u0301s", "日本の犬 \U0001f9ab!", "\x00a\u200bb  c", "bear river " * 200):
        written, wanted = ours.encode_with_offsets(text, MINILM_MAX_TOKENS), theirs.encode(text)
        assert written.ids == wanted.ids
        assert written.offsets[1:-1] == wanted.offsets[1:-1]
        assert all(begin == end for begin, end in (written.offsets[0], written.offsets[-1]))


def test_backends_give_the_same_words(mini: StairMiniEncoder, pixels_BHWC: Pixels) -> None:
    by_torch = StairMiniEncoder(ModelSpec(name="stair-mini", backend="torch", threads=1))
    for ours, theirs in zip(mini.encode_images(pixels_BHWC), by_torch.encode_images(pixels_BHWC), strict=True):
        assert mini_oracle.measure_distance(ours, theirs.to_dict()) <= 1e-4
    assert mini.encode_texts(TEXTS) == by_torch.encode_texts(TEXTS)  # the text network is the same


def test_a_text_matches_the_formula(folder: Path, mini: StairMiniEncoder, shipped: MiniArtifacts, module: StairModel) -> None:
    """See docs/stair-mini.md; the heads are those of the module that was trained."""
    oracle, network, tokens = Oracle(shipped), MiniLM(folder / minilm_download.MINILM_WEIGHTS), load_wordpiece_vocabulary()
    for text, ours in zip(TEXTS, mini.encode_texts(TEXTS), strict=True):
        with torch.inference_mode():
            weights_BF = module.encode_texts(TextBatch.from_tokenized(module.tokens.encode([text]))).weights_BF
        assert weights_BF is not None
        learned = oracle.name_weights(weights_BF[0].numpy())
        assert len(learned) <= shipped.config.text.top_k
        embedding_D = network.embed_ids(tokens.add_special_tokens(tokens.encode(text), MINILM_MAX_TOKENS))
        assert 0 < len(ours) <= 48
        assert mini_oracle.measure_distance(ours, oracle.encode_text(text, learned, embedding_D)) < 5e-5


def test_text_vectors_do_not_depend_on_batch_or_thread(mini: StairMiniEncoder) -> None:
    together = mini.encode_texts(TEXTS)
    assert [mini.encode_texts([text])[0] for text in TEXTS] == together
    fresh = StairMiniEncoder(ModelSpec(name="stair-mini"))
    with ThreadPoolExecutor(4) as pool:
        assert all(found == together for found in pool.map(fresh.encode_texts, [TEXTS] * 8))


def test_the_text_network_runs_once_for_a_text(mini: StairMiniEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    states = MiniLM.compute_states

    def counting(network: MiniLM, ids: list[int]) -> object:
        runs.append(len(ids))
        return states(network, ids)

    monkeypatch.setattr(MiniLM, "compute_states", counting)
    assert len(mini.encode_texts(["a red bus"])[0])
    assert runs == [5]


def test_empty_unknown_and_long_texts(mini: StairMiniEncoder) -> None:
    empty, stop, symbol, strange = mini.encode_texts(["", "the of", "\U0001f9ab", "xqzzyv"])
    assert len(empty) == len(stop) == len(symbol) == 0
    assert len(strange)  # it is no word of the table, yet the network reads its pieces
    first, longer = mini.encode_texts(["bear river " * 127, "bear river " * 9000])
    assert first == longer


def test_words_of_vectors_are_whole_words_of_the_vocabulary(mini: StairMiniEncoder, pixels_BHWC: Pixels) -> None:
    for vector in (*mini.encode_texts(TEXTS), *mini.encode_images(pixels_BHWC)):
        assert set(mini.tokens) >= set(vector.tokens)
        assert not [word for word in vector.tokens if "##" in word]


def test_table_is_near_full(mini: StairMiniEncoder) -> None:
    table = StairMiniEncoder(ModelSpec(name="stair-mini", text_tower="table"))
    query = ["a kitten", "a red bus", "pizza", "snowman in winter", "a castle on a hill"]
    cosines = [full.dot(light) for full, light in zip(mini.encode_texts(query), table.encode_texts(query), strict=True)]
    assert min(cosines) > 0.5
    assert max(cosines) < 0.999


def test_dense_vectors_match_its_networks(folder: Path, mini: StairMiniEncoder, pixels_BHWC: Pixels) -> None:
    dense, network, tokens = get_dense_encoder(mini), MiniLM(folder / minilm_download.MINILM_WEIGHTS), load_wordpiece_vocabulary()
    assert dense is not None
    for text, row in zip(TEXTS, dense.encode_texts_dense(TEXTS), strict=True):
        assert np.array_equal(row, network.embed_ids(tokens.add_special_tokens(tokens.encode(text), MINILM_MAX_TOKENS)))
    images_BD = dense.encode_images_dense(pixels_BHWC)
    assert images_BD.shape == (len(pixels_BHWC), 384)
    assert np.linalg.norm(images_BD, axis=1) == pytest.approx(1, abs=1e-4)


def test_words_and_dense_vectors_equal_separate_calls(mini: StairMiniEncoder, pixels_BHWC: Pixels) -> None:
    dense = ConseEncoder(mini)
    words, dense_BD = dense.encode_images_both(pixels_BHWC)
    assert words == mini.encode_images(pixels_BHWC)
    assert np.array_equal(dense_BD, dense.encode_images_dense(pixels_BHWC))
    texts = [*TEXTS, "", "the of"]
    words, dense_BD = dense.encode_texts_both(texts)
    assert words == mini.encode_texts(texts)
    assert np.array_equal(dense_BD, dense.encode_texts_dense(texts))


def test_a_drawing_is_found_by_its_name(mini: StairMiniEncoder) -> None:
    """What the classes of photographs can't: a face, drawn with circles."""
    size = mini.image_spec.size_px
    y, x = np.mgrid[:size, :size]
    pixels = np.full((1, size, size, 3), 255, np.uint8)

    def disc(row: float, column: float, radius: float, color: tuple[int, int, int]) -> None:
        pixels[0][(y - row * size) ** 2 + (x - column * size) ** 2 < (radius * size) ** 2] = color

    disc(0.5, 0.5, 0.45, (255, 204, 50))
    for column in (0.35, 0.65):
        disc(0.4, column, 0.06, (90, 60, 20))
    disc(0.62, 0.5, 0.2, (90, 60, 20))
    disc(0.55, 0.5, 0.2, (255, 204, 50))
    smooth = np.asarray(Image.fromarray(pixels[0]).resize((size * 2, size * 2)).resize((size, size)))  # edges as drawn
    [seen] = mini.encode_images(smooth[None])
    scores = {text: vector.dot(seen) for text, vector in zip(_ASKED, mini.encode_texts(_ASKED), strict=True)}
    assert max(scores, key=lambda text: scores[text]) == "smiling face"


_ASKED = ("smiling face", "a red bus", "a dog", "a mountain", "a cup of coffee")
