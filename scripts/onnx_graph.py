"""Build ONNX graphs node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

_OPSET, _IR_VERSION = 13, 8


@dataclass
class GraphBuilder:
    """The nodes and initializers of a graph. Methods that add one return the name of its output."""

    nodes: list[NodeProto] = field(default_factory=list)
    tensors: list[TensorProto] = field(default_factory=list)

    def add_constant(self, name: str, value: NDArray[Any]) -> str:
        """Add an initializer."""
        self.tensors.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def add_node(self, op: str, inputs: Sequence[str], *, output: str = "", **attributes: object) -> str:
        """Add an operation.

        Args:
            op: Operator type.
            inputs: Names of its inputs.
            output: Name of its output; if empty, it consists of the operator and the number of the node.
            attributes: Attributes of the operator.
        """
        output = output or f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def add_float_cast(self, x: str, *, output: str = "") -> str:
        """Add the conversion of a tensor to float32."""
        return self.add_node("Cast", [x], output=output, to=TensorProto.FLOAT)

    def build_file(self, name: str, pixels_shape: Sequence[str | int], outputs: Mapping[str, Sequence[str | int]]) -> bytes:
        """Return the file of a model that takes `pixels` (uint8) and gives floats.

        Args:
            name: Name of the graph.
            pixels_shape: Shape of `pixels`.
            outputs: Shape of each output, by name.
        """
        pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, list(pixels_shape))
        output_infos = [
            helper.make_tensor_value_info(output, TensorProto.FLOAT, list(shape)) for output, shape in outputs.items()
        ]
        graph = helper.make_graph(self.nodes, name, [pixels], output_infos, self.tensors)
        opset = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION, producer_name="stair-es")
        data: bytes = model.SerializeToString(deterministic=True)
        return data
