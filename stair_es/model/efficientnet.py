"""The ONNX graph of EfficientNet-Lite2, built from its weights.

Source: Tan and Le, "EfficientNet", ICML 2019 (stages, width and depth coefficients) and the "Lite" variants of the
TensorFlow TPU repository: ReLU6 for swish, no squeeze-and-excitation, stem, first and last stage not scaled in depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from stair_es.types import Floats

SIZE_PX = 260
CLASSES, FEATURES = 1000, 1280
_STAGES = ((1, 1), (3, 2), (3, 2), (4, 2), (4, 1), (5, 2), (1, 1))
"""(blocks, stride of the first block): the base depths 1 2 2 3 3 4 1, times 1.2 and rounded up, ends kept."""
_BN_EPSILON = 1e-3
_MEAN, _SCALE = 127.0, 128.0
_OPSET, _IR_VERSION = 13, 8

Weights = Mapping[str, NDArray[Any]]


@dataclass
class _Builder:
    """Collects nodes and initializers; every method returns the name of its output."""

    weights: Weights
    nodes: list[NodeProto] = field(default_factory=list)
    tensors: list[TensorProto] = field(default_factory=list)

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.tensors.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def conv(self, x: str, conv: str, norm: str, side_px: int, stride: int = 1) -> str:
        """Convolution with "SAME" padding and its batch normalisation folded in."""
        kernel = self.weights[f"{conv}.weight"]
        scale = self.weights[f"{norm}.weight"] / np.sqrt(self.weights[f"{norm}.running_var"] + _BN_EPSILON)
        bias = self.weights[f"{norm}.bias"] - self.weights[f"{norm}.running_mean"] * scale
        inputs = [
            x,
            self.constant(f"{conv}.kernel", (kernel * scale[:, None, None, None]).astype(np.float32)),
            self.constant(f"{conv}.bias", bias.astype(np.float32)),
        ]
        before, after = same_padding(side_px, kernel.shape[2], stride)
        group = kernel.shape[0] if kernel.shape[1] == 1 else 1
        pads = [before, before, after, after]
        return self.node("Conv", inputs, f"{conv}.out", pads=pads, strides=[stride, stride], group=group)

    def relu6(self, x: str) -> str:
        return self.node("Clip", [x, "zero", "six"], f"{x}.relu6")

    def block(self, x: str, name: str, side_px: int, stride: int, skip: bool) -> str:
        """Inverted residual: expand, depthwise, project."""
        y = x
        if f"{name}._expand_conv.weight" in self.weights:
            y = self.relu6(self.conv(y, f"{name}._expand_conv", f"{name}._bn0", side_px))
        y = self.relu6(self.conv(y, f"{name}._depthwise_conv", f"{name}._bn1", side_px, stride))
        y = self.conv(y, f"{name}._project_conv", f"{name}._bn2", -(-side_px // stride))
        return self.node("Add", [x, y], f"{name}.out") if skip else y

    def graph(self) -> GraphProto:
        """The nodes from `pixels` (uint8 BHWC) to `logits` (BK) and `features` (BD)."""
        self.constant("zero", np.array(0, np.float32))
        self.constant("six", np.array(6, np.float32))
        x = self.node("Cast", ["pixels"], "floats", to=TensorProto.FLOAT)
        x = self.node("Sub", [x, self.constant("mean", np.array(_MEAN, np.float32))], "centred")
        x = self.node("Mul", [x, self.constant("scale", np.array(1 / _SCALE, np.float32))], "scaled")
        x = self.node("Transpose", [x], "scaled_BCHW", perm=[0, 3, 1, 2])
        x = self.relu6(self.conv(x, "_conv_stem", "_bn0", SIZE_PX, 2))
        side_px, index = -(-SIZE_PX // 2), 0
        for blocks, first_stride in _STAGES:
            for repeat in range(blocks):
                stride = 1 if repeat else first_stride
                x = self.block(x, f"_blocks.{index}", side_px, stride, skip=repeat > 0)
                side_px, index = -(-side_px // stride), index + 1
        x = self.relu6(self.conv(x, "_conv_head", "_bn1", side_px))
        x = self.node("Flatten", [self.node("GlobalAveragePool", [x], "pooled")], "features", axis=1)
        dense = [self.constant("fc.weight", self.weights["_fc.weight"]), self.constant("fc.bias", self.weights["_fc.bias"])]
        self.node("Gemm", [x, *dense], "logits", transB=1)
        pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["B", SIZE_PX, SIZE_PX, 3])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", CLASSES])
        features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", FEATURES])
        return helper.make_graph(self.nodes, "efficientnet_lite2", [pixels], [logits, features], self.tensors)


def same_padding(side_px: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "SAME": the output has `ceil(side / stride)` pixels; an odd pixel of padding goes after, not before."""
    total = max((-(-side_px // stride) - 1) * stride + kernel - side_px, 0)
    return total // 2, total - total // 2


def build(weights: Weights) -> ModelProto:
    """The network as ONNX: `pixels` uint8 [B, 260, 260, 3] in, `logits` [B, 1000] and the `features` [B, 1280] below them out.

    Args:
        weights: The state dict, under the names of the PyTorch conversion.

    Raises:
        KeyError: A tensor is missing.
    """
    opset = [helper.make_opsetid("", _OPSET)]
    return helper.make_model(_Builder(weights).graph(), opset_imports=opset, ir_version=_IR_VERSION, producer_name="stair-es")


def normalised(pixels_BHWC: NDArray[np.uint8]) -> Floats:
    """What the graph does to pixels before the first convolution: `(x - 127) / 128`, channels first."""
    scaled = (pixels_BHWC.astype(np.float32) - np.float32(_MEAN)) * np.float32(1 / _SCALE)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def normalised_tensor(pixels_BHWC: Any) -> Any:  # noqa: ANN401  a torch tensor, on any device
    """The same of a PyTorch tensor, bit for bit."""
    return ((pixels_BHWC.float() - _MEAN) * (1 / _SCALE)).permute(0, 3, 1, 2).contiguous()
