"""Name the colors of a picture, dominant first. Pure: depends on the pixels only, not on a model.

Each pixel of a small copy gets one of twelve names by its position in OKLCh (lightness, chroma and hue of the OKLab space), and a
weight: pixels that differ from the picture's border count fully, and up to 1.5 times if they are vivid; pixels similar to the
border count as background, and a background in a neutral color (black, white, gray, brown, beige) counts least. The
center counts more than the corners.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image as PilImage

    Numbers: TypeAlias = NDArray[np.float32]

COLOR_NAMES = ("black", "white", "gray", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "beige")

MIN_SHARE = 0.1
"""Minimum share of the weight for a color to be included."""
MAX_COLORS = 4

_SIDE_PX = 32
_SAMPLED_PX = 256
"""A picture with more than twice the pixels of a square of this side is subsampled to it first, which is cheap."""
_RIM_PX = 2
_RIM_STEP = 7
"""Every n-th pixel of the border is sampled."""
_LEVELS = 32
"""Quantization levels of each RGB channel."""

_WIDTH = 0.8
"""Standard deviation of the Gaussian around the center, in half sides."""
_DIFFERENT = 25.0
"""Distance from the border in OKLab x 100 at which a pixel counts fully."""
_VIVID = 20.0
"""Chroma at which a pixel that differs from the border counts 1.5 times."""
_BACKGROUND = 0.5
"""Weight of a pixel that is similar to the border."""
_PLAIN_BACKGROUND = 0.125
"""The same for neutral colors."""
_PLAIN = frozenset({"black", "white", "gray", "brown", "beige"})

_ANY = 999.0


class _Rule(NamedTuple):
    """A name and the half-open ranges that it applies to."""

    name: str
    hue: tuple[float, float] = (0, 360)
    """Hue in degrees: red is at 29, yellow at 110, green at 142, blue at 264."""
    lightness: tuple[float, float] = (0, _ANY)
    """0 to 100."""
    chroma: tuple[float, float] = (0, _ANY)
    """0 to about 32."""


_RULES = (
    _Rule("black", lightness=(0, 14)),
    _Rule("black", lightness=(14, 25), chroma=(0, 5)),
    _Rule("black", lightness=(25, 31), chroma=(0, 3)),
    _Rule("white", lightness=(90, _ANY), chroma=(0, 4.5)),
    _Rule("white", lightness=(83, 90), chroma=(0, 4)),
    _Rule("gray", chroma=(0, 2.5)),
    _Rule("gray", hue=(0, 30), chroma=(0, 4)),
    _Rule("gray", hue=(30, 100), lightness=(0, 67), chroma=(0, 3.5)),
    _Rule("gray", hue=(100, 180), chroma=(0, 4)),
    _Rule("gray", hue=(180, 290), chroma=(0, 3.2)),
    _Rule("gray", hue=(290, 360), chroma=(0, 5)),
    _Rule("beige", hue=(30, 112), lightness=(67, _ANY), chroma=(0, 9.5)),
    _Rule("brown", hue=(20, 75), lightness=(0, 70), chroma=(0, 9.5)),
    _Rule("brown", hue=(75, 100), lightness=(0, 67), chroma=(0, 9.5)),
    _Rule("brown", hue=(27, 50), lightness=(0, 55), chroma=(9.5, 13.5)),
    _Rule("brown", hue=(45, 50), lightness=(0, 56)),
    _Rule("brown", hue=(50, 75), lightness=(0, 62)),
    _Rule("brown", hue=(75, 96), lightness=(0, 66)),
    _Rule("brown", hue=(96, 105), lightness=(0, 55)),
    _Rule("green", hue=(103, 112), lightness=(0, 62)),
    _Rule("yellow", hue=(75, 112)),
    _Rule("yellow", hue=(112, 118), lightness=(72, _ANY)),
    _Rule("yellow", hue=(118, 123), lightness=(90, _ANY)),
    _Rule("orange", hue=(35, 75), lightness=(56, _ANY)),
    _Rule("pink", hue=(0, 12), lightness=(50, _ANY)),
    _Rule("pink", hue=(12, 33), lightness=(67, _ANY), chroma=(0, 20)),
    _Rule("red", hue=(0, 45)),
    _Rule("green", hue=(112, 172)),
    _Rule("blue", hue=(172, 297)),
    _Rule("pink", hue=(320, 345), lightness=(66, _ANY), chroma=(13, _ANY)),
    _Rule("purple", hue=(297, 345)),
    _Rule("purple", hue=(345, 360), lightness=(0, 48)),
    _Rule("pink", hue=(345, 360)),
)
"""The first rule that matches gives the name. Set by hand after common color naming, and checked on photographs."""


def name_colors(picture: PilImage) -> tuple[str, ...]:
    """Return the names of the picture's colors, dominant first: at most `MAX_COLORS`, each with at least `MIN_SHARE`.

    Transparent pixels of RGBA have no color.
    """
    shares = measure_colors(picture)
    heaviest = sorted(shares, key=lambda name: -shares[name])[:MAX_COLORS]
    return tuple(name for name in heaviest if shares[name] >= MIN_SHARE)


def measure_colors(picture: PilImage) -> dict[str, float]:
    """Return the share of the weight for each of `COLOR_NAMES`. The shares sum to 1, or are all 0 if nothing is visible."""
    levels_NC = _resize_pixels(picture)
    seen_N: Numbers = np.ones(len(levels_NC), np.float32)
    if levels_NC.shape[1] == 4:
        seen_N = levels_NC[:, 3].astype(np.float32) / np.float32(255)
    red, green, blue = (levels_NC[:, :3].astype(np.intp) // (256 // _LEVELS)).T
    cells_N = (red * _LEVELS + green) * _LEVELS + blue
    names_P, oklab_P3 = _build_tables()
    names_N, oklab_N3 = names_P[cells_N], oklab_P3[cells_N]
    differs_N = _measure_differences(oklab_N3, seen_N)
    vivid_N = np.minimum(np.hypot(oklab_N3[:, 1], oklab_N3[:, 2]) / np.float32(_VIVID), 1)
    weights_N = _MIDDLE_N * seen_N * (differs_N * (1 + vivid_N / 2) + (1 - differs_N) * _BACKGROUNDS[names_N])
    sums = np.bincount(names_N, weights_N, len(COLOR_NAMES))
    total = float(sums.sum())
    return {name: float(weight) / total if total else 0.0 for name, weight in zip(COLOR_NAMES, sums, strict=True)}


def _resize_pixels(picture: PilImage) -> NDArray[np.uint8]:
    """Return the pixels of the small copy (`levels_NC`), with three or four channels."""
    if picture.width * picture.height > 2 * _SAMPLED_PX**2:
        picture = picture.resize((_SAMPLED_PX, _SAMPLED_PX), Image.Resampling.NEAREST)
    small = picture.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BOX)
    return np.asarray(small).reshape(_SIDE_PX * _SIDE_PX, -1)


def _measure_differences(oklab_N3: Numbers, seen_N: Numbers) -> Numbers:
    """Return how much each pixel differs from the most similar sixth of the border: 0 for not at all, 1 for clearly.

    A mostly transparent border is not a background: everything visible differs from it.
    """
    rim = _RIM[seen_N[_RIM] > 0.5]
    if 2 * len(rim) < len(_RIM):
        return np.ones(len(oklab_N3), np.float32)
    squares_NR = sum(np.square(channel[:, None] - channel[None, rim]) for channel in oklab_N3.T)
    nearest = max(1, len(rim) // 6)
    distances_NR = np.sqrt(np.partition(squares_NR, nearest - 1, axis=1)[:, :nearest])
    differs_N: Numbers = np.minimum(distances_NR.mean(axis=1) / np.float32(_DIFFERENT), 1)
    return differs_N


@functools.cache
def _build_tables() -> tuple[NDArray[np.uint8], Numbers]:
    """Return the name (as index) and the OKLab x 100 of each cell of the RGB cube; computed once, in about 20 ms."""
    cells_P3 = np.indices((_LEVELS,) * 3).reshape(3, -1).T.astype(np.float64)
    oklab_P3 = _convert_to_oklab((cells_P3 + 0.5) * (256 / _LEVELS) - 0.5)
    lightness_P, a_P, b_P = oklab_P3.T
    chroma_P, hue_P = np.hypot(a_P, b_P), np.degrees(np.arctan2(b_P, a_P)) % 360
    measured = (hue_P, lightness_P, chroma_P)
    holds = [
        np.all([(low <= values) & (values < high) for values, (low, high) in zip(measured, rule[1:], strict=True)], axis=0)
        for rule in _RULES
    ]
    names_P = np.select(holds, [COLOR_NAMES.index(rule.name) for rule in _RULES])
    return names_P.astype(np.uint8), oklab_P3.astype(np.float32)


def _convert_to_oklab(rgb_P3: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return OKLab x 100 of sRGB from 0 to 255, by the definition of the space (Björn Ottosson, 2020)."""
    levels = rgb_P3 / 255
    linear = np.where(levels > 0.04045, ((levels + 0.055) / 1.055) ** 2.4, levels / 12.92)
    cones = (
        (0.4122214708, 0.5363325363, 0.0514459929),
        (0.2119034982, 0.6806995451, 0.1073969566),
        (0.0883024619, 0.2817188376, 0.6299787005),
    )
    axes = (
        (0.2104542553, 0.7936177850, -0.0040720468),
        (1.9779984951, -2.4285922050, 0.4505937099),
        (0.0259040371, 0.7827717662, -0.8086757660),
    )
    oklab: NDArray[np.float64] = 100 * np.cbrt(linear @ np.array(cones).T) @ np.array(axes).T
    return oklab


def _build_center_weights() -> Numbers:
    across = (np.arange(_SIDE_PX) + 0.5) / _SIDE_PX * 2 - 1
    bell = np.exp(-(across[:, None] ** 2 + across[None] ** 2) / (2 * _WIDTH**2))
    return bell.ravel().astype(np.float32)


def _find_rim() -> NDArray[np.intp]:
    rim = np.ones((_SIDE_PX, _SIDE_PX), bool)
    rim[_RIM_PX:-_RIM_PX, _RIM_PX:-_RIM_PX] = False
    return np.flatnonzero(rim)[::_RIM_STEP]


_MIDDLE_N, _RIM = _build_center_weights(), _find_rim()
_BACKGROUNDS = np.array([_PLAIN_BACKGROUND if name in _PLAIN else _BACKGROUND for name in COLOR_NAMES], np.float32)
