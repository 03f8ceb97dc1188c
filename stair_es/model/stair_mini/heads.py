"""The trained parts of stair-mini: the heads over both networks, the gate that decides how much they count, and the scenes.

The gate is a logistic regression over color statistics of the pixels and features of the classifier: drawings have few colors,
flat areas and hard edges. Scenes are such regressions over the features alone.

Shape suffixes: H height, W width, C channels, S statistics or scenes, P features of the classifier, L tokens of the text
network, D its states, T transform, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stair_es.model.networks.minilm import apply_gelu
from stair_es.model.stair.configuration import StairConfig
from stair_es.types import Floats, Pixels

Plane = NDArray[np.uint8]

STATISTIC_COUNT = 11
SCENE_FEATURE_LENGTH = 10.0
_MIN_WHITE = 250
_MIN_PIXELS = 50
"""Minimum number of non-white pixels that shares are computed with."""
_TOP_COLORS = 8
_ROW_STEP = 2
"""Every second row gives the same result in half the time."""
_EPSILON = 1e-5


class NumpyHeads:
    """The heads in numpy. They compute what those of `model.stair.heads` do in PyTorch."""

    def __init__(self, config: StairConfig, arrays: Mapping[str, Floats]) -> None:
        """Keep the tensors, by their names in a checkpoint."""
        self._config, self._arrays = config, arrays

    def apply_to_features(self, features_P: Floats) -> Floats:
        """Return the token weights [V] of an image."""
        return _apply_log1p_relu(self._apply_head("image", features_P), self._config.image.top_k)

    def apply_to_states(self, states_LD: Floats, word_indices_L: NDArray[np.int64]) -> Floats:
        """Return the token weights [V] of a text.

        Args:
            states_LD: States of the tokens, with the special ones.
            word_indices_L: Vocabulary index of each token that can represent the text, else -1.
        """
        arrays, logits_V = self._arrays, self._apply_head("text", states_LD.mean(axis=0))
        known_L = word_indices_L >= 0
        strength = (
            arrays["text.own_words.word_F"][word_indices_L[known_L]] + states_LD[known_L] @ arrays["text.own_words.state_D"]
        )
        own_V = np.zeros(len(logits_V), np.float32)
        np.maximum.at(own_V, word_indices_L[known_L], np.maximum(strength, 0))
        return _apply_log1p_relu(np.maximum(logits_V, 0) + own_V, self._config.text.top_k)

    def _apply_head(self, side: str, mean_D: Floats) -> Floats:
        """Return the logits [V] of a projection head."""
        arrays, name = self._arrays, f"{side}.head"
        hidden_T = apply_gelu(arrays[f"{name}.transform.0.weight"] @ mean_D + arrays[f"{name}.transform.0.bias"])
        centered_T = hidden_T - hidden_T.mean()
        hidden_T = centered_T / np.sqrt(np.square(centered_T).mean() + np.float32(_EPSILON))
        hidden_T = hidden_T * arrays[f"{name}.transform.2.weight"] + arrays[f"{name}.transform.2.bias"]
        logits_V: Floats = arrays[f"{name}.embedding_FT"] @ hidden_T + arrays[f"{name}.bias_F"]
        return logits_V


def _apply_log1p_relu(strength_V: Floats, top_k: int) -> Floats:
    weights_V: Floats = np.log1p(np.maximum(strength_V, 0)).astype(np.float32)
    kept_K = np.argpartition(-weights_V, top_k - 1)[:top_k]
    kept_V = np.zeros_like(weights_V)
    kept_V[kept_K] = weights_V[kept_K]
    return kept_V


@dataclass(frozen=True, kw_only=True)
class DrawingGate:
    """Weights of the regression."""

    statistic_weights_S: Floats
    feature_weights_P: Floats
    bias: float

    def predict_probability(self, pixels_HWC: Pixels, features_P: Floats) -> float:
        """Predict the probability that an image is a drawing.

        Args:
            pixels_HWC: Pixels on a white background, of the size that the classifier takes.
            features_P: Features of the classifier.
        """
        logit = float(self.statistic_weights_S @ compute_pixel_statistics(pixels_HWC)) + float(
            self.feature_weights_P @ features_P
        )
        return float(1 / (1 + np.exp(-(logit + self.bias))))


@dataclass(frozen=True, kw_only=True)
class SceneProbe:
    """A regression for each scene, such as sky or grass, over features of length `SCENE_FEATURE_LENGTH`."""

    feature_weights_SP: Floats
    biases_S: Floats

    def predict_probabilities(self, features_P: Floats) -> NDArray[np.float64]:
        """Predict the probability of each scene [S] in a photograph."""
        logits_S = self.feature_weights_SP @ scale_scene_features(features_P) + self.biases_S
        probabilities_S: NDArray[np.float64] = 1 / (1 + np.exp(-logits_S.astype(np.float64)))
        return probabilities_S


def scale_scene_features(features_P: Floats) -> Floats:
    """Scale the features of an image, [P] or [B, P], to the length that the scenes were trained with."""
    lengths = np.linalg.norm(features_P, axis=-1, keepdims=True)
    scaled: Floats = SCENE_FEATURE_LENGTH * features_P / np.maximum(lengths, _EPSILON)
    return scaled


def compute_pixel_statistics(pixels_HWC: Pixels) -> Floats:
    """Compute the statistics [S] of an image: colors, differences of neighbors in a row, fine structure and saturation."""
    red, green, blue = (np.ascontiguousarray(pixels_HWC[::_ROW_STEP, :, channel]) for channel in range(3))
    darkest, brightest = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    is_drawn = darkest < _MIN_WHITE
    drawn_count = max(_MIN_PIXELS, int(np.count_nonzero(is_drawn)))
    color_counts = np.sort(_count_colors(red, green, blue, is_drawn))
    steps = np.zeros((red.shape[0], red.shape[1] - 1), np.uint8)
    for plane in (red, green, blue):
        left, right = plane[:, :-1], plane[:, 1:]
        np.maximum(steps, np.maximum(left, right) - np.minimum(left, right), out=steps)
    gray = red.astype(np.int16) + green + blue
    structure = np.abs(2 * gray[:, 1:-1] - gray[:, :-2] - gray[:, 2:])
    saturation = brightest - darkest
    left_drawn, inner_drawn = is_drawn[:, :-1], is_drawn[:, 1:-1]
    return np.array(
        [
            np.log(len(color_counts) / np.sqrt(drawn_count) + 0.05),
            color_counts[-_TOP_COLORS:].sum() / drawn_count,
            _compute_share(steps <= 1, left_drawn),
            _compute_share((steps > 1) & (steps <= 12), left_drawn),
            _compute_share(steps > 60, left_drawn),
            _compute_share(structure <= 3, inner_drawn),
            _compute_share(structure <= 12, inner_drawn),
            _compute_share(structure > 60, inner_drawn),
            float(np.multiply(saturation, is_drawn).sum(dtype=np.int64)) / (255 * drawn_count),
            _compute_share(saturation > 200, is_drawn),
            (np.maximum(red, blue) - np.minimum(red, blue)).mean() < 6,
        ],
        np.float32,
    )


def _count_colors(red: Plane, green: Plane, blue: Plane, is_drawn: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the counts of those of 32,768 colors that occur."""
    color_ids = (red >> 3).astype(np.int64) << 10 | (green >> 3).astype(np.int64) << 5 | blue >> 3
    counts = np.bincount(color_ids[is_drawn], minlength=1)
    return counts[counts > 0]


def _compute_share(mask: NDArray[np.bool_], region: NDArray[np.bool_]) -> float:
    """Return the share of pixels in `region` for which `mask` holds, 0 to 1."""
    return float(np.count_nonzero(mask & region)) / max(1, int(np.count_nonzero(region)))
