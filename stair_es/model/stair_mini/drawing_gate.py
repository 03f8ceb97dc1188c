"""Detect drawings: a logistic regression over color statistics of the pixels and features of the classifier.

Drawings have few colors, flat areas and hard edges. Shape suffixes: H height, W width, C channels, S statistics, P features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stair_es.types import Floats, Pixels

Plane = NDArray[np.uint8]

STATISTIC_COUNT = 11
_MIN_WHITE = 250
_MIN_PIXELS = 50
"""Minimum number of non-white pixels that shares are computed with."""
_TOP_COLOURS = 8
_ROW_STEP = 2
"""Every second row gives the same result in half the time."""


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


def compute_pixel_statistics(pixels_HWC: Pixels) -> Floats:
    """Compute the statistics [S] of an image: colors, differences of neighbors in a row, fine structure and saturation."""
    red, green, blue = (np.ascontiguousarray(pixels_HWC[::_ROW_STEP, :, channel]) for channel in range(3))
    darkest, brightest = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    is_drawn = darkest < _MIN_WHITE
    drawn = max(_MIN_PIXELS, int(np.count_nonzero(is_drawn)))
    colours = np.sort(_count_colours(red, green, blue, is_drawn))
    steps = np.zeros((red.shape[0], red.shape[1] - 1), np.uint8)
    for plane in (red, green, blue):
        here, beside = plane[:, :-1], plane[:, 1:]
        np.maximum(steps, np.maximum(here, beside) - np.minimum(here, beside), out=steps)
    grey = red.astype(np.int16) + green + blue
    structure = np.abs(2 * grey[:, 1:-1] - grey[:, :-2] - grey[:, 2:])
    saturation = brightest - darkest
    beside_drawn, inner_drawn = is_drawn[:, :-1], is_drawn[:, 1:-1]
    return np.array(
        [
            np.log(len(colours) / np.sqrt(drawn) + 0.05),
            colours[-_TOP_COLOURS:].sum() / drawn,
            _compute_share(steps <= 1, beside_drawn),
            _compute_share((steps > 1) & (steps <= 12), beside_drawn),
            _compute_share(steps > 60, beside_drawn),
            _compute_share(structure <= 3, inner_drawn),
            _compute_share(structure <= 12, inner_drawn),
            _compute_share(structure > 60, inner_drawn),
            float(np.multiply(saturation, is_drawn).sum(dtype=np.int64)) / (255 * drawn),
            _compute_share(saturation > 200, is_drawn),
            (np.maximum(red, blue) - np.minimum(red, blue)).mean() < 6,
        ],
        np.float32,
    )


def _count_colours(red: Plane, green: Plane, blue: Plane, is_drawn: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the counts of those of 32,768 colors that occur."""
    fives = (red >> 3).astype(np.int64) << 10 | (green >> 3).astype(np.int64) << 5 | blue >> 3
    counts = np.bincount(fives[is_drawn], minlength=1)
    return counts[counts > 0]


def _compute_share(is_so: NDArray[np.bool_], among: NDArray[np.bool_]) -> float:
    """Return the share of pixels in `among` for which `is_so` holds, 0 to 1."""
    return float(np.count_nonzero(is_so & among)) / max(1, int(np.count_nonzero(among)))
