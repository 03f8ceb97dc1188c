"""The shipped ONNX graphs in PyTorch: on CUDA, and below heads in training. Has the operators that these graphs use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from stair_es.errors import ModelError
from stair_es.model.base import ModelSpec
from stair_es.model.torch_device import TorchDevice
from stair_es.types import Backend, Floats, Pixels


class _Node(NamedTuple):
    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]


class TorchGraph(nn.Module):  # type: ignore[misc]  # mypy skips torch
    """A graph with frozen weights, which aren't part of its state."""

    def __init__(self, path: Path) -> None:
        """Read a graph.

        Raises:
            ModelError: If it is missing or broken.
        """
        super().__init__()
        try:
            graph = onnx.load(path).graph
        except Exception as error:  # protobuf has its own errors
            raise ModelError(
                f"the image network in {path} can't be read: {error}", "Reinstall stair-es.", code="image-network-unreadable"
            ) from error
        self.outputs = [output.name for output in graph.output]
        constants = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
        self._nodes = []
        for proto in graph.node:
            attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in proto.attribute}
            node = _Node(proto.op_type, tuple(filter(None, proto.input)), proto.output[0], attributes)
            if constants.keys() >= set(node.inputs):  # weights that are stored in few bits
                constants[node.output] = _run_node(node, constants)
            else:
                self._nodes.append(node)
        used = {name for node in self._nodes for name in node.inputs} & constants.keys()
        self._buffer_names = {name: f"constant_{number}" for number, name in enumerate(sorted(used))}
        for name, buffer in self._buffer_names.items():
            self.register_buffer(buffer, constants[name], persistent=False)

    def forward(self, value: Tensor, name: str = "pixels", outputs: Sequence[str] = ()) -> list[Tensor]:
        """Run the graph, or a part of it.

        Args:
            value: Images [B, H, W, C] of 0..255 (uint8), or the tensor at which to begin.
            name: Name of that tensor.
            outputs: Names of the tensors to return; if empty, the outputs of the graph.
        """
        values = {constant: getattr(self, buffer) for constant, buffer in self._buffer_names.items()}
        values[name] = value
        for node in self._nodes:
            if values.keys() >= set(node.inputs):
                values[node.output] = _run_node(node, values)
        return [values[output] for output in outputs or self.outputs]


class TorchGraphRuntime:
    """A graph in PyTorch, on a GPU if there is one, else on the CPU, there one image at a time."""

    backend: Backend = "torch"

    def __init__(self, path: Path, spec: ModelSpec) -> None:
        self._device = TorchDevice(spec)
        self._graph = self._device.place_network(TorchGraph(path))

    def run_graph(self, pixels_BHWC: Pixels) -> Sequence[Floats]:
        """Run the graph in chunks."""
        if not len(pixels_BHWC):  # the outputs of no image have shapes, too
            return [output[:0] for output in self.run_graph(np.zeros((1, *pixels_BHWC.shape[1:]), np.uint8))]
        parts = self._device.run_chunks(pixels_BHWC, self._graph, cpu_chunk=1)
        return [np.concatenate(output) for output in zip(*parts, strict=True)]


def _run_node(node: _Node, values: Mapping[str, Tensor]) -> Tensor:
    return _OPERATORS[node.op](node.attributes, *(values[name] for name in node.inputs))


def _convolve(attributes: Mapping[str, Any], x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    top, left, bottom, right = attributes["pads"]
    if (top, left) != (bottom, right):
        x, top, left = functional.pad(x, (left, right, top, bottom)), 0, 0
    x = x.to(kernel.dtype)  # pixels are cast to fp32
    return functional.conv2d(x, kernel, bias, attributes["strides"], (top, left), groups=attributes.get("group", 1))


_OPERATORS: Mapping[str, Callable[..., Tensor]] = {
    "Add": lambda _, x, y: x + y,
    "AveragePool": lambda attributes, x: functional.avg_pool2d(x, attributes["kernel_shape"], attributes["strides"]),
    "Cast": lambda _, x: x.float(),
    "Clip": lambda _, x, low, high: x.clamp(low, high),
    "Concat": lambda attributes, *xs: torch.cat(xs, dim=attributes["axis"]),
    "Conv": _convolve,
    "Flatten": lambda _, x: x.flatten(1),
    "Gemm": lambda _, x, weights, bias: functional.linear(x.to(weights.dtype), weights, bias),
    "GlobalAveragePool": lambda _, x: x.mean((2, 3), keepdim=True),
    "GlobalMaxPool": lambda _, x: x.amax((2, 3), keepdim=True),
    "LeakyRelu": lambda attributes, x: functional.leaky_relu(x, attributes["alpha"]),
    "Max": lambda _, *xs: torch.stack(xs).amax(0),
    "MaxPool": lambda attributes, x: functional.max_pool2d(
        x, attributes["kernel_shape"], attributes["strides"], attributes["pads"][:2]
    ),
    "Mul": lambda _, x, y: x * y,
    "Resize": lambda _, x, _factors: functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False),
    "Sigmoid": lambda _, x: x.float().sigmoid(),
    "Sub": lambda _, x, y: x - y,
    "Transpose": lambda attributes, x: x.permute(attributes["perm"]).contiguous(),
}
