"""Drawings among images: the statistics of pixels, and the shipped gate."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from stair_es.model.base import ModelSpec
from stair_es.model.networks.image_networks import CLASSIFIER_SIZE_PX, ImageNetwork, load_image_network
from stair_es.model.stair_mini import artifacts
from stair_es.model.stair_mini.encoder import resize_square_pixels
from stair_es.model.stair_mini.heads import STATISTIC_COUNT, DrawingGate, compute_pixel_statistics
from stair_es.model.stair_mini.plugin import KIND
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import Floats, Pixels

ROOT = Path(__file__).parents[4]


def draw_house(side_px: int = CLASSIFIER_SIZE_PX) -> Pixels:
    """Return flat colors with hard edges on white."""
    image = Image.new("RGB", (side_px, side_px), "white")
    draw, unit = ImageDraw.Draw(image), side_px / 10
    draw.polygon([(unit, 5 * unit), (5 * unit, unit), (9 * unit, 5 * unit)], fill=(200, 40, 40))
    draw.rectangle([2 * unit, 5 * unit, 8 * unit, 9 * unit], fill=(250, 210, 60))
    draw.rectangle([4 * unit, 6 * unit, 6 * unit, 9 * unit], fill=(90, 60, 20))
    return np.asarray(image)


def draw_noise(side_px: int = CLASSIFIER_SIZE_PX) -> Pixels:
    """Return a smooth scene with the noise of a sensor."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:side_px, :side_px] / side_px
    scene = np.stack([90 + 80 * rows, 110 + 60 * columns, 70 + 50 * rows * columns], axis=-1)
    return np.clip(scene + rng.normal(0, 12, scene.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def image_network() -> ImageNetwork:
    return load_image_network(ModelSpec(name="stair-mini", backend="onnx", threads=1))


@pytest.fixture(scope="module")
def shipped_gate() -> DrawingGate:
    arrays = artifacts.read_mini_artifacts().arrays
    return DrawingGate(
        statistic_weights_S=arrays["gate.statistics_S"],
        feature_weights_P=arrays["gate.features_P"],
        bias=float(arrays["gate.bias"][0]),
    )


def test_a_drawing_has_fewer_colors_and_flatter_areas() -> None:
    drawing_S, photo_S = compute_pixel_statistics(draw_house()), compute_pixel_statistics(draw_noise())
    colors, top, flat, soft = range(4)
    assert drawing_S[colors] < photo_S[colors]
    assert drawing_S[top] > 0.95 > photo_S[top]
    assert drawing_S[flat] > 0.9 > photo_S[flat]
    assert drawing_S[soft] < 0.1 < photo_S[soft]


@pytest.mark.parametrize("level", [0, 127, 255])
def test_statistics_of_plain_images_are_finite(level: int) -> None:
    statistics_S = compute_pixel_statistics(np.full((CLASSIFIER_SIZE_PX, CLASSIFIER_SIZE_PX, 3), level, np.uint8))
    assert (statistics_S.shape, statistics_S.dtype) == ((STATISTIC_COUNT,), np.dtype(np.float32))
    assert np.isfinite(statistics_S).all()
    assert statistics_S[-1] == 1  # gray


def test_statistics_of_white_with_one_pixel_are_finite() -> None:
    pixels_HWC = np.full((CLASSIFIER_SIZE_PX, CLASSIFIER_SIZE_PX, 3), 255, np.uint8)
    pixels_HWC[100, 100] = (255, 0, 0)
    statistics_S = compute_pixel_statistics(pixels_HWC)
    assert np.isfinite(statistics_S).all()
    assert (np.abs(statistics_S) <= 4).all()  # a share of a few pixels doesn't become large


def test_shares_are_fractions_and_the_image_is_unchanged() -> None:
    for pixels_HWC in (draw_house(), draw_noise()):
        before_HWC = pixels_HWC.copy()
        shares_S = compute_pixel_statistics(pixels_HWC)[1:]
        assert ((shares_S >= 0) & (shares_S <= 1)).all()
        assert np.array_equal(pixels_HWC, before_HWC)


def test_probability_matches_the_regression() -> None:
    weights_S: Floats = np.linspace(0, 1, STATISTIC_COUNT).astype(np.float32)
    gate = DrawingGate(statistic_weights_S=weights_S, feature_weights_P=np.array([1.0, -2.0], np.float32), bias=0.5)
    pixels_HWC, features_P = draw_house(), np.array([0.3, 0.1], np.float32)
    logit = float(weights_S @ compute_pixel_statistics(pixels_HWC)) + 0.3 - 0.2 + 0.5
    assert gate.predict_probability(pixels_HWC, features_P) == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)


def test_drawings_differ_from_noisy_photographs(shipped_gate: DrawingGate, image_network: ImageNetwork) -> None:
    drawing, photo = (
        shipped_gate.predict_probability(pixels_HWC, image_network.run_network(pixels_HWC[None]).features_BD[0])
        for pixels_HWC in (draw_house(), draw_noise())
    )
    assert drawing > 0.9
    assert photo < 0.3


def test_photographs_of_the_examples_are_not_drawn(shipped_gate: DrawingGate, image_network: ImageNetwork) -> None:
    blend = artifacts.read_mini_artifacts().blend
    for path in sorted((ROOT / "examples" / "photos").glob("*.jpg")):  # none of them was in its training
        pixels_HWC = decode_image(path.read_bytes(), KIND.card.image_spec, DecodeLimits()).pixels_HWC
        small_BHWC = resize_square_pixels(pixels_HWC[None], CLASSIFIER_SIZE_PX)
        features_P = image_network.run_network(small_BHWC).features_BD[0]
        assert shipped_gate.predict_probability(small_BHWC[0], features_P) < blend.drawing_threshold, path.name


def test_gate_is_fitted_to_separate_two_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import mini_gate

    rng = np.random.default_rng(1)

    def draw_inputs(shift: float) -> mini_gate.GateInputs:
        statistics_NS = rng.normal(size=(60, STATISTIC_COUNT)).astype(np.float32)
        statistics_NS[:, 2] += shift
        return mini_gate.GateInputs(statistics_NS, rng.normal(size=(60, 20)).astype(np.float32), np.ones(60, np.float32))

    gate = mini_gate.fit_gate(draw_inputs(3.0), draw_inputs(0.0))
    weights_S = np.abs(gate.statistic_weights_S)
    assert gate.statistic_weights_S[2] == weights_S.max() > 3 * np.delete(weights_S, 2).max()
    assert gate.feature_weights_P.shape == (20,)


def test_scenes_are_fitted_to_their_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import mini_gate
    from mini_photos import LabeledPhoto

    rng = np.random.default_rng(1)
    has_sky_N, has_grass_N = rng.random(200) < 0.4, rng.random(200) < 0.1
    photos = [
        LabeledPhoto("a", str(place), frozenset(name for name, has in (("sky", sky), ("grass", grass)) if has))
        for place, (sky, grass) in enumerate(zip(has_sky_N, has_grass_N, strict=True))
    ]
    features_NP = rng.random((200, 20)).astype(np.float32)
    features_NP[:, 3] += 2 * has_sky_N
    features_NP[:, 7] += 2 * has_grass_N
    probe = mini_gate.fit_scenes(photos, features_NP, ["sky", "grass"])
    sky_N, grass_N = np.stack([probe.predict_probabilities(features_P) for features_P in features_NP]).T > 0.5
    assert (sky_N == has_sky_N).mean() > 0.95
    assert grass_N[has_grass_N].mean() > 0.9  # rare ones, too
    assert probe.predict_probabilities(np.zeros(20, np.float32)).shape == (2,)
