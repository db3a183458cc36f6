"""Size and cost of an ONNX model, read off its graph."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Shape = tuple[int, ...]


def parameter_count(model: ModelProto) -> int:
    """Numbers of floating-point type that the model carries, constants inside the graph included."""
    from onnx import TensorProto

    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    constants = [
        a.t for node in model.graph.node if node.op_type == "Constant" for a in node.attribute if a.name == "value"
    ]
    return sum(math.prod(t.dims) for t in [*model.graph.initializer, *constants] if t.data_type in floats)


def multiply_adds(model: ModelProto, side: int = 32) -> int | None:
    """Multiply-adds per LR pixel of convolutions and matrix products, on an image of side x side pixels.

    Returns:
        None where the shapes cannot be inferred, as with operators that ONNX does not know.
    """
    shapes = _shapes(model, side)
    total = 0
    for node in model.graph.node:
        if node.op_type not in _COSTS:
            continue
        operands = [shapes.get(name) for name in (*node.input[:2], node.output[0])]
        if any(shape is None or 0 in shape for shape in operands):
            return None
        total += _COSTS[node.op_type](node, *operands)
    return total // side**2


# (node, shape of the first input, of the second, of the output) -> multiply-adds.
_COSTS = {
    # Each output value is a sum over the weights of one output channel.
    "Conv": lambda node, x, w, y: math.prod(y) * math.prod(w[1:]),
    # Each input value is spread by the weights of one input channel.
    "ConvTranspose": lambda node, x, w, y: math.prod(x) * math.prod(w[1:]),
    "MatMul": lambda node, x, w, y: math.prod(y) * x[-1],
    "Gemm": lambda node, x, w, y: math.prod(y) * x[0 if _flag(node, "transA") else 1],
}


def _flag(node: NodeProto, name: str) -> bool:
    return any(attribute.name == name and attribute.i for attribute in node.attribute)


def _shapes(model: ModelProto, side: int) -> dict[str, Shape]:
    """Shapes of all values for one image of side x side pixels; 0 where a length is not known."""
    from onnx import ModelProto, shape_inference

    fixed = ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for value in fixed.graph.input:
        if value.name not in weights:
            for dim, length in zip(value.type.tensor_type.shape.dim, (1, 3, side, side)):
                dim.dim_value = length
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = shape_inference.infer_shapes(fixed, data_prop=True).graph
    known = [v for v in [*graph.value_info, *graph.input, *graph.output] if v.type.tensor_type.HasField("shape")]
    return {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in known} | weights
