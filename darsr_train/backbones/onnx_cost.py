"""Count what an ONNX model costs: parameters, multiply-adds, bytes that its operators move."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .onnx_graph import shapes_of, sized_graph

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Shape = tuple[int, ...]

_SIDE = 48  # of the LR image that shapes are inferred for; work done once per image hardly shows at this size
_BYTES = {1: 4, 2: 1, 3: 1, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 16: 2}  # by TensorProto.DataType
_FREE = ("Constant", "Identity", "Shape", "Reshape", "Flatten", "Squeeze", "Unsqueeze")  # move no pixels


def parameter_count(model: ModelProto) -> int:
    """Count the floating-point numbers that the model carries, constants inside the graph included."""
    from onnx import TensorProto

    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    constants = [
        a.t for node in model.graph.node if node.op_type == "Constant" for a in node.attribute if a.name == "value"
    ]
    return sum(math.prod(t.dims) for t in [*model.graph.initializer, *constants] if t.data_type in floats)


def multiply_adds(model: ModelProto, side: int = _SIDE) -> int | None:
    """Count multiply-adds per LR pixel on an image of side x side pixels.

    Convolutions, matrix products and the correction filter count, the latter with 13 products for each of 3 colours,
    whether it is one node or its body. Activations, additions and shuffles are left out, as is usual.

    Returns:
        None where the shapes cannot be inferred, as with operators that ONNX does not know.
    """
    nodes, shapes, _ = _sized(model, side)
    total = sum(13 * 3 * side**2 for node in model.graph.node if node.op_type == "CorrectionFilter")
    for node in nodes:
        if node.op_type not in _COSTS:
            continue
        operands = [shapes.get(name) for name in (*node.input[:2], node.output[0])]
        if any(shape is None or 0 in shape for shape in operands):
            return None
        total += _COSTS[node.op_type](node, *operands)
    return round(total / side**2)


def bytes_moved(model: ModelProto, side: int = _SIDE) -> int | None:
    """Count the bytes per LR pixel that the operators read and write if none are fused.

    Runtimes fuse and move less; the figure shows how much there is to fuse. Weights and constants do not count: they are
    read once per image, whatever its size.

    Returns:
        None where a shape or a type cannot be inferred.
    """
    nodes, shapes, types = _sized(model, side)
    weights = {tensor.name for tensor in model.graph.initializer}
    weights |= {name for node in nodes if node.op_type == "Constant" for name in node.output}
    total = 0
    for node in nodes:
        if node.op_type in _FREE:
            continue
        for name in (*node.input, *node.output):
            if not name or name in weights:
                continue
            if shapes.get(name) is None or 0 in shapes[name] or types.get(name) not in _BYTES:
                return None
            total += math.prod(shapes[name]) * _BYTES[types[name]]
    return round(total / side**2)


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


def _sized(model: ModelProto, side: int) -> tuple[list[NodeProto], dict[str, Shape], dict[str, int]]:
    """Return nodes (local functions inlined), shapes and types of all values for one image of side x side pixels.

    An unknown length is 0.
    """
    graph = sized_graph(model, side)
    types = {v.name: v.type.tensor_type.elem_type for v in [*graph.value_info, *graph.input, *graph.output]}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    return list(graph.node), shapes_of(graph), types
