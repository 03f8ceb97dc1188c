"""Train what stair-mini learns from labeled photographs: the gate, which detects drawings, and the scenes.

For the gate, photographs are used as a whole, in parts, and cut out on white as in shops and on stamps. Shape suffixes:
N pictures, H height, W width, C channels, S statistics of pixels or scenes, P features of the image network, Q components of
these.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mini_photos import LabeledPhoto
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from stair_es.model.networks.image_networks import CLASSIFIER_SIZE_PX, ImageNetwork
from stair_es.model.stair_mini.encoder import resize_square_pixels
from stair_es.model.stair_mini.heads import (
    STATISTIC_COUNT,
    DrawingGate,
    SceneProbe,
    compute_pixel_statistics,
    scale_scene_features,
)
from stair_es.model.stair_mini.plugin import KIND
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import Floats, Pixels

PARTS, CUT_OUTS, TOOLS = 1, 2, 2
"""Number of parts, of cut-out things and of cut-out tools that are made of each photograph."""
WHOLE_COUNTS = 3.0
"""Weight of a whole photograph; a part has 1."""
COMPONENTS = 8
"""Principal components of the features: with more, photographs unlike those of the training are taken for drawings."""
PENALTY, SCENE_PENALTY = 10.0, 0.005
_CUT_OUT_PX = 400
_STEPS = 100


class GateInputs(NamedTuple):
    """Inputs of the gate for several pictures."""

    statistics_NS: Floats
    features_NP: Floats
    counts_N: Floats
    """Weight of each picture."""


def prepare_pictures(images: Iterable[Image.Image]) -> Pixels:
    """Return the pixels of images as the encoder receives them, `pixels_NHWC`."""
    return np.stack([_prepare(image) for image in images])


def vary_photos(photos: Sequence[Image.Image]) -> tuple[Pixels, Floats]:
    """Return pictures made of photographs (`pixels_NHWC`) and their weights; the same ones on each call."""
    rng = np.random.default_rng(0)
    made, counts = [], []
    for photo in photos:
        made += [_prepare(photo)]
        made += [_prepare(_cut_part(photo, rng)) for _ in range(PARTS)]
        made += [_prepare(_cut_out(_cut_part(photo, rng), rng)) for _ in range(CUT_OUTS)]
        made += [_prepare(_cut_out_tool(_smooth_part(_cut_part(photo, rng), rng), rng)) for _ in range(TOOLS)]
        counts += [WHOLE_COUNTS, *[1.0] * (PARTS + CUT_OUTS + TOOLS)]
    return np.stack(made), np.array(counts, np.float32)


def _prepare(image: Image.Image) -> Pixels:
    """Return the pixels of an image as the encoder receives them."""
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=1)
    return decode_image(data.getvalue(), KIND.card.image_spec, DecodeLimits()).pixels_HWC


def _cut_part(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    share = rng.uniform(0.35, 0.9)
    width, height = int(image.width * share), min(image.height, int(image.height * share * rng.uniform(0.8, 1.2)))
    left, upper = int(rng.integers(0, image.width - width + 1)), int(rng.integers(0, image.height - height + 1))
    return image.crop((left, upper, left + width, upper + height))


def _cut_out(part: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return the inside of a random polygon on white."""
    part.thumbnail((_CUT_OUT_PX, _CUT_OUT_PX))
    corners = int(rng.integers(6, 14))
    angles, reach = np.sort(rng.uniform(0, 2 * np.pi, corners)), rng.uniform(0.55, 1, corners)
    outline = [
        (part.width / 2 * (1 + far * np.cos(angle)), part.height / 2 * (1 + far * np.sin(angle)))
        for angle, far in zip(angles, reach, strict=True)
    ]
    mask = Image.new("L", part.size, 0)
    ImageDraw.Draw(mask).polygon(outline, fill=255)
    return _put_on_white(part, mask)


def _cut_out_tool(part: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return a bar with a head, as of a tool, at a random angle on white."""
    part = part.resize((_CUT_OUT_PX, _CUT_OUT_PX))
    mask = Image.new("L", part.size, 0)
    draw, middle = ImageDraw.Draw(mask), _CUT_OUT_PX / 2
    thickness, head_px = rng.uniform(0.03, 0.12, 2) * _CUT_OUT_PX, rng.uniform(0.08, 0.3) * _CUT_OUT_PX
    draw.rounded_rectangle((20, middle - thickness[0], _CUT_OUT_PX - 20, middle + thickness[0]), thickness[0], fill=255)
    (draw.ellipse, draw.rectangle)[int(rng.integers(2))](
        (20, middle - head_px, 20 + 2 * thickness[1], middle + head_px), fill=255
    )
    return _put_on_white(part, mask.rotate(float(rng.uniform(0, 360))))


def _smooth_part(part: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return the part with less structure and color, like metal, plastic or wood in even light."""
    smooth = part.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 8))))
    return ImageEnhance.Color(smooth).enhance(float(rng.uniform(0, 1.2)))


