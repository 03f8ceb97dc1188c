"""stair-mini with the text network: its heads against PyTorch's, and its texts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.oracles import mini_oracle
from support.oracles.mini_oracle import Oracle
from tokenizers import Tokenizer
from torch.nn import functional

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
from stair_es.model.vocabularies.stop_words import MODEL_DATA
from stair_es.model.vocabularies.wordpiece import WORDPIECE_FILE, load_wordpiece_vocabulary
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import Floats, Pixels

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
TEXTS = (
    *("a red bus", "smiling face with sunglasses", "horses on a mountain", "the dog, the cat & the dog!", "x" * 200 + " tree"),
    *("two CAFÉS in Zürich", "clown fish, wolves and grey mice", "an unbelievable labrador", "T-shirt"),
)


@pytest.fixture(scope="module")
def minilm_folder() -> Path:
    return minilm_download.ensure_minilm(DataDir.from_env().models)


@pytest.fixture(scope="module")
def text_network(minilm_folder: Path) -> MiniLM:
    return MiniLM(minilm_folder / minilm_download.MINILM_WEIGHTS)


def embed_text(text_network: MiniLM, text: str) -> Floats:
    vocabulary = load_wordpiece_vocabulary()
    return text_network.embed_ids(vocabulary.add_special_tokens(vocabulary.encode(text), MINILM_MAX_TOKENS))


@pytest.fixture(scope="module")
def mini_encoder(minilm_folder: Path) -> StairMiniEncoder:
    return StairMiniEncoder(ModelSpec(name="stair-mini", backend="onnx", threads=1))


@pytest.fixture(scope="module")
def mini_artifacts() -> MiniArtifacts:
    return artifacts.read_mini_artifacts()


@pytest.fixture(scope="module")
def trained_model(minilm_folder: Path, mini_artifacts: MiniArtifacts) -> StairModel:
    """The shipped heads as the module that was trained."""
    tokenizer = Tokenizer.from_file(str(minilm_folder / "tokenizer.json"))
    model = StairModel(mini_artifacts.config, StairTokenizer(tokenizer, mini_artifacts.vocabulary, MINILM_MAX_TOKENS))
    others = ("gate.", "scenes.", "embeddings.")
    heads = {name: array for name, array in mini_artifacts.arrays.items() if not name.startswith(others)}
    result = model.load_state_dict({name: torch.from_numpy(array) for name, array in heads.items()}, strict=False)
    assert not result.unexpected_keys
    assert all(".backbone." in name or name == "log_scale" for name in result.missing_keys)
    model.eval()
    return model


@pytest.fixture(scope="module")
def pixels_BHWC(mini_encoder: StairMiniEncoder) -> Pixels:  # noqa: N802  a shape
    photos = sorted(PHOTOS.glob("*.jpg"))[:6]
    return np.stack([decode_image(path.read_bytes(), mini_encoder.image_spec, DecodeLimits()).pixels_HWC for path in photos])


def test_numpy_text_heads_match_the_trained_ones(
    text_network: MiniLM, mini_artifacts: MiniArtifacts, trained_model: StairModel
) -> None:
    heads, tokens = NumpyHeads(mini_artifacts.config, mini_artifacts.arrays), load_wordpiece_vocabulary()
    for text in TEXTS:
        encoded = tokens.encode_with_offsets(text, MINILM_MAX_TOKENS)
        features_L = np.array(mini_artifacts.vocabulary.match_tokens(text, encoded.offsets), np.int64)
        tokenized = trained_model.tokens.encode([text])
        assert (encoded.ids, features_L.tolist()) == (tokenized.ids_BL[0].tolist(), tokenized.features_BL[0].tolist())
        ours = heads.apply_to_states(text_network.compute_states(encoded.ids), features_L)
        with torch.inference_mode():
            theirs = trained_model.encode_texts(TextBatch.from_tokenized(tokenized)).weights_BF  # by PyTorch's network, too
        assert theirs is not None
        assert np.abs(ours - theirs[0].numpy()).max() < 1e-5


def test_numpy_image_heads_match_the_trained_ones(
    mini_encoder: StairMiniEncoder, mini_artifacts: MiniArtifacts, trained_model: StairModel, pixels_BHWC: Pixels
) -> None:
    heads = NumpyHeads(mini_artifacts.config, mini_artifacts.arrays)
    for features_D in mini_encoder.image_network.run_network(resize_square_pixels(pixels_BHWC, CLASSIFIER_SIZE_PX)).features_BD:
        ours = heads.apply_to_features(features_D)
        with torch.inference_mode():
            theirs = trained_model.encode_images(torch.from_numpy(features_D)[None, None]).weights_BF
        assert theirs is not None
        assert np.abs(ours - theirs[0].numpy()).max() < 1e-5


def embed_with_torch(path: Path, ids: list[int]) -> Floats:
    """Compute the embedding with PyTorch's own transformer layers."""
    tensors: dict[str, Any] = load_file(path)

    def get_layer(name: str) -> tuple[Any, Any]:
        return tensors[f"{name}.weight"], tensors[f"{name}.bias"]

    word, place, segment = (tensors[f"embeddings.{part}_embeddings.weight"] for part in ("word", "position", "token_type"))
    x = functional.layer_norm(word[ids] + place[: len(ids)] + segment[0], (384,), *get_layer("embeddings.LayerNorm"), 1e-12)[None]
    layer = torch.nn.TransformerEncoderLayer(384, 12, 1536, 0.0, functional.gelu, 1e-12, batch_first=True).eval()
    for index in range(6):
        name = f"encoder.layer.{index}"
        attention = [get_layer(f"{name}.attention.self.{part}") for part in ("query", "key", "value")]
        state = {
            "self_attn.in_proj_weight": torch.cat([weight for weight, _ in attention]),
            "self_attn.in_proj_bias": torch.cat([bias for _, bias in attention]),
        }
        for ours, theirs in (
            ("self_attn.out_proj", "attention.output.dense"),
            ("norm1", "attention.output.LayerNorm"),
            ("linear1", "intermediate.dense"),
            ("linear2", "output.dense"),
            ("norm2", "output.LayerNorm"),
        ):
            state[f"{ours}.weight"], state[f"{ours}.bias"] = get_layer(f"{name}.{theirs}")
        layer.load_state_dict(state)
        with torch.no_grad():
            x = layer(x)
    embedding_D: Floats = functional.normalize(x[0].mean(0), dim=0).numpy()
    return embedding_D


