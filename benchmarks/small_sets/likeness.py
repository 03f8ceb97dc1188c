"""Find pictures that look the same."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE_PX = 16
SAME_RMS = 9.0
"""RMS difference of two thumbnails, of 255, chosen by looking at pairs: below it, pairs are re-encoded or scaled copies, or
plain figures; above it, nearly all are different drawings."""
BLANK_RMS = 2.0
"""Smallest visible difference from white."""

Thumbs = NDArray[np.float32]


def make_thumb(data: bytes) -> NDArray[np.float32]:
    """Return the cropped picture on white as 16 x 16 RGB values in one row."""
    with Image.open(io.BytesIO(data)) as image:
        drawn = image.convert("RGBA")
    drawn = drawn.crop(drawn.getchannel("A").getbbox())
    ground = Image.new("RGBA", drawn.size, "white")
    small = Image.alpha_composite(ground, drawn).convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).reshape(-1)


def is_blank(data: bytes) -> bool:
    """Return whether the picture is invisible on white."""
    return bool(np.sqrt(((255 - make_thumb(data)) ** 2).mean()) < BLANK_RMS)


def compute_nearest_rms(thumbs_NK: Thumbs, others_MK: Thumbs, batch: int = 512) -> NDArray[np.float32]:
    """Return for each picture the root mean square difference to the most similar of the others."""
    squares_M = (others_MK**2).sum(axis=1)
    found = []
    for start in range(0, len(thumbs_NK), batch):
        part_BK = thumbs_NK[start : start + batch]
        squares_BM = (part_BK**2).sum(axis=1)[:, None] + squares_M - 2 * part_BK @ others_MK.T
        found.append(np.sqrt(np.maximum(squares_BM.min(axis=1), 0) / others_MK.shape[1]))
    return np.concatenate(found) if found else np.zeros(0, dtype=np.float32)


def find_copies(pictures: Sequence[bytes], others: Sequence[bytes]) -> list[bool]:
    """Return which of the pictures also are, at least nearly, among the others."""
    if not pictures or not others:
        return [False] * len(pictures)
    rms_N = compute_nearest_rms(
        np.stack([make_thumb(data) for data in pictures]), np.stack([make_thumb(data) for data in others])
    )
    return [bool(rms < SAME_RMS) for rms in rms_N]