def _put_on_white(part: Image.Image, mask: Image.Image) -> Image.Image:
    on_white = Image.new("RGB", part.size, "white")
    on_white.paste(part, (0, 0), mask.filter(ImageFilter.GaussianBlur(1)))
    return on_white


def read_drawings(paths: Sequence[Path]) -> Iterator[Pixels]:
    """Yield the pixels of each picture as the encoder receives them."""
    for path in paths:
        yield decode_image(path.read_bytes(), KIND.card.image_spec, DecodeLimits()).pixels_HWC


def describe_pictures(pixels_NHWC: Sequence[Pixels] | Pixels, counts_N: Floats, network: ImageNetwork) -> GateInputs:
    """Return the inputs of the gate for pictures."""
    statistics, features = [], []
    for pixels_HWC in pixels_NHWC:
        small_BHWC = resize_square_pixels(pixels_HWC[None], CLASSIFIER_SIZE_PX)
        statistics.append(compute_pixel_statistics(small_BHWC[0]))
        features.append(network.run_network(small_BHWC).features_BD[0])
    return GateInputs(np.stack(statistics), np.stack(features), counts_N)


def fit_gate(drawings: GateInputs, photos: GateInputs) -> DrawingGate:
    """Return the gate: a penalized logistic regression with equal weight for both kinds, fitted by Newton's method."""
    features_NP = np.concatenate([drawings.features_NP, photos.features_NP]).astype(np.float64)
    mean_P = features_NP.mean(axis=0)
    components_QP = np.linalg.svd(features_NP - mean_P, full_matrices=False)[2][:COMPONENTS]
    statistics_NS = np.concatenate([drawings.statistics_NS, photos.statistics_NS]).astype(np.float64)
    inputs_N = np.hstack([statistics_NS, (features_NP - mean_P) @ components_QP.T])
    mean, deviation = inputs_N.mean(axis=0), inputs_N.std(axis=0) + 1e-9
    counts_N = np.concatenate([each.counts_N / each.counts_N.sum() * 500 for each in (drawings, photos)]).astype(np.float64)
    is_drawn_N = np.repeat([1.0, 0.0], [len(drawings.counts_N), len(photos.counts_N)])
    weights, bias = _fit_regression((inputs_N - mean) / deviation, is_drawn_N, counts_N, PENALTY)
    scaled = weights / deviation
    feature_weights_P = scaled[STATISTIC_COUNT:] @ components_QP
    return DrawingGate(
        statistic_weights_S=scaled[:STATISTIC_COUNT].astype(np.float32),
        feature_weights_P=feature_weights_P.astype(np.float32),
        bias=float(bias - scaled @ mean - feature_weights_P @ mean_P),
    )


def fit_scenes(photos: Sequence[LabeledPhoto], features_NP: Floats, scenes: Sequence[str]) -> SceneProbe:
    """Return the scenes: a penalized logistic regression for each, over the features of labeled pictures.

    A picture with the scene counts `sqrt(N / 2n)` times, `n` being their number: otherwise rare scenes are hardly ever found.
    """
    inputs_NP = scale_scene_features(features_NP).astype(np.float64)
    fitted = []
    for scene in scenes:
        has_scene_N = np.array([scene in photo.words for photo in photos], np.float64)
        counts_N = np.where(has_scene_N, np.sqrt(len(photos) / (2 * has_scene_N.sum())), 1.0)
        fitted.append(_fit_regression(inputs_NP, has_scene_N, counts_N / counts_N.sum(), SCENE_PENALTY))
    weights, biases = zip(*fitted, strict=True)
    return SceneProbe(feature_weights_SP=np.stack(weights).astype(np.float32), biases_S=np.array(biases, np.float32))


def _fit_regression(
    inputs: NDArray[np.float64], labels: NDArray[np.float64], counts: NDArray[np.float64], penalty_factor: float
) -> tuple[NDArray[np.float64], float]:
    """Return the weights and the bias of a logistic regression: the least of `sum(counts * loss) + factor / 2 |weights|^2`."""
    rows = np.hstack([inputs, np.ones((len(inputs), 1))])
    penalty = np.diag([penalty_factor] * inputs.shape[1] + [0.0])
    found = np.zeros(rows.shape[1])
    for _ in range(_STEPS):
        predicted = 1 / (1 + np.exp(-np.clip(rows @ found, -30, 30)))
        gradient = rows.T @ (counts * (predicted - labels)) + penalty @ found
        hessian = (rows.T * (counts * predicted * (1 - predicted))) @ rows + penalty + 1e-9 * np.eye(len(found))
        step = np.linalg.solve(hessian, gradient)
        found -= step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-9:
            break
    return found[:-1], float(found[-1])
