"""NanoDet-g without box regression: which of the 80 classes of COCO an image shows. Defined once for all backends.

Source: RangiLyu, "NanoDet" (Apache-2.0), the variant for GPUs: a cross stage partial backbone, a path aggregation network,
and a head per level. Of the head, only the class scores are kept, and of each class the maximum over all positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from stair_es.types import Floats

NANODET_SIZE_PX = 288
"""Side of the square that an image is resized to, without keeping its aspect ratio."""
COCO_CLASS_COUNT = 80
CONVOLUTION_COUNT = 34
NANODET_MEAN = (123.675, 116.28, 103.53)
NANODET_STD = (58.395, 57.12, 57.375)
"""Mean and standard deviation of red, green and blue, in the channel order of the first kernel."""
LEAKY_RELU_SLOPE = 0.1
"""Slope of the leaky ReLU below zero."""
_STAGES = ((1, 1, 1), (5, 2, 2), (11, 2, 2), (17, 2, 3))
"""(first convolution, its stride, residual blocks) of each stage of the backbone."""
_LATERALS = (25, 26, 27)
_HEADS = (28, 30, 32)
"""The first of the two convolutions of each level, finest level first."""

T = TypeVar("T")


class Convolution(NamedTuple):
    """Kernel and bias of a convolution with "same" padding."""

    kernel: Floats
    """[out, in, side, side], side 1 or 3."""
    bias: Floats
    """[out]."""


class Operations(Protocol[T]):
    """The operations of a backend; `T` are its feature maps, channels first."""

    def normalize_pixels(self, pixels_BHWC: T) -> T:
        """Normalize pixels: subtract the mean, divide by the standard deviation, put channels first."""

    def apply_convolution(self, x: T, index: int, stride: int = 1, activate: bool = True) -> T:
        """Apply a convolution with "same" padding, then the leaky ReLU if `activate`."""

    def apply_max_pool(self, x: T) -> T:
        """Apply a 3 x 3 max pooling with stride 2."""

    def join_channels(self, one: T, other: T) -> T:
        """Join two feature maps along their channels."""

    def add_maps(self, one: T, other: T) -> T:
        """Add two feature maps."""

    def resize_double(self, x: T) -> T:
        """Resize a feature map bilinearly to twice its side."""

    def resize_half(self, x: T) -> T:
        """Resize a feature map bilinearly to half its side, which is the mean of 2 x 2 positions."""

    def compute_scores(self, levels: Sequence[T]) -> T:
        """Compute the sigmoid of the maximum over all positions and levels, [B, K]."""


def compute_class_scores(operations: Operations[T], pixels_BHWC: T) -> T:
    """Compute the scores [B, K] of the classes."""
    ops = operations
    x = ops.apply_max_pool(ops.apply_convolution(ops.normalize_pixels(pixels_BHWC), 0, stride=2))
    features = []
    for first, stride, blocks in _STAGES:
        x = _compute_stage(ops, x, first, stride, blocks)
        features.append(x)
    fine, middle, coarse = (ops.apply_convolution(x, i, activate=False) for x, i in zip(features[1:], _LATERALS, strict=True))
    middle = ops.add_maps(middle, ops.resize_double(coarse))
    fine = ops.add_maps(fine, ops.resize_double(middle))
    middle = ops.add_maps(middle, ops.resize_half(fine))
    coarse = ops.add_maps(coarse, ops.resize_half(middle))
    levels = zip((fine, middle, coarse), _HEADS, strict=True)
    return ops.compute_scores([ops.apply_convolution(ops.apply_convolution(x, i), i + 1, activate=False) for x, i in levels])


def _compute_stage(ops: Operations[T], x: T, first: int, stride: int, blocks: int) -> T:
    """Compute a stage: its input bypasses the blocks and is concatenated with their output."""
    stage_input = x = ops.apply_convolution(x, first, stride)
    for index in range(first + 1, first + 1 + 2 * blocks, 2):
        half = ops.apply_convolution(x, index)
        x = ops.join_channels(ops.apply_convolution(half, index + 1), half)
    return ops.join_channels(ops.apply_convolution(x, first + 1 + 2 * blocks), stage_input)


def read_convolutions(tensors: Mapping[str, NDArray[Any]]) -> list[Convolution]:
    """Return the convolutions in fp32. A kernel that is stored as int8 has a scale [out] next to it.

    Raises:
        KeyError: If a tensor is missing.
    """
    convolutions = []
    for index in range(CONVOLUTION_COUNT):
        kernel = tensors[f"{index}.kernel"].astype(np.float32)
        if tensors[f"{index}.kernel"].dtype == np.int8:
            kernel *= tensors[f"{index}.scale"][:, None, None, None]
        convolutions.append(Convolution(kernel, tensors[f"{index}.bias"].astype(np.float32)))
    return convolutions
