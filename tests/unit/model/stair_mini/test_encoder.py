"""stair-mini: images, and texts with the static table. The text network isn't needed."""

from __future__ import annotations

import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from support.errors import expect_error
from support.oracles import mini_oracle
from support.oracles.mini_oracle import NetworkOutputs, Oracle

from stair_es.eval.models import build_evaluated_model
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.model.networks import image_networks
from stair_es.model.networks.image_networks import CLASSIFIER_SIZE_PX, ImageNetwork, ImageNetworkOutput
from stair_es.model.networks.minilm import compute_softmax
from stair_es.model.stair_mini import artifacts
from stair_es.model.stair_mini.artifacts import MiniArtifacts
from stair_es.model.stair_mini.encoder import StairMiniEncoder, resize_square_pixels
from stair_es.model.stair_mini.heads import DrawingGate, NumpyHeads, SceneProbe
from stair_es.model.vocabularies.stop_words import load_stop_words
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import Floats, Pixels, Precision

PHOTOS = Path(__file__).parents[4] / "examples" / "photos"
PHOTO_NAMES = ("bison.jpg", "giant-panda.jpg", "kitten-with-yarn.jpg", "dairy-cow.jpg", "astronaut.jpg")
TOLERANCE = 1e-4
"""Stated in docs/stair-mini.md: how far a weight may differ between the backends."""
ROUNDING = 2e-5
TEXTS = (
    *("a photo of the buses", "a red bus", "Christmas tree", "an astronaut on the moon", "clown fish", "wolves & GREY mice"),
    *("a labrador with a poncho", "smiling face with sunglasses", "the dog, the cat & the dog!", "zucchini"),
)
TABLE_SPEC = ModelSpec(name="stair-mini", backend="onnx", text_tower="table", threads=1)


