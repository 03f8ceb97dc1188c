"""CLIP's own preparation of an image: shorter side resized, middle cut out. Ours pads instead, so that nothing is lost.

Shape suffixes: H height, W width, C channel.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from stair_es.types import Pixels


def cropped(image: Image.Image, size_px: int) -> Pixels:
    """`pixels_HWC` as CLIP was trained on them, to compare published numbers with."""
    rgb = image.convert("RGB")
    short, long = min(rgb.size), max(rgb.size)
    longer = int(size_px * long / short)
    width, height = (size_px, longer) if rgb.width <= rgb.height else (longer, size_px)
    resized = rgb.resize((width, height), Image.Resampling.BICUBIC)
    left, upper = round((width - size_px) / 2), round((height - size_px) / 2)
    return np.asarray(resized.crop((left, upper, left + size_px, upper + size_px)))
