"""ONNX graphs: every node and tensor in them, their opset, the shape of every value, and changes that keep the result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto


def inner_graphs(nodes: list[NodeProto]) -> Iterator[GraphProto]:
    """Yield the graphs of branches and loops, one level down."""
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g
            yield from attribute.graphs


def all_graphs(graph: GraphProto | FunctionProto) -> Iterator[GraphProto | FunctionProto]:
    """Yield a graph and the graphs inside it, at any depth."""
    yield graph
    for inner in inner_graphs(graph.node):
        yield from all_graphs(inner)


def all_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor that a model carries: initializers and constants, of functions and branches too."""
    for root in (model.graph, *model.functions):
        for graph in all_graphs(root):
            yield from getattr(graph, "initializer", ())
            for sparse in getattr(graph, "sparse_initializer", ()):
                yield from (sparse.values, sparse.indices)
            for attribute in (a for node in graph.node for a in node.attribute):
                yield from attribute.tensors
                if attribute.HasField("t"):
                    yield attribute.t
                if attribute.HasField("sparse_tensor"):
                    yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)


def opset_of(model: ModelProto) -> int:
    """Return the version of the standard operators that a model is written in."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)


def convert_opset(model: ModelProto, opset: int) -> ModelProto:
    """Return a model in a newer opset, computing the same.

    Up to opset 10 an enlargement had no choice of coordinates: output pixel x was taken from x / scale. onnx's converter
    leaves the choice at its later default, another one, so it is set here.
    """
    from onnx import helper, version_converter

    old = opset_of(model)
    if old == opset:
        return model
    converted = version_converter.convert_version(model, opset)
    if old < 11:
        for node in (node for graph in all_graphs(converted.graph) for node in graph.node if node.op_type == "Resize"):
            node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
            node.attribute.append(helper.make_attribute("nearest_mode", "floor"))
    return converted


def widen_float16(model: ModelProto) -> None:
    """Turn a float16 model without local functions into an equal float32 one, in place."""
    from onnx import TensorProto, numpy_helper

    for tensor in all_tensors(model):
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for graph in all_graphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.HasField("tensor_type") and value.type.tensor_type.elem_type == TensorProto.FLOAT16:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
        for attribute in (a for node in graph.node for a in node.attribute):
            if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT


def take_any_size(model: ModelProto, scale: int, multiple: int) -> ModelProto:
    """Pad a model's input to multiples by repeating the last row and column, and crop its result, in place.

    Args:
        model: of opset 11 or newer; one input N x 3 x H x W and one output N x 3 x sH x sW, for H and W multiples of
            ``multiple``.
    """
    from onnx import helper, numpy_helper

    graph, weights = model.graph, {tensor.name for tensor in model.graph.initializer}
    source = next(value for value in graph.input if value.name not in weights)
    picture, result = source.name, graph.output[0].name
    given, cropped = f"any_size/{picture}", f"any_size/{result}"
    numbers = {"rows": [2], "end": [4], "zero": [0], "none": [0] * 6, "axes": [2, 3], "origin": [0, 0]}
    numbers |= {"multiple": [multiple], "scale": [scale]}
    for name, values in numbers.items():
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), f"any_size:{name}"))

    def own(*names: str) -> list[str]:
        return [f"any_size:{name}" for name in names]

    before = [
        helper.make_node("Shape", [given], own("shape")),
        helper.make_node("Slice", own("shape", "rows", "end", "zero"), own("sides")),
        helper.make_node("Neg", own("sides"), own("negative")),
        helper.make_node("Mod", own("negative", "multiple"), own("missing")),
        helper.make_node("Concat", own("none", "missing"), own("pads"), axis=0),
        helper.make_node("Pad", [given, *own("pads")], [picture], mode="edge"),
    ]
    behind = [
        helper.make_node("Mul", own("sides", "scale"), own("ends")),
        helper.make_node("Slice", [result, *own("origin", "ends", "axes")], [cropped]),
    ]
    nodes = [*before, *graph.node, *behind]
    del graph.node[:]
    graph.node.extend(nodes)
    source.name, graph.output[0].name = given, cropped
    graph.output[0].type.tensor_type.ClearField("shape")
    for length in ("n", 3, "padded_h", "padded_w"):
        dim = graph.output[0].type.tensor_type.shape.dim.add()
        setattr(dim, "dim_value" if isinstance(length, int) else "dim_param", length)
    return model


def sized_graph(model: ModelProto, side: int, sides: dict[str, int] | None = None) -> GraphProto:
    """Return the graph with local functions inlined and shapes inferred for one image of side x side pixels.

    Args:
        sides: of the inputs, by name, that have another size.
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
    """Return the shapes of all values whose number of dimensions is known; an unknown length is 0."""
    values = [v for v in [*graph.value_info, *graph.input, *graph.output] if v.type.tensor_type.HasField("shape")]
    shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}
    return shapes | {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}


def _fix_shapes(model: ModelProto, shapes: dict[str, tuple[int, ...]]) -> bool:
    """Replace operators that ask for a known shape by the answer, for inference follows constants alone."""
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