def draw_face(side_px: int) -> Pixels:
    """Return a drawing: flat colors with hard edges on white."""
    image = Image.new("RGB", (side_px, side_px), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse([side_px * 0.05, side_px * 0.05, side_px * 0.95, side_px * 0.95], fill=(255, 204, 50))
    for left, upper, right, lower in ((0.29, 0.34, 0.41, 0.46), (0.59, 0.34, 0.71, 0.46), (0.3, 0.6, 0.7, 0.8)):
        draw.ellipse([side_px * left, side_px * upper, side_px * right, side_px * lower], fill=(90, 60, 20))
    return np.asarray(image)


def read_photos(*names: str) -> list[Pixels]:
    spec = registry.resolve_model(ModelSpec(name="stair-mini")).card.image_spec
    return [decode_image((PHOTOS / name).read_bytes(), spec, DecodeLimits()).pixels_HWC for name in names]


@pytest.fixture(scope="module")
def pixels_BHWC() -> Pixels:  # noqa: N802  a shape
    photos = read_photos(*PHOTO_NAMES)
    return np.stack([*photos, draw_face(len(photos[0]))])


@pytest.fixture(scope="module")
def mini_encoder() -> StairMiniEncoder:
    return StairMiniEncoder(TABLE_SPEC)


@pytest.fixture(scope="module")
def mini_artifacts() -> MiniArtifacts:
    return artifacts.read_mini_artifacts()


@pytest.fixture(scope="module")
def formula_oracle(mini_artifacts: MiniArtifacts) -> Oracle:
    return Oracle(mini_artifacts)


@pytest.fixture(scope="module")
def network_outputs(
    mini_encoder: StairMiniEncoder, mini_artifacts: MiniArtifacts, formula_oracle: Oracle, pixels_BHWC: Pixels
) -> list[NetworkOutputs]:
    """Outputs of the networks for the images, one by one."""
    mini, encoder, oracle = mini_artifacts, mini_encoder, formula_oracle
    heads = NumpyHeads(mini.config, mini.arrays)  # against PyTorch: tests/integration/test_model_mini.py
    gate = DrawingGate(
        statistic_weights_S=mini.arrays["gate.statistics_S"],
        feature_weights_P=mini.arrays["gate.features_P"],
        bias=float(mini.arrays["gate.bias"][0]),
    )
    probe = SceneProbe(feature_weights_SP=mini.arrays["scenes.features_SP"], biases_S=mini.arrays["scenes.biases_S"])
    outputs = []
    for pixels_HWC in pixels_BHWC:
        small_BHWC = resize_square_pixels(pixels_HWC[None], CLASSIFIER_SIZE_PX)
        [logits_K], [features_P] = encoder.image_network.run_network(small_BHWC)
        outputs.append(
            NetworkOutputs(
                classes=compute_softmax(logits_K.astype(np.float64)).tolist(),
                things=encoder.detector.score_classes(pixels_HWC[None])[0].tolist(),
                drawn=gate.predict_probability(small_BHWC[0], features_P),
                scenes=probe.predict_probabilities(features_P).tolist(),
                learned=oracle.name_weights(heads.apply_to_features(features_P)),
            )
        )
    return outputs


def set_drawing_probability(monkeypatch: pytest.MonkeyPatch, probability: float) -> None:
    monkeypatch.setattr(DrawingGate, "predict_probability", lambda gate, pixels_HWC, features_P: probability)


def test_vectors_do_not_depend_on_the_batch(mini_encoder: StairMiniEncoder, pixels_BHWC: Pixels) -> None:
    batch = mini_encoder.encode_images(pixels_BHWC)
    assert [mini_encoder.encode_images(pixels_HWC[None])[0] for pixels_HWC in pixels_BHWC] == batch
    assert mini_encoder.encode_images(pixels_BHWC[::-1]) == batch[::-1]
    assert mini_encoder.encode_images(pixels_BHWC[:0]) == []
    assert [mini_encoder.encode_texts([text])[0] for text in TEXTS] == mini_encoder.encode_texts(TEXTS)


def test_both_backends_give_the_same_tokens(mini_encoder: StairMiniEncoder, pixels_BHWC: Pixels) -> None:
    pytest.importorskip("torch")
    torch_encoder = StairMiniEncoder(replace(TABLE_SPEC, backend="torch"))
    for by_onnx, by_torch in zip(mini_encoder.encode_images(pixels_BHWC), torch_encoder.encode_images(pixels_BHWC), strict=True):
        assert by_onnx.tokens[0] == by_torch.tokens[0]
        assert mini_oracle.measure_distance(by_onnx, by_torch.to_dict()) <= TOLERANCE


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_narrow_precisions_give_nearly_the_same_vectors(precision: Precision) -> None:
    pytest.importorskip("torch")
    spec = ModelSpec(name="stair-mini", backend="torch", threads=1)
    pixels_BHWC = np.stack(read_photos("tabby-cat.jpg", "giant-panda.jpg", "wall-clock.jpg"))
    exact = registry.load_encoder(spec).encode_images(pixels_BHWC)
    narrow = registry.load_encoder(replace(spec, precision=precision)).encode_images(pixels_BHWC)
    for exact_vector, vector in zip(exact, narrow, strict=True):
        assert exact_vector.tokens[0] in vector.top(3).tokens
        assert exact_vector.dot(vector) / math.sqrt(exact_vector.dot(exact_vector) * vector.dot(vector)) > 0.97
        assert exact_vector != vector


def test_threads_get_the_same_vectors(pixels_BHWC: Pixels) -> None:
    encoder = StairMiniEncoder(TABLE_SPEC)  # threads compete for the first use, too
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(encoder.encode_images, [pixels_BHWC[:3]] * 4))
        texts = list(pool.map(encoder.encode_texts, [["a brown bear"]] * 8))
    assert all(vectors == images[0] for vectors in images)
    assert images[0] == encoder.encode_images(pixels_BHWC[:3])
    assert all(vectors == texts[0] for vectors in texts)


def test_vectors_are_unit_rounded_short_and_of_whole_words(mini_encoder: StairMiniEncoder, pixels_BHWC: Pixels) -> None:
    stop_words, tokens = load_stop_words(), frozenset(mini_encoder.tokens)
    for vectors, max_tokens in ((mini_encoder.encode_images(pixels_BHWC), 64), (mini_encoder.encode_texts(TEXTS), 48)):
        for vector in vectors:
            assert 0 < len(vector) <= max_tokens
            assert sum(weight**2 for weight in vector.weights) == pytest.approx(1, abs=1e-3)
            assert all(weight == round(weight, 5) for weight in vector.weights)
            assert tokens.issuperset(vector.tokens)
            assert not [token for token in vector.tokens if token in stop_words or "##" in token]


@pytest.mark.parametrize("probability", [None, 0.1, 0.45, 0.8, 1.0])
def test_an_image_matches_the_formula(
    mini_encoder: StairMiniEncoder,
    formula_oracle: Oracle,
    network_outputs: list[NetworkOutputs],
    pixels_BHWC: Pixels,
    monkeypatch: pytest.MonkeyPatch,
    probability: float | None,
) -> None:
    outputs = network_outputs
    if probability is not None:
        set_drawing_probability(monkeypatch, probability)
        outputs = [replace(output, drawn=probability) for output in outputs]
    for vector, output in zip(mini_encoder.encode_images(pixels_BHWC), outputs, strict=True):
        assert mini_oracle.measure_distance(vector, formula_oracle.encode_image(output)) <= ROUNDING


