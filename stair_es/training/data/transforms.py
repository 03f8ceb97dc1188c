"""Decode images and augment them: crop, flip, rotation, colors, background. Deterministic for a given random generator."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from stair_es.errors import ConfigError, DecodeError, UsageError
from stair_es.sources.image.decode import DecodeLimits, compute_contained_size, decode_image
from stair_es.types import ImageSpec, Pixels

_DRAWS = 14
_MAX_SCALE = 2.0
"""Maximum enlargement at which an image is decoded, so that a crop still has as many pixels as the encoder needs."""
_FRACTIONS = ("flip", "background")
_STRENGTHS = ("brightness", "contrast", "saturation")


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Strength of each augmentation. The defaults change nothing."""

    crop_area: float = 1.0
    """Smallest fraction of the image's area that a view shows; 1 for the whole image."""
    crop_ratio: float = 1.0
    """Largest factor by which a view's aspect ratio may differ from the image's; 1 for no change."""
    flip: float = 0.0
    """Fraction of views that are mirrored. Use 0 if captions mention left and right, or images contain text."""
    rotation_deg: float = 0.0
    """Largest angle in either direction."""
    brightness: float = 0.0
    """Largest change in either direction: 0.2 for a factor between 0.8 and 1.2."""
    contrast: float = 0.0
    saturation: float = 0.0
    background: float = 0.0
    """Fraction of views with a random color, instead of the encoder's, behind transparent parts and around the image."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            low, high = _get_range(field.name)
            if not isinstance(value, (int, float)) or not low <= value <= high:
                raise UsageError(
                    f"augmentation: {field.name} is {value!r}",
                    f"Give a number from {low:g} to {high:g}; {field.default:g} for none.",
                    code="invalid-augmentation",
                )


def _get_range(name: str) -> tuple[float, float]:
    if name in _FRACTIONS:
        return 0.0, 1.0
    if name in _STRENGTHS:
        return 0.0, 0.9
    return {"crop_area": (0.05, 1.0), "crop_ratio": (1.0, 4.0), "rotation_deg": (0.0, 45.0)}[name]


NO_AUGMENTATION = Augmentation()
AUGMENTATION_PRESETS = {
    "none": NO_AUGMENTATION,
    "light": Augmentation(crop_area=0.7, crop_ratio=1.15, flip=0.5, brightness=0.1, contrast=0.1, saturation=0.1),
    "strong": Augmentation(
        **{"crop_area": 0.35, "crop_ratio": 1.33, "flip": 0.5, "rotation_deg": 10.0, "background": 0.5},
        **dict.fromkeys(_STRENGTHS, 0.3),
    ),
}
"""Presets by the name used in a configuration. There is no hue change because captions name colors."""


def get_augmentation(name: str) -> Augmentation:
    """Return the augmentation preset of a name.

    Raises:
        UsageError: If there is no such preset.
    """
    if name not in AUGMENTATION_PRESETS:
        raise ConfigError(f"unknown augmentation preset {name!r}", f"Known presets: {', '.join(AUGMENTATION_PRESETS)}.")
    return AUGMENTATION_PRESETS[name]


def augment_image(
    data: bytes, spec: ImageSpec, augmentation: Augmentation, rng: np.random.Generator, limits: DecodeLimits | None = None
) -> Pixels:
    """Return one augmented view on a square, as `decode` returns it (`pixels_HWC`); for the preset `none` exactly that.

    The number of random draws doesn't depend on image or augmentation, so that changing one image leaves the views of the others
    unchanged.

    Args:
        data: Bytes of the image file.
        spec: Pixels that the encoder expects.
        augmentation: Strength of the augmentation.
        rng: Random generator; the same state gives the same view.
        limits: Limits for decoding.

    Raises:
        DecodeError: If the image can't be decoded or augmented; the message says why.
    """
    draws = _RandomDraws(rng.random(_DRAWS), augmentation)
    background = draws.background if draws.background is not None else spec.background
    if augmentation == NO_AUGMENTATION:
        return decode_image(data, spec, limits or DecodeLimits()).pixels_HWC
    scale = min(_MAX_SCALE, 1 / math.sqrt(augmentation.crop_area))
    decoded = decode_image(
        data, ImageSpec(size_px=math.ceil(spec.size_px * scale), background=background), limits or DecodeLimits()
    )
    try:
        image = Image.fromarray(decoded.pixels_HWC).crop(decoded.box)
        if augmentation.rotation_deg:
            image = image.rotate(draws.angle_deg, Image.Resampling.BICUBIC, expand=True, fillcolor=background)
        box = draws.compute_crop(*image.size)
        size = compute_contained_size(box[2] - box[0], box[3] - box[1], spec.size_px, spec.fit)
        view = image.resize(size, Image.Resampling.BICUBIC, box, reducing_gap=3.0)
        if draws.mirrored:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        square = _pad_to_square(view, spec.size_px, background)
        return np.asarray(draws.adjust_colors(square))  # including the padding: a visible edge would be a cue
    except (ValueError, OSError, MemoryError) as error:
        raise DecodeError(f"can't be augmented: {type(error).__name__}: {error}", code="augmentation-failed") from error


class _RandomDraws:
    """Random values of one view. `values` are uniform in 0..1."""

    def __init__(self, values: NDArray[np.float64], augmentation: Augmentation) -> None:
        self._uniform, self._augmentation = [float(value) for value in values], augmentation
        uniform = self._uniform
        self.mirrored = uniform[0] < augmentation.flip
        self.angle_deg = (2 * uniform[1] - 1) * augmentation.rotation_deg
        color = (int(256 * uniform[3]), int(256 * uniform[4]), int(256 * uniform[5]))
        self.background = color if uniform[2] < augmentation.background else None

    def compute_crop(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return the part of an image that is shown: left, upper, right, lower."""
        uniform, augmentation = self._uniform, self._augmentation
        area = augmentation.crop_area + (1 - augmentation.crop_area) * uniform[6]
        ratio = math.sqrt(augmentation.crop_ratio ** (2 * uniform[7] - 1))  # wider by this factor, and lower
        wide, high = min(1.0, math.sqrt(area) * ratio), min(1.0, math.sqrt(area) / ratio)
        shown_w, shown_h = max(1.0, wide * width), max(1.0, high * height)
        left, upper = uniform[8] * (width - shown_w), uniform[9] * (height - shown_h)
        return left, upper, left + shown_w, upper + shown_h

    def adjust_colors(self, view: Image.Image) -> Image.Image:
        """Return the view with its brightness, contrast and saturation changed."""
        augmentation = self._augmentation
        changes = (
            (ImageEnhance.Brightness, augmentation.brightness),
            (ImageEnhance.Contrast, augmentation.contrast),
            (ImageEnhance.Color, augmentation.saturation),
        )
        for (enhance, strength), value in zip(changes, self._uniform[10:13], strict=True):
            if strength:
                view = enhance(view).enhance(1 + strength * (2 * value - 1))
        return view


def _pad_to_square(view: Image.Image, side_px: int, background: tuple[int, int, int]) -> Image.Image:
    square = Image.new("RGB", (side_px, side_px), background)
    square.paste(view, ((side_px - view.width) // 2, (side_px - view.height) // 2))
    return square
