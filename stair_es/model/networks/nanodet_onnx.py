"""Build the ONNX graph of NanoDet-g from its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto

from stair_es.model.networks.nanodet import (
    COCO_CLASS_COUNT,
    LEAKY_RELU_SLOPE,
    NANODET_MEAN,
    NANODET_SIZE_PX,
    NANODET_STD,
    Convolution,
    compute_class_scores,
)
from stair_es.model.networks.onnx_graph import ONNX_FLOAT, GraphBuilder


@dataclass
class OnnxOperations:
    """The operations of the network as nodes of an ONNX graph. Methods return the name of their output."""

    convolutions: Sequence[Convolution]
    graph: GraphBuilder = field(default_factory=GraphBuilder)

    def normalize_pixels(self, pixels_BHWC: str) -> str:
        """Add the normalization of pixels, channels first."""
        # First, as bytes: onnxruntime is slow with few channels last.
        x = self.graph.add_node("Transpose", [pixels_BHWC], perm=[0, 3, 1, 2])
        x = self.graph.add_node("Cast", [x], to=ONNX_FLOAT)
        x = self.graph.add_node("Sub", [x, self.graph.add_constant("mean", np.array(NANODET_MEAN, np.float32)[:, None, None])])
        return self.graph.add_node(
            "Mul", [x, self.graph.add_constant("scale", 1 / np.array(NANODET_STD, np.float32)[:, None, None])]
        )

    def apply_convolution(self, x: str, index: int, stride: int = 1, activate: bool = True) -> str:
        """Add a convolution, then the leaky ReLU if `activate`."""
        kernel, bias = self.convolutions[index]
        inputs = [x, self.graph.add_constant(f"{index}.kernel", kernel), self.graph.add_constant(f"{index}.bias", bias)]
        y = self.graph.add_node("Conv", inputs, pads=[kernel.shape[2] // 2] * 4, strides=[stride, stride])
        return self.graph.add_node("LeakyRelu", [y], alpha=LEAKY_RELU_SLOPE) if activate else y

    def apply_max_pool(self, x: str) -> str:
        """Add a 3 x 3 max pooling with stride 2."""
        return self.graph.add_node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])

    def join_channels(self, one: str, other: str) -> str:
        """Add the concatenation of two feature maps along their channels."""
        return self.graph.add_node("Concat", [one, other], axis=1)

    def add_maps(self, one: str, other: str) -> str:
        """Add the sum of two feature maps."""
        return self.graph.add_node("Add", [one, other])

    def resize_double(self, x: str) -> str:
        """Add a bilinear resize to twice the side."""
        factors = self.graph.add_constant(f"{x}.factors", np.array([1, 1, 2, 2], np.float32))
        return self.graph.add_node("Resize", [x, "", factors], mode="linear", coordinate_transformation_mode="half_pixel")

    def resize_half(self, x: str) -> str:
        """Add a 2 x 2 average pooling."""
        return self.graph.add_node("AveragePool", [x], kernel_shape=[2, 2], strides=[2, 2])

    def compute_scores(self, levels: Sequence[str]) -> str:
        """Add the sigmoid of the maximum over all positions and levels."""
        highest = self.graph.add_node("Max", [self.graph.add_node("GlobalMaxPool", [x]) for x in levels])
        return self.graph.add_node("Sigmoid", [self.graph.add_node("Flatten", [highest])], output="scores")


def build_nanodet_onnx(convolutions: Sequence[Convolution], side_px: int = NANODET_SIZE_PX) -> ModelProto:
    """Build the network as ONNX: `pixels` uint8 [B, side, side, 3] in RGB to `scores` [B, 80].

    Args:
        convolutions: Weights of the network.
        side_px: Side of the input.
    """
    operations = OnnxOperations(convolutions)
    compute_class_scores(operations, "pixels")
    return operations.graph.build_model("nanodet_g", ["B", side_px, side_px, 3], {"scores": ["B", COCO_CLASS_COUNT]})
