"""stair-mini: its images, and its texts with the static table. Nothing here needs a network."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from support.oracles import mini_oracle
from support.oracles.mini_oracle import NetworkOutputs, Oracle

from stair_es.errors import ModelError
from stair_es.eval.models import build_evaluated_model
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.model.networks import image_networks
from stair_es.model.networks.image_networks import CLASSIFIER_SIZE_PX, ImageNetwork, ImageNetworkOutput
from stair_es.model.networks.minilm import compute_softmax
from stair_es.model.stair_mini import artifacts
from stair_es.model.stair_mini.artifacts import MiniArtifacts
from stair_es.model.stair_mini.encoder import StairMiniEncoder, resize_square_pixels
from stair_es.model.stair_mini.heads import DrawingGate, NumpyHeads
from stair_es.model.vocabularies.stop_words import load_stop_words
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import Floats, Pixels, SparseVector

PHOTOS = Path(__file__).parents[4] / "examples" / "photos"
NAMES = ("bison.jpg", "giant-panda.jpg", "kitten-with-yarn.jpg", "dairy-cow.jpg", "astronaut.jpg")
TOLERANCE = 1e-4
"""Stated in docs/stair-mini.md: how far a weight may differ between the backends."""
ROUNDED = 2e-5
TEXTS = (
    *("a photo of the buses", "a red bus", "Christmas tree", "an astronaut on the moon", "clown fish", "wolves & GREY mice"),
    *("a labrador with a poncho", "smiling face with sunglasses", "the dog, the cat & the dog!", "zucchini"),
)
LIGHT = ModelSpec(name="stair-mini", backend="onnx", text_tower="table", threads=1)


def draw_face(side_px: int) -> Pixels:
    """Return a picture that is drawn: flat colors, hard edges, on white."""
    image = Image.new("RGB", (side_px, side_px), "white")
    draw = ImageDraw.Draw(image)
    for left, upper, right, lower, color in (
        *((0.05, 0.05, 0.95, 0.95, (255, 204, 50)), (0.29, 0.34, 0.41, 0.46, (90, 60, 20))),
        *((0.59, 0.34, 0.71, 0.46, (90, 60, 20)), (0.3, 0.6, 0.7, 0.8, (90, 60, 20))),
    ):
        draw.ellipse([side_px * each for each in (left, upper, right, lower)], fill=color)
    return np.asarray(image)


@pytest.fixture(scope="module")
def pixels_BHWC() -> Pixels:  # noqa: N802  a shape
    spec = registry.resolve_model(ModelSpec(name="stair-mini")).card.image_spec
    photos = [decode_image((PHOTOS / name).read_bytes(), spec, DecodeLimits()).pixels_HWC for name in NAMES]
    return np.stack([*photos, draw_face(spec.size_px)])


@pytest.fixture(scope="module")
def mini() -> StairMiniEncoder:
    return StairMiniEncoder(LIGHT)


@pytest.fixture(scope="module")
def shipped() -> MiniArtifacts:
    return artifacts.read_mini_artifacts()


@pytest.fixture(scope="module")
def oracle(shipped: MiniArtifacts) -> Oracle:
    return Oracle(shipped)


def ask_networks(mini: StairMiniEncoder, shipped: MiniArtifacts, oracle: Oracle, pixels_BHWC: Pixels) -> list[NetworkOutputs]:
    """Return what the networks make of images, one by one."""
    heads = NumpyHeads(shipped.config, shipped.arrays)  # against PyTorch: tests/integration/test_model_mini.py
    statistics, features, bias = (shipped.arrays[f"gate.{name}"] for name in ("statistics_S", "features_P", "bias"))
    gate = DrawingGate(statistic_weights_S=statistics, feature_weights_P=features, bias=float(bias[0]))
    answers = []
    for pixels_HWC in pixels_BHWC:
        small_BHWC = resize_square_pixels(pixels_HWC[None], CLASSIFIER_SIZE_PX)
        [logits_K], [features_P] = mini.image_network.run_network(small_BHWC)
        answers.append(
            NetworkOutputs(
                classes=compute_softmax(logits_K.astype(np.float64)).tolist(),
                things=mini.detector.score_classes(pixels_HWC[None])[0].tolist(),
                drawn=gate.predict_probability(small_BHWC[0], features_P),
                learned=oracle.name_weights(heads.apply_to_features(features_P)),
            )
        )
    return answers


def measure_distance(one: SparseVector, other: SparseVector) -> float:
    return mini_oracle.measure_distance(one, other.to_dict())


def test_an_image_alone_and_in_a_batch_is_the_same(mini: StairMiniEncoder, pixels_BHWC: Pixels) -> None:
    batch = mini.encode_images(pixels_BHWC)
    assert [mini.encode_images(pixels_BHWC[i : i + 1])[0] for i in range(len(pixels_BHWC))] == batch
    assert mini.encode_images(pixels_BHWC[::-1]) == batch[::-1]
    assert mini.encode_images(pixels_BHWC[:0]) == []


def test_both_backends_give_the_same_words(mini: StairMiniEncoder, pixels_BHWC: Pixels) -> None:
    pytest.importorskip("torch")
    by_torch = StairMiniEncoder(replace(LIGHT, backend="torch"))
    for ours, theirs in zip(mini.encode_images(pixels_BHWC), by_torch.encode_images(pixels_BHWC), strict=True):
        assert ours.tokens[0] == theirs.tokens[0]
        assert measure_distance(ours, theirs) <= TOLERANCE


def test_threads_get_the_same_vectors(pixels_BHWC: Pixels) -> None:
    fresh = StairMiniEncoder(LIGHT)  # the first use is contended, too
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(fresh.encode_images, [pixels_BHWC] * 4))
        texts = list(pool.map(fresh.encode_texts, [["a brown bear"]] * 8))
    assert all(vectors == images[0] for vectors in images)
    assert images[0] == fresh.encode_images(pixels_BHWC)
    assert all(vectors == texts[0] for vectors in texts)


def test_vectors_are_unit_rounded_short_and_of_whole_words(mini: StairMiniEncoder, pixels_BHWC: Pixels) -> None:
    stop, texts, features = load_stop_words(), mini.encode_texts(TEXTS), frozenset(mini.tokens)
    for vector, most in [*((each, 64) for each in mini.encode_images(pixels_BHWC)), *((each, 48) for each in texts)]:
        assert 0 < len(vector) <= most
        assert sum(weight**2 for weight in vector.weights) == pytest.approx(1, abs=1e-3)
        assert all(weight == round(weight, 5) for weight in vector.weights)
        assert features.issuperset(vector.tokens)
        assert not [word for word in vector.tokens if word in stop or "##" in word]


@pytest.mark.parametrize("drawn", [None, 0.1, 0.45, 0.8, 1.0])
def test_an_image_matches_the_formula(
    mini: StairMiniEncoder,
    shipped: MiniArtifacts,
    oracle: Oracle,
    pixels_BHWC: Pixels,
    monkeypatch: pytest.MonkeyPatch,
    drawn: float | None,
) -> None:
    if drawn is not None:
        monkeypatch.setattr(DrawingGate, "predict_probability", lambda gate, pixels_HWC, features_P: drawn)
    answers = ask_networks(mini, shipped, oracle, pixels_BHWC)
    for vector, each in zip(mini.encode_images(pixels_BHWC), answers, strict=True):
        assert mini_oracle.measure_distance(vector, oracle.encode_image(each)) <= ROUNDED


def test_the_detector_counts_more_where_the_classifier_agrees(oracle: Oracle, shipped: MiniArtifacts) -> None:
    """A cow of the detector alone, with the classifier against it, and with an ox of the classifier beside it."""
    cow, [ox, *_] = 19, shipped.same_things[19]
    others = next(index for index in range(1000) if index not in shipped.same_things[cow])
    things = [0.7 * (index == cow) for index in range(80)]
    weights = []
    for index in (others, ox):
        answers = NetworkOutputs(classes=np.eye(1000)[index].tolist(), things=things, drawn=0.0, learned={})
        weights.append(oracle._compute_confidences(answers)[cow])
    assert 0 < weights[0] < weights[1]


def test_the_heads_fade_in(
    mini: StairMiniEncoder, shipped: MiniArtifacts, pixels_BHWC: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    least, most, result = shipped.blend.drawing_threshold, shipped.blend.drawing_full_threshold, []
    degrees = [0.0, least, least + 1e-6, *np.linspace(least, most, 6)[1:], 1.0]
    for drawn in degrees:
        monkeypatch.setattr(DrawingGate, "predict_probability", lambda gate, pixels_HWC, features_P, drawn=drawn: drawn)
        result.append(mini.encode_images(pixels_BHWC))
    assert result[0] == result[1]  # below the threshold nothing of the heads
    assert result[-1] == result[-2]
    for picture in range(len(pixels_BHWC)):
        photo, *more = (vectors[picture] for vectors in result)
        alike = [photo.dot(vector) for vector in more]
        assert alike[1] > 0.999  # no step where it begins
        assert all(before >= after - 1e-4 for before, after in pairwise(alike[1:]))
        assert alike[-1] < 0.98


class CountingNetwork:
    """Passes pictures on to a network, and counts."""

    def __init__(self, network: ImageNetwork) -> None:
        self.backend, self._network, self.seen = network.backend, network, 0

    def run_network(self, pixels_BHWC: Pixels) -> ImageNetworkOutput:
        self.seen += len(pixels_BHWC)
        return self._network.run_network(pixels_BHWC)


def test_the_network_runs_once_for_an_image(mini: StairMiniEncoder, pixels_BHWC: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = CountingNetwork(mini.image_network)
    monkeypatch.setattr("stair_es.model.networks.image_networks.load_image_network", lambda backend, threads, precision: counting)
    assert StairMiniEncoder(LIGHT).encode_images(pixels_BHWC) == mini.encode_images(pixels_BHWC)
    assert counting.seen == len(pixels_BHWC)


class UniformNetwork:
    """Every class equally likely, and no thing."""

    backend = "onnx"

    def run_network(self, pixels_BHWC: Pixels) -> ImageNetworkOutput:
        return ImageNetworkOutput(np.zeros((len(pixels_BHWC), 1000), np.float32), np.zeros((len(pixels_BHWC), 1280), np.float32))

    def score_classes(self, pixels_BHWC: Pixels) -> Floats:
        return np.zeros((len(pixels_BHWC), 80), np.float32)


def test_clueless_networks_still_give_words(monkeypatch: pytest.MonkeyPatch, pixels_BHWC: Pixels) -> None:
    for name in ("load_image_network", "load_detector"):
        monkeypatch.setattr(image_networks, name, lambda backend, threads, precision: UniformNetwork())
    assert all(StairMiniEncoder(LIGHT).encode_images(pixels_BHWC))


@pytest.mark.parametrize("grey", [0, 127, 255])
def test_an_empty_image_still_has_words(mini: StairMiniEncoder, grey: int) -> None:
    assert len(mini.encode_images(np.full((1, 288, 288, 3), grey, np.uint8))[0]) >= 1


@pytest.mark.parametrize("pixels_BHWC", [np.zeros((1, 260, 260, 3), np.uint8), np.zeros((1, 288, 288, 3), np.float32)])
def test_other_pixels_are_rejected_by_name(mini: StairMiniEncoder, pixels_BHWC: Pixels) -> None:
    with pytest.raises(ModelError, match="stair-mini requires uint8 pixels"):
        mini.encode_images(pixels_BHWC)


@pytest.mark.parametrize("text", [*TEXTS, "dog, house - dog house", "CAFÉ\u0301 t-shirts; ﬁre\u00a0truck's", "3dogs_and 2 Ωcats"])
def test_with_the_table_a_text_matches_the_formula(mini: StairMiniEncoder, oracle: Oracle, text: str) -> None:
    assert mini_oracle.measure_distance(mini.encode_texts([text])[0], oracle.look_up_text(text)) <= ROUNDED


def test_texts_have_their_words_and_spellings(mini: StairMiniEncoder) -> None:
    one, other, pair = mini.encode_texts(["the wolves", "a WOLF", "clown fish"])
    assert one.tokens[0] == other.tokens[0] == "wolf"
    assert {"clownfish", "fish"} <= set(pair.tokens)
    assert not {"a", "the"} & {*one.tokens, *other.tokens}


def test_unknown_words_use_nearby_words(mini: StairMiniEncoder, oracle: Oracle) -> None:
    vocabulary = mini._artifacts.vocabulary
    unknown = [
        word
        for word in ("labrador", "poncho", "cathedrals", "physics", "economy", "philosophy", "parliament", "berlin")
        if vocabulary.find_word(word) < 0 and any(oracle.find_nearby_words(word).values())
    ]
    assert len(unknown) >= 3
    for word in unknown:
        [vector] = mini.encode_texts([f"the {word.upper()}"])
        assert set(vector.tokens) == set(oracle.find_nearby_words(word))
    assert not len(mini.encode_texts(["xqzzyv"])[0])


@pytest.mark.parametrize("text", ["", "   ", "the of and", "?!", "42", "\U0001f9ab", "\x00\u200b"])
def test_text_of_unknown_words_is_empty(mini: StairMiniEncoder, text: str) -> None:
    assert len(mini.encode_texts([text])[0]) == 0


def test_text_vectors_do_not_depend_on_the_batch(mini: StairMiniEncoder) -> None:
    assert [mini.encode_texts([text])[0] for text in TEXTS] == mini.encode_texts(TEXTS)


@pytest.mark.parametrize(
    ("word", "features"),
    [
        ("dog", ("dog",)),
        ("Dogs", ("dog",)),
        ("wolves", ("wolf",)),
        ("clown fish", ("clownfish", "clown", "fish")),
        ("dog-cat", ("dog", "cat")),
        ("the", ()),
        ("?", ()),
        ("", ()),
    ],
)
def test_it_spells_words_as_the_vocabulary_has_them(mini: StairMiniEncoder, word: str, features: tuple[str, ...]) -> None:
    assert mini.tokenize_word(word) == features


def test_words_and_spellings_are_single_words(mini: StairMiniEncoder, shipped: MiniArtifacts) -> None:
    for word in shipped.vocabulary.words:
        assert mini.tokenize_word(word) == (word,)
    for spelling, word in shipped.vocabulary.spellings.items():
        assert mini.tokenize_word(spelling) == (word,)


def test_text_network_is_compared_with_its_dense_vectors(mini: StairMiniEncoder) -> None:
    ours = build_evaluated_model(StairMiniEncoder(ModelSpec(name="stair-mini")), ModelSpec(name="stair-mini"))
    assert ours.dense is not None
    assert ours.tokens == mini.tokens
    assert build_evaluated_model(mini, LIGHT).dense is None


def test_catalogue_lists_it_unloaded() -> None:
    card = registry.resolve_model(ModelSpec(name="stair-mini")).card
    assert (card.name, card.model_id, card.image_spec.fit) == ("stair-mini", "stair-mini-2", "squash")
    assert any("EmojiOne 2.x (CC-BY-4.0)" in line for line in card.licenses)
    assert any("EfficientNet-Lite2 (Apache-2.0)" in line for line in card.licenses)
    assert pickle.loads(pickle.dumps(card)) == card
    encoder = registry.load_encoder(pickle.loads(pickle.dumps(LIGHT)))
    assert (encoder.model_id, encoder.image_spec) == (card.model_id, card.image_spec)


@pytest.mark.parametrize(("option", "value"), [("text tower", "half"), ("backend", "jax"), ("threads", -1)])
def test_a_wrong_option_is_rejected(option: str, value: object) -> None:
    with pytest.raises(ModelError, match=option):
        registry.load_encoder(replace(LIGHT, **{option.replace(" ", "_"): value}))  # type: ignore[arg-type]
