"""Build ONNX graphs node by node, and open them in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

ONNX_FLOAT, ONNX_UINT8 = TensorProto.FLOAT, TensorProto.UINT8
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

    def build_model(self, name: str, pixels_shape: Sequence[str | int], outputs: Mapping[str, Sequence[str | int]]) -> ModelProto:
        """Return the graph as a model that takes `pixels` (uint8) and gives floats.

        Args:
            name: Name of the graph.
            pixels_shape: Shape of `pixels`.
            outputs: Shape of each output, by name.
        """
        pixels = helper.make_tensor_value_info("pixels", ONNX_UINT8, list(pixels_shape))
        output_infos = [helper.make_tensor_value_info(output, ONNX_FLOAT, list(shape)) for output, shape in outputs.items()]
        graph = helper.make_graph(self.nodes, name, [pixels], output_infos, self.tensors)
        opset = [helper.make_opsetid("", _OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION, producer_name="stair-es")


def create_onnx_session(graph: str | bytes, threads: int) -> Any:  # noqa: ANN401
    """Create an onnxruntime session on the CPU.

    Args:
        graph: Path or bytes of an ONNX file.
        threads: CPU threads of one run; 0 for one per core.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
