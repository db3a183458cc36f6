"""What a model costs: multiply-adds, counted in the graph that is exported."""

from __future__ import annotations

import math

from onnx import ModelProto, NodeProto, TensorProto, helper, inliner, shape_inference

_SIDE = 48  # of the LR image that shapes are inferred for; what is done once an image hardly shows in a pixel's share


def multiply_adds(model: ModelProto) -> int:
    """Multiply-adds per LR pixel of a float32 model: convolutions, matrix products and the correction filter.

    Activations, additions and shuffles are left out, as is usual; the correction filter's 13 products for each of 3
    colours count.
    """
    sized = ModelProto()
    sized.CopyFrom(model)
    for value in sized.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, (1, 3, _SIDE, _SIDE)):  # weights have their sizes
            if not dim.HasField("dim_value"):
                dim.dim_value = size
    del sized.graph.value_info[:]
    for value in sized.graph.output:
        value.type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    sized = shape_inference.infer_shapes(inliner.inline_local_functions(sized), data_prop=True, strict_mode=True)
    shapes = {t.name: list(t.dims) for t in sized.graph.initializer}
    for value in [*sized.graph.value_info, *sized.graph.input, *sized.graph.output]:
        shapes[value.name] = [d.dim_value for d in value.type.tensor_type.shape.dim]
    filtered = sum(13 * 3 * _SIDE**2 for node in model.graph.node if node.op_type == "CorrectionFilter")
    return round((filtered + sum(_of_node(node, shapes) for node in sized.graph.node)) / _SIDE**2)


def _of_node(node: NodeProto, shapes: dict[str, list[int]]) -> int:
    if node.op_type == "Conv":  # weight: out, in / groups, kernel
        return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type == "ConvTranspose":  # weight: in, out / groups, kernel
        return math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type in ("MatMul", "Gemm"):
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else -1]
    return 0
