"""The shape of every value of an ONNX graph for a picture of one size."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto


def sized_graph(model: ModelProto, side: int, sides: dict[str, int] | None = None) -> GraphProto:
    """The graph with local functions opened and shapes inferred for one image of side x side pixels.

    Args:
        sides: of inputs that are not of that size.
    """
    from onnx import ModelProto, inliner, shape_inference

    fixed = ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for value in fixed.graph.input:
        length = (sides or {}).get(value.name, side)
        for dim, size in zip(value.type.tensor_type.shape.dim, (1, 3, length, length)):
            if not dim.HasField("dim_value"):  # coefficients have their 13 planes, weights among the inputs their sizes
                dim.dim_value = size
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    fixed = inliner.inline_local_functions(fixed) if fixed.functions else fixed
    while True:
        inferred = shape_inference.infer_shapes(fixed, data_prop=True).graph
        if not _fix_shapes(fixed, shapes_of(inferred)):
            return inferred


def shapes_of(graph: GraphProto) -> dict[str, tuple[int, ...]]:
    """Shapes of all values whose number of dimensions is known; a length that is not is 0."""
    values = [v for v in [*graph.value_info, *graph.input, *graph.output] if v.type.tensor_type.HasField("shape")]
    shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}
    return shapes | {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}


def _fix_shapes(model: ModelProto, shapes: dict[str, tuple[int, ...]]) -> bool:
    """Replace operators that ask for a known shape by the answer: inference follows numbers, not what is computed of them."""
    import numpy as np
    from onnx import helper, numpy_helper

    changed = False
    for node in [n for n in model.graph.node if n.op_type == "Shape"]:
        shape = shapes.get(node.input[0])
        if not shape or 0 in shape:
            continue
        options = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        answer = np.array(shape[options.get("start", 0) : options.get("end", len(shape))], np.int64)
        model.graph.initializer.append(numpy_helper.from_array(answer, node.output[0]))
        model.graph.node.remove(node)
        changed = True
    return changed
