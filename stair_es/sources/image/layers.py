"""Convert images of any mode to 8-bit RGB or RGBA, strip by strip, so that nothing large is held except input and output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image as PilImage

_STRIP_PX = 1 << 20
"""Pixels converted per strip."""


def replace_image(old: PilImage, new: PilImage) -> PilImage:
    """Return the new image and free the pixels of the old one."""
    if new is not old:
        old.close()
    return new


def _split_into_strips(image: PilImage, factor: int = 1) -> Iterator[tuple[int, PilImage]]:
    """Yield strips of the image, each with its upper edge; heights except the last one's are multiples of `factor`."""
    rows = max(1, _STRIP_PX // image.width // factor) * factor
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def convert_to_layer(image: PilImage, factor: int) -> PilImage:
    """Convert to 8-bit RGB, or RGBA if there is transparency. The given image is closed unless it is returned.

    A transparent image may shrink by `factor`, so that a large one is not copied at full size.
    """
    if image.mode.startswith("I") or image.mode == "F":
        image = replace_image(image, _convert_to_8_bit(image))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        if image.mode == "RGBA" and factor == 1:
            return image
        layer = Image.new("RGBA", (-(-image.width // factor), -(-image.height // factor)))
        for top, strip in _split_into_strips(image, factor):
            whole = strip.convert("RGBA")
            layer.paste(whole.reduce(factor) if factor > 1 else whole, (0, top // factor))
        return replace_image(image, layer)
    return image if image.mode == "RGB" else replace_image(image, image.convert("RGB"))


def flatten_layer(layer: PilImage, background: tuple[int, int, int]) -> PilImage:
    """Return the layer as RGB, composited on the background."""
    if layer.mode == "RGB":
        return layer
    flat = Image.new("RGB", layer.size)
    for top, strip in _split_into_strips(layer):
        base = Image.new("RGBA", strip.size, (*background, 255))
        base.alpha_composite(strip)
        flat.paste(base.convert("RGB"), (0, top))
    return replace_image(layer, flat)


def _convert_to_8_bit(image: PilImage) -> PilImage:
    """Convert 16-bit, 32-bit and float grayscale: Pillow's own conversion would clip them to white."""
    low, scale = 0.0, 1.0
    if image.mode == "F":
        ranges = [
            (values.min(), values.max()) for values in map(_convert_to_float, (strip for _, strip in _split_into_strips(image)))
        ]
        low, high = float(min(low for low, _ in ranges)), float(max(high for _, high in ranges))
        scale = 255.0 / (high - low) if high > low else 0.0
    elif max(int(np.asarray(strip).max(initial=0)) for _, strip in _split_into_strips(image)) > 255:
        scale = 1 / 256
    gray = Image.new("L", image.size)
    for top, strip in _split_into_strips(image):
        values = np.clip((_convert_to_float(strip) - low) * scale, 0, 255)
        gray.paste(Image.fromarray(values.astype(np.uint8)), (0, top))
    return gray


def _convert_to_float(strip: PilImage) -> NDArray[np.float64]:
    """Return the values as floats whose differences are finite; NaN and infinity become 0."""
    return np.nan_to_num(np.asarray(strip).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