def test_our_forward_pass_is_that_of_the_network(minilm_folder: Path, text_network: MiniLM) -> None:
    vocabulary = load_wordpiece_vocabulary()
    for text in (*TEXTS, "a kitten playing with a ball of yarn on a sofa, seen from above", "river bear " * 200):
        ids = vocabulary.add_special_tokens(vocabulary.encode(text), MINILM_MAX_TOKENS)
        expected_D = embed_with_torch(minilm_folder / minilm_download.MINILM_WEIGHTS, ids)
        assert np.abs(text_network.embed_ids(ids) - expected_D).max() < 1e-6


def test_tokens_and_offsets_match_the_text_network(minilm_folder: Path) -> None:
    theirs, ours = Tokenizer.from_file(str(minilm_folder / "tokenizer.json")), load_wordpiece_vocabulary()
    theirs.no_padding()
    theirs.enable_truncation(MINILM_MAX_TOKENS)
    texts = ("", "re\u0301sume\u0301s", "Crème brûlée, don't!", "日本の犬 \U0001f9ab!", "\x00a\u200bb  c", "bear river " * 200)
    for text in (*TEXTS, *texts):
        encoded, expected = ours.encode_with_offsets(text, MINILM_MAX_TOKENS), theirs.encode(text)
        assert encoded.ids == expected.ids
        assert encoded.offsets[1:-1] == expected.offsets[1:-1]
        assert all(begin == end for begin, end in (encoded.offsets[0], encoded.offsets[-1]))
        assert ours.add_special_tokens(ours.encode(text), MINILM_MAX_TOKENS) == encoded.ids
    assert (minilm_folder / "vocab.txt").read_bytes() == (MODEL_DATA / WORDPIECE_FILE).read_bytes()


def test_backends_give_the_same_words(mini_encoder: StairMiniEncoder, pixels_BHWC: Pixels) -> None:
    by_torch = StairMiniEncoder(ModelSpec(name="stair-mini", backend="torch", threads=1))
    for ours, theirs in zip(mini_encoder.encode_images(pixels_BHWC), by_torch.encode_images(pixels_BHWC), strict=True):
        assert mini_oracle.measure_distance(ours, theirs.to_dict()) <= 1e-4
    assert mini_encoder.encode_texts(TEXTS) == by_torch.encode_texts(TEXTS)  # the text network is the same


def test_a_text_matches_the_formula(
    text_network: MiniLM, mini_encoder: StairMiniEncoder, mini_artifacts: MiniArtifacts, trained_model: StairModel
) -> None:
    """See docs/stair-mini.md; the heads are those of the module that was trained."""
    oracle = Oracle(mini_artifacts)
    read = [mini_encoder.read_text(text).text for text in TEXTS]
    for text, ours in zip(read, mini_encoder.encode_texts(TEXTS), strict=True):
        with torch.inference_mode():
            weights_BF = trained_model.encode_texts(TextBatch.from_tokenized(trained_model.tokens.encode([text]))).weights_BF
        assert weights_BF is not None
        learned = oracle.name_weights(weights_BF[0].numpy())
        assert len(learned) <= mini_artifacts.config.text.top_k
        embedding_D = embed_text(text_network, text)
        assert 0 < len(ours) <= 48
        assert mini_oracle.measure_distance(ours, oracle.encode_text(text, learned, embedding_D)) < 5e-5


