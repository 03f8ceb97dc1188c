"""Normalize pixels on the device of a network: images are sent to it as bytes, a quarter of the size of floats.

Shape suffixes: B batch, H height, W width, C channel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from stair_es.types import Pixels

_TOLERANCE = 1e-4


class PixelNormalizer:
    """A scale and an offset of each channel, on a device."""

    def __init__(self, scale_C: Tensor, offset_C: Tensor, device: str, dtype: torch.dtype) -> None:
        self._scale_C, self._offset_C, self._dtype = scale_C.to(device), offset_C.to(device), dtype

    @classmethod
    def from_mean(cls, mean: Sequence[float], std: Sequence[float], device: str, dtype: torch.dtype) -> PixelNormalizer:
        """Return the normalizer of `(pixels / 255 - mean) / std`."""
        std_C = torch.tensor(std)
        return cls(1 / (255 * std_C), -torch.tensor(mean) / std_C, device, dtype)

    def normalize(self, pixels_BHWC: Tensor) -> Tensor:
        """Return pixels of 0..255 as the input [B, C, H, W] of the network."""
        return (pixels_BHWC.float() * self._scale_C + self._offset_C).permute(0, 3, 1, 2).to(self._dtype)


def measure_normalization(process: Callable[[Pixels], Tensor], size_px: int) -> tuple[Tensor, Tensor] | None:
    """Return the scale and the offset of each channel that a preprocessing applies to pixels; None if it does anything else.

    Black and white give both, and noise shows whether they are all.

    Args:
        process: Preprocesses images [B, H, W, C] to [B, C, H, W].
        size_px: Side of the images.
    """
    pixels_BHWC = np.random.default_rng(0).integers(0, 256, (3, size_px, size_px, 3), np.uint8)
    pixels_BHWC[0], pixels_BHWC[1] = 0, 255
    processed = process(pixels_BHWC)
    if processed.shape != (3, 3, size_px, size_px):
        return None
    offset_C = processed[0, :, 0, 0]
    scale_C = (processed[1, :, 0, 0] - offset_C) / 255
    expected = PixelNormalizer(scale_C, offset_C, "cpu", torch.float32).normalize(torch.from_numpy(pixels_BHWC))
    return (scale_C, offset_C) if torch.allclose(processed.float(), expected, atol=_TOLERANCE) else None