def test_the_detector_counts_more_where_the_classifier_agrees(formula_oracle: Oracle, mini_artifacts: MiniArtifacts) -> None:
    """Compare a cow of the detector with another class of the classifier, and with an ox."""
    cow, [ox, *_] = 19, mini_artifacts.same_things[19]
    other_class = next(index for index in range(1000) if index not in mini_artifacts.same_things[cow])
    scores = [0.7 * (index == cow) for index in range(80)]
    confidences = []
    for index in (other_class, ox):
        outputs = NetworkOutputs(classes=np.eye(1000)[index].tolist(), things=scores, drawn=0.0, scenes=[], learned={})
        confidences.append(formula_oracle._compute_confidences(outputs)[cow])
    assert 0 < confidences[0] < confidences[1]


def test_the_heads_fade_in(
    mini_encoder: StairMiniEncoder, mini_artifacts: MiniArtifacts, pixels_BHWC: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, end = mini_artifacts.blend.drawing_threshold, mini_artifacts.blend.drawing_full_threshold
    batches = []
    for probability in (0.0, begin, begin + 1e-6, *np.linspace(begin, end, 5)[1:], 1.0):
        set_drawing_probability(monkeypatch, probability)
        batches.append(mini_encoder.encode_images(pixels_BHWC[:2]))
    assert batches[0] == batches[1]  # below the threshold nothing of the heads
    assert batches[-1] == batches[-2]
    for photo, *blended in zip(*batches, strict=True):
        similarities = [photo.dot(vector) for vector in blended]
        assert similarities[1] > 0.999  # no step where it begins
        assert all(before >= after - 1e-4 for before, after in pairwise(similarities[1:]))
        assert similarities[-1] < 0.98


class CountingNetwork:
    """A network that counts its images."""

    def __init__(self, network: ImageNetwork) -> None:
        self.backend, self._network, self.image_count = network.backend, network, 0

    def run_network(self, pixels_BHWC: Pixels) -> ImageNetworkOutput:
        self.image_count += len(pixels_BHWC)
        return self._network.run_network(pixels_BHWC)


def test_the_network_runs_once_for_an_image(
    mini_encoder: StairMiniEncoder, pixels_BHWC: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = CountingNetwork(mini_encoder.image_network)
    monkeypatch.setattr("stair_es.model.networks.image_networks.load_image_network", lambda spec: counting)
    assert StairMiniEncoder(TABLE_SPEC).encode_images(pixels_BHWC) == mini_encoder.encode_images(pixels_BHWC)
    assert counting.image_count == len(pixels_BHWC)


class UniformNetwork:
    """A network for which all classes are equally likely, and a detector of no object."""

    backend = "onnx"

    def run_network(self, pixels_BHWC: Pixels) -> ImageNetworkOutput:
        return ImageNetworkOutput(np.zeros((len(pixels_BHWC), 1000), np.float32), np.zeros((len(pixels_BHWC), 1280), np.float32))

    def score_classes(self, pixels_BHWC: Pixels) -> Floats:
        return np.zeros((len(pixels_BHWC), 80), np.float32)


def test_uniform_networks_still_give_tokens(monkeypatch: pytest.MonkeyPatch, pixels_BHWC: Pixels) -> None:
    for name in ("load_image_network", "load_detector"):
        monkeypatch.setattr(image_networks, name, lambda spec: UniformNetwork())
    assert all(StairMiniEncoder(TABLE_SPEC).encode_images(pixels_BHWC))


@pytest.mark.parametrize("level", [0, 127, 255])
def test_a_plain_image_still_has_tokens(mini_encoder: StairMiniEncoder, level: int) -> None:
    assert len(mini_encoder.encode_images(np.full((1, 288, 288, 3), level, np.uint8))[0]) >= 1


@pytest.mark.parametrize("pixels", [np.zeros((1, 260, 260, 3), np.uint8), np.zeros((1, 288, 288, 3), np.float32)])
def test_invalid_pixels_are_rejected(mini_encoder: StairMiniEncoder, pixels: Any) -> None:  # noqa: ANN401
    with expect_error("invalid-pixels") as caught:
        mini_encoder.encode_images(pixels)
    assert "stair-mini" in caught.value.message


@pytest.mark.parametrize("text", [*TEXTS, "dog, house - dog house", "CAFÉ\u0301 t-shirts; ﬁre\u00a0truck's", "3dogs_and 2 Ωcats"])
def test_with_the_table_a_text_matches_the_formula(mini_encoder: StairMiniEncoder, formula_oracle: Oracle, text: str) -> None:
    assert mini_oracle.measure_distance(mini_encoder.encode_texts([text])[0], formula_oracle.look_up_text(text)) <= ROUNDING


def test_texts_have_their_words_and_spellings(mini_encoder: StairMiniEncoder) -> None:
    plural, capitals, compound = mini_encoder.encode_texts(["the wolves", "a WOLF", "clown fish"])
    assert plural.tokens[0] == capitals.tokens[0] == "wolf"
    assert {"clownfish", "fish"} <= set(compound.tokens)
    assert not {"a", "the"} & {*plural.tokens, *capitals.tokens}


def test_unknown_words_use_nearby_words(mini_encoder: StairMiniEncoder, formula_oracle: Oracle) -> None:
    vocabulary = mini_encoder._artifacts.vocabulary
    words = ("labrador", "poncho", "cathedrals", "physics", "economy", "philosophy", "parliament", "berlin")
    unknown = [word for word in words if vocabulary.find_word(word) < 0 and any(formula_oracle.find_nearby_words(word).values())]
    assert len(unknown) >= 3
    for word in unknown:
        [vector] = mini_encoder.encode_texts([f"the {word.upper()}"])
        never_added = mini_encoder._artifacts.never_added
        assert set(vector.tokens) == {near for near in formula_oracle.find_nearby_words(word) if near not in never_added}
    assert not len(mini_encoder.encode_texts(["xqzzyv"])[0])


@pytest.mark.parametrize("text", ["", "   ", "the of and", "?!", "42", "\U0001f9ab", "\x00\u200b", "photo of", "the naive xqzzy"])
def test_text_of_unknown_words_is_empty(mini_encoder: StairMiniEncoder, text: str) -> None:
    assert len(mini_encoder.encode_texts([text])[0]) == 0


@pytest.mark.parametrize(
    ("word", "tokens"),
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
def test_words_become_tokens_of_the_vocabulary(mini_encoder: StairMiniEncoder, word: str, tokens: tuple[str, ...]) -> None:
    assert mini_encoder.tokenize_word(word) == tokens


def test_words_and_spellings_are_single_tokens(mini_encoder: StairMiniEncoder, mini_artifacts: MiniArtifacts) -> None:
    words = {word: word for word in mini_artifacts.vocabulary.words}
    for spelling, word in {**words, **mini_artifacts.vocabulary.spellings}.items():
        assert mini_encoder.tokenize_word(spelling) == (word,)


def test_an_evaluation_has_dense_vectors_of_the_text_network(mini_encoder: StairMiniEncoder) -> None:
    spec = ModelSpec(name="stair-mini")
    model = build_evaluated_model(StairMiniEncoder(spec), spec)
    assert model.dense is not None
    assert model.tokens == mini_encoder.tokens
    assert build_evaluated_model(mini_encoder, TABLE_SPEC).dense is None


def test_the_card_is_read_without_loading_the_model() -> None:
    card = registry.resolve_model(ModelSpec(name="stair-mini")).card
    assert (card.name, card.model_id, card.image_spec.fit) == ("stair-mini", "stair-mini-3", "squash")
    assert any("EmojiOne 2.x (CC-BY-4.0)" in line for line in card.licenses)
    assert any("EfficientNet-Lite2 (Apache-2.0)" in line for line in card.licenses)
    assert pickle.loads(pickle.dumps(card)) == card
    encoder = registry.load_encoder(pickle.loads(pickle.dumps(TABLE_SPEC)))
    assert (encoder.model_id, encoder.image_spec) == (card.model_id, card.image_spec)


@pytest.mark.parametrize(
    ("options", "code", "fact"),
    [
        ({"text_tower": "half"}, "unknown-choice", "'half'"),
        ({"backend": "jax"}, "unknown-choice", "'jax'"),
        ({"precision": "int4"}, "unknown-choice", "'int4'"),
        ({"threads": -1}, "invalid-threads", "-1"),
        ({"precision": "bf16"}, "onnx-needs-fp32", "bf16"),
        ({"device": "gpu:1"}, "unknown-device", "'gpu:1'"),
    ],
)
def test_invalid_options_are_rejected(options: dict[str, Any], code: str, fact: str) -> None:
    with expect_error(code) as caught:
        registry.load_encoder(replace(TABLE_SPEC, **options)).encode_images(np.zeros((1, 288, 288, 3), np.uint8))
    assert fact in caught.value.message
