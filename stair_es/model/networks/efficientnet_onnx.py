"""Build the ONNX graph of EfficientNet-Lite2 from its weights.

Source: Tan and Le, "EfficientNet", ICML 2019 (stages, width and depth coefficients) and the "Lite" variants of the
TensorFlow TPU repository: ReLU6 for swish, no squeeze-and-excitation, stem, first and last stage not scaled in depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from stair_es.model.networks.efficientnet import (
    CLASSIFIER_FEATURE_COUNT,
    CLASSIFIER_MEAN,
    CLASSIFIER_SCALE,
    CLASSIFIER_SIZE_PX,
    IMAGENET_CLASS_COUNT,
)
from stair_es.model.networks.onnx_graph import ONNX_FLOAT, GraphBuilder

_STAGES = ((1, 1), (3, 2), (3, 2), (4, 2), (4, 1), (5, 2), (1, 1))
"""(blocks, stride of the first block): the base depths 1 2 2 3 3 4 1, times 1.2 and rounded up, ends kept."""
_BN_EPSILON = 1e-3

StateDict = Mapping[str, NDArray[Any]]


@dataclass
class _EfficientNetBuilder:
    """A graph under construction. Methods return the name of an output."""

    weights: StateDict
    graph: GraphBuilder

    def add_convolution(self, x: str, conv: str, norm: str, side_px: int, stride: int = 1) -> str:
        """Add a convolution with "SAME" padding and its batch normalization folded in."""
        kernel = self.weights[f"{conv}.weight"]
        scale = self.weights[f"{norm}.weight"] / np.sqrt(self.weights[f"{norm}.running_var"] + _BN_EPSILON)
        bias = self.weights[f"{norm}.bias"] - self.weights[f"{norm}.running_mean"] * scale
        inputs = [
            x,
            self.graph.add_constant(f"{conv}.kernel", (kernel * scale[:, None, None, None]).astype(np.float32)),
            self.graph.add_constant(f"{conv}.bias", bias.astype(np.float32)),
        ]
        before, after = compute_same_padding(side_px, kernel.shape[2], stride)
        group = kernel.shape[0] if kernel.shape[1] == 1 else 1
        pads = [before, before, after, after]
        return self.graph.add_node("Conv", inputs, output=f"{conv}.out", pads=pads, strides=[stride, stride], group=group)

    def add_relu6(self, x: str) -> str:
        return self.graph.add_node("Clip", [x, "zero", "six"], output=f"{x}.relu6")

    def add_block(self, x: str, name: str, side_px: int, stride: int, skip: bool) -> str:
        """Add an inverted residual: expand, depthwise, project."""
        y = x
        if f"{name}._expand_conv.weight" in self.weights:
            y = self.add_relu6(self.add_convolution(y, f"{name}._expand_conv", f"{name}._bn0", side_px))
        y = self.add_relu6(self.add_convolution(y, f"{name}._depthwise_conv", f"{name}._bn1", side_px, stride))
        y = self.add_convolution(y, f"{name}._project_conv", f"{name}._bn2", -(-side_px // stride))
        return self.graph.add_node("Add", [x, y], output=f"{name}.out") if skip else y

    def build_network(self) -> None:
        """Build the nodes from `pixels` (uint8 BHWC) to `logits` (BK) and `features` (BD)."""
        constant, node = self.graph.add_constant, self.graph.add_node
        constant("zero", np.array(0, np.float32))
        constant("six", np.array(6, np.float32))
        x = node("Cast", ["pixels"], output="floats", to=ONNX_FLOAT)
        x = node("Sub", [x, constant("mean", np.array(CLASSIFIER_MEAN, np.float32))], output="centered")
        x = node("Mul", [x, constant("scale", np.array(1 / CLASSIFIER_SCALE, np.float32))], output="scaled")
        x = node("Transpose", [x], output="scaled_BCHW", perm=[0, 3, 1, 2])
        x = self.add_relu6(self.add_convolution(x, "_conv_stem", "_bn0", CLASSIFIER_SIZE_PX, 2))
        side_px, index = -(-CLASSIFIER_SIZE_PX // 2), 0
        for blocks, first_stride in _STAGES:
            for repeat in range(blocks):
                stride = 1 if repeat else first_stride
                x = self.add_block(x, f"_blocks.{index}", side_px, stride, skip=repeat > 0)
                side_px, index = -(-side_px // stride), index + 1
        x = self.add_relu6(self.add_convolution(x, "_conv_head", "_bn1", side_px))
        x = node("Flatten", [node("GlobalAveragePool", [x], output="pooled")], output="features", axis=1)
        dense = [constant("fc.weight", self.weights["_fc.weight"]), constant("fc.bias", self.weights["_fc.bias"])]
        node("Gemm", [x, *dense], output="logits", transB=1)


def compute_same_padding(side_px: int, kernel: int, stride: int) -> tuple[int, int]:
    """Compute TensorFlow's "SAME" padding: `ceil(side / stride)` output pixels; an odd pixel of padding goes after, not before.

    Args:
        side_px: Side of the input.
        kernel: Side of the kernel.
        stride: Stride.
    """
    total = max((-(-side_px // stride) - 1) * stride + kernel - side_px, 0)
    return total // 2, total - total // 2


def build_efficientnet_onnx(weights: StateDict) -> ModelProto:
    """Build the network as ONNX: `pixels` uint8 [B, 260, 260, 3] to `logits` [B, 1000] and pooled `features` [B, 1280].

    Args:
        weights: State dict, with the names of the PyTorch conversion.

    Raises:
        KeyError: If a tensor is missing.
    """
    graph = GraphBuilder()
    _EfficientNetBuilder(weights, graph).build_network()
    outputs: dict[str, list[str | int]] = {"logits": ["B", IMAGENET_CLASS_COUNT], "features": ["B", CLASSIFIER_FEATURE_COUNT]}
    return graph.build_model("efficientnet_lite2", ["B", CLASSIFIER_SIZE_PX, CLASSIFIER_SIZE_PX, 3], outputs)