def test_text_vectors_do_not_depend_on_batch_or_thread(mini_encoder: StairMiniEncoder) -> None:
    together = mini_encoder.encode_texts(TEXTS)
    assert [mini_encoder.encode_texts([text])[0] for text in TEXTS] == together
    fresh = StairMiniEncoder(ModelSpec(name="stair-mini"))
    with ThreadPoolExecutor(4) as pool:
        assert all(vectors == together for vectors in pool.map(fresh.encode_texts, [TEXTS] * 8))


def test_the_text_network_runs_once_for_a_text(mini_encoder: StairMiniEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    states = MiniLM.compute_states

    def count_run(network: MiniLM, ids: list[int]) -> object:
        runs.append(len(ids))
        return states(network, ids)

    monkeypatch.setattr(MiniLM, "compute_states", count_run)
    assert len(mini_encoder.encode_texts(["a red bus"])[0])
    assert runs == [5]


def test_empty_unknown_and_long_texts(mini_encoder: StairMiniEncoder) -> None:
    empty, stop, symbol, unknown = mini_encoder.encode_texts(["", "the of", "\U0001f9ab", "xqzzyv"])
    assert len(empty) == len(stop) == len(symbol) == 0
    assert not len(unknown)  # the network would read its pieces
    first, longer = mini_encoder.encode_texts(["bear river " * 127, "bear river " * 9000])
    assert first == longer


def test_words_of_vectors_are_whole_words_of_the_vocabulary(mini_encoder: StairMiniEncoder, pixels_BHWC: Pixels) -> None:
    for vector in (*mini_encoder.encode_texts(TEXTS), *mini_encoder.encode_images(pixels_BHWC)):
        assert set(mini_encoder.tokens) >= set(vector.tokens)
        assert not [word for word in vector.tokens if "##" in word]


def test_table_is_near_full(mini_encoder: StairMiniEncoder) -> None:
    table = StairMiniEncoder(ModelSpec(name="stair-mini", text_tower="table"))
    queries = ["a kitten", "a red bus", "pizza", "snowman in winter", "a castle on a hill"]
    cosines = [
        network_vector.dot(table_vector)
        for network_vector, table_vector in zip(mini_encoder.encode_texts(queries), table.encode_texts(queries), strict=True)
    ]
    assert min(cosines) > 0.5
    assert max(cosines) < 0.999


def test_dense_vectors_match_its_networks(text_network: MiniLM, mini_encoder: StairMiniEncoder, pixels_BHWC: Pixels) -> None:
    dense = get_dense_encoder(mini_encoder)
    assert dense is not None
    for text, row in zip(TEXTS, dense.encode_texts_dense(TEXTS), strict=True):
        assert np.array_equal(row, embed_text(text_network, mini_encoder.read_text(text).text))
    images_BD = dense.encode_images_dense(pixels_BHWC)
    assert images_BD.shape == (len(pixels_BHWC), 384)
    assert np.linalg.norm(images_BD, axis=1) == pytest.approx(1, abs=1e-4)


def test_words_and_dense_vectors_equal_separate_calls(mini_encoder: StairMiniEncoder, pixels_BHWC: Pixels) -> None:
    dense = ConseEncoder(mini_encoder)
    vectors, dense_BD = dense.encode_images_both(pixels_BHWC)
    assert vectors == mini_encoder.encode_images(pixels_BHWC)
    assert np.array_equal(dense_BD, dense.encode_images_dense(pixels_BHWC))
    texts = [*TEXTS, "", "the of"]
    vectors, dense_BD = dense.encode_texts_both(texts)
    assert vectors == mini_encoder.encode_texts(texts)
    assert np.array_equal(dense_BD, dense.encode_texts_dense(texts))


def test_a_drawing_is_found_by_its_name(mini_encoder: StairMiniEncoder) -> None:
    """A face drawn with circles, which no class of photographs is."""
    size = mini_encoder.image_spec.size_px
    y, x = np.mgrid[:size, :size]
    pixels = np.full((1, size, size, 3), 255, np.uint8)

    def draw_disc(row: float, column: float, radius: float, color: tuple[int, int, int]) -> None:
        pixels[0][(y - row * size) ** 2 + (x - column * size) ** 2 < (radius * size) ** 2] = color

    draw_disc(0.5, 0.5, 0.45, (255, 204, 50))
    for column in (0.35, 0.65):
        draw_disc(0.4, column, 0.06, (90, 60, 20))
    draw_disc(0.62, 0.5, 0.2, (90, 60, 20))
    draw_disc(0.55, 0.5, 0.2, (255, 204, 50))
    smooth = np.asarray(Image.fromarray(pixels[0]).resize((size * 2, size * 2)).resize((size, size)))  # edges as drawn
    [image_vector] = mini_encoder.encode_images(smooth[None])
    names = ("smiling face", "a red bus", "a dog", "a mountain", "a cup of coffee")
    scores = {name: vector.dot(image_vector) for name, vector in zip(names, mini_encoder.encode_texts(names), strict=True)}
    assert max(scores, key=lambda name: scores[name]) == "smiling face"
