"""Which pictures count as drawn: the statistics of pixels, and the shipped gate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

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


def make_noise(side_px: int = CLASSIFIER_SIZE_PX) -> Pixels:
    """Return a smooth scene with the noise of a sensor."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:side_px, :side_px] / side_px
    scene = np.stack([90 + 80 * rows, 110 + 60 * columns, 70 + 50 * rows * columns], axis=-1)
    return np.clip(scene + rng.normal(0, 12, scene.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def mini_gate(monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401  a module that needs one of a folder that is no package
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import mini_gate

    return mini_gate


@pytest.fixture(scope="module")
def network() -> ImageNetwork:
    return load_image_network("onnx", 1)


@pytest.fixture(scope="module")
def gate() -> DrawingGate:
    arrays = artifacts.read_mini_artifacts().arrays
    return DrawingGate(
        statistic_weights_S=arrays["gate.statistics_S"],
        feature_weights_P=arrays["gate.features_P"],
        bias=float(arrays["gate.bias"][0]),
    )


def test_a_drawing_has_fewer_colors_and_flatter_areas_than_a_noisy_photograph() -> None:
    drawn, noisy = compute_pixel_statistics(draw_house()), compute_pixel_statistics(make_noise())
    colors, top, flat, soft = range(4)
    assert drawn[colors] < noisy[colors]
    assert drawn[top] > 0.95 > noisy[top]
    assert drawn[flat] > 0.9 > noisy[flat]
    assert drawn[soft] < 0.1 < noisy[soft]


@pytest.mark.parametrize("level", [0, 127, 255])
def test_statistics_of_plain_pictures_are_finite(level: int) -> None:
    result = compute_pixel_statistics(np.full((CLASSIFIER_SIZE_PX, CLASSIFIER_SIZE_PX, 3), level, np.uint8))
    assert (result.shape, result.dtype) == ((STATISTIC_COUNT,), np.dtype(np.float32))
    assert np.isfinite(result).all()
    assert result[-1] == 1  # it is grey


def test_statistics_of_white_with_one_pixel_are_finite() -> None:
    pixels = np.full((CLASSIFIER_SIZE_PX, CLASSIFIER_SIZE_PX, 3), 255, np.uint8)
    pixels[100, 100] = (255, 0, 0)
    result = compute_pixel_statistics(pixels)
    assert np.isfinite(result).all()
    assert (np.abs(result) <= 4).all()  # no share of hardly anything becomes large


def test_shares_are_fractions_and_the_image_is_unchanged() -> None:
    for pixels in (draw_house(), make_noise()):
        before = pixels.copy()
        assert ((compute_pixel_statistics(pixels)[1:] >= 0) & (compute_pixel_statistics(pixels)[1:] <= 1)).all()
        assert np.array_equal(pixels, before)


def test_probability_matches_the_regression() -> None:
    weights: Floats = np.linspace(0, 1, STATISTIC_COUNT).astype(np.float32)
    gate = DrawingGate(statistic_weights_S=weights, feature_weights_P=np.array([1.0, -2.0], np.float32), bias=0.5)
    pixels, features_P = draw_house(), np.array([0.3, 0.1], np.float32)
    logit = sum(float(w) * float(s) for w, s in zip(weights, compute_pixel_statistics(pixels), strict=True)) + 0.3 - 0.2 + 0.5
    assert gate.predict_probability(pixels, features_P) == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-6)


def test_drawings_differ_from_noisy_photographs(gate: DrawingGate, network: ImageNetwork) -> None:
    drawn, noisy = (
        gate.predict_probability(pixels, network.run_network(pixels[None]).features_BD[0])
        for pixels in (draw_house(), make_noise())
    )
    assert drawn > 0.9
    assert noisy < 0.3


def test_photographs_of_the_examples_are_not_drawn(gate: DrawingGate, network: ImageNetwork) -> None:
    blend = artifacts.read_mini_artifacts().blend
    for path in sorted((ROOT / "examples" / "photos").glob("*.jpg")):
        pixels_HWC = decode_image(path.read_bytes(), KIND.card.image_spec, DecodeLimits()).pixels_HWC
        small_BHWC = resize_square_pixels(pixels_HWC[None], CLASSIFIER_SIZE_PX)
        features_P = network.run_network(small_BHWC).features_BD[0]
        assert gate.predict_probability(small_BHWC[0], features_P) < blend.drawing_threshold, path.name


def test_gate_is_fitted_to_separate_two_classes(mini_gate: Any) -> None:  # noqa: ANN401
    rng = np.random.default_rng(1)
    counts = np.ones(60, np.float32)

    def make(shift: float) -> Any:  # noqa: ANN401
        statistics = rng.normal(size=(60, STATISTIC_COUNT)).astype(np.float32)
        statistics[:, 2] += shift
        return mini_gate.GateInputs(statistics, rng.normal(size=(60, 20)).astype(np.float32), counts)

    gate = mini_gate.fit_gate(make(3.0), make(0.0))
    weights = np.abs(gate.statistic_weights_S)
    assert gate.statistic_weights_S[2] == weights.max() > 3 * np.delete(weights, 2).max()
    assert gate.feature_weights_P.shape == (20,)
