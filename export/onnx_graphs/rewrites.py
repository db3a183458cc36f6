"""Rewrite operators into equal ones that runtimes execute faster or understand better: per-channel PReLU, dynamic reshapes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from darsr_deploy.engines.ort import open_session
from darsr_train.backbones.onnx_graph import all_graphs


def slopes_as_convolutions(model: ModelProto) -> ModelProto:
    """Return a copy in which every PReLU of a feature map is two depthwise 1x1 convolutions; equal up to float rounding.

    For slopes ``a``: ``x + (1 - a) relu(-x)``. ONNX Runtime fuses the ReLU into the first and the sum into the second, and
    stays in its blocked layout (NCHWc) on a CPU, for which it has no PReLU kernel: with PReLU the data goes back to NCHW
    and is blocked again for the next convolution (measured in docs/backbone-speed.md).

    Args:
        model: float32; not changed. A PReLU whose slopes are not constant, or not C x 1 x 1 with C > 1, stays as it is.
    """
    rewritten = ModelProto()
    rewritten.CopyFrom(model)
    graph = rewritten.graph
    slopes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    nodes: list[NodeProto] = []
    replaced: set[str] = set()
    for node in model.graph.node:
        a = slopes.get(node.input[1]) if node.op_type == "PRelu" else None
        if a is None or a.dtype != np.float32 or a.ndim < 3 or not 1 < a.size == a.shape[-3]:
            nodes.append(node)
            continue
        replaced.add(node.input[1])
        nodes += _pair(node, a.reshape(-1, 1, 1, 1), graph.initializer)
    del graph.node[:]
    graph.node.extend(nodes)
    read = names_read(graph)
    kept = [t for t in graph.initializer if t.name in read or t.name not in replaced]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return rewritten


def names_read(graph: GraphProto) -> set[str]:
    """Return every value that a node reads, in the graphs of branches and loops too."""
    return {name for inner in all_graphs(graph) for node in inner.node for name in node.input}


def _pair(node: NodeProto, a: np.ndarray, initializers) -> Iterator[NodeProto]:
    """Yield the nodes that replace one PReLU, adding their weights to ``initializers``."""
    x, y = node.input[0], node.output[0]
    mirror, rest = f"{y}_mirror", f"{y}_rest"
    initializers.extend([_constant(mirror, -np.ones_like(a)), _constant(rest, 1 - a)])
    facts = {"group": len(a), "kernel_shape": [1, 1]}
    yield helper.make_node("Conv", [x, mirror], [f"{y}_mirrored"], **facts)
    yield helper.make_node("Relu", [f"{y}_mirrored"], [f"{y}_negative"])
    yield helper.make_node("Conv", [f"{y}_negative", rest], [f"{y}_added"], **facts)
    yield helper.make_node("Add", [f"{y}_added", x], [y])


def _constant(name: str, values: np.ndarray) -> TensorProto:
    return numpy_helper.from_array(values.astype(np.float32), name)


_SIZES = ((1, 8, 11), (2, 13, 9), (3, 10, 12))  # images, height, width: no length follows from another


def constant_reshapes(model: ModelProto) -> ModelProto:
    """Return the same model with constant targets for reshapes whose target is computed from the picture's size.

    PyTorch's exporter computes dynamic sizes by chains of small operators, which shape inference cannot follow. 0 (copy
    this length) and one -1 (whatever is left) say the same. Which ones do is found by running the model at a few sizes; a
    reshape that no constants describe stays as it is.

    Args:
        model: inputs ``lr`` (N x 3 x H x W) and, in some, ``coeff`` (N x 13 x H x W).
    """
    constants = {t.name for t in model.graph.initializer}
    constants |= {name for node in model.graph.node if node.op_type == "Constant" for name in node.output}
    computed = [n for n in model.graph.node if n.op_type == "Reshape" and n.input[1] not in constants]
    if not computed:
        return model
    seen = _observed(model, [name for node in computed for name in (node.input[0], node.output[0])])
    result = ModelProto()
    result.CopyFrom(model)
    for node in result.graph.node:
        if node.op_type != "Reshape" or node.input[1] in constants:
            continue
        target = _target([(one[node.input[0]], one[node.output[0]]) for one in seen])
        if target is None:
            continue
        name = f"{node.output[0]}_shape"
        result.graph.initializer.append(numpy_helper.from_array(np.array(target, np.int64), name))
        node.input[1] = name
        for attribute in node.attribute:
            if attribute.name == "allowzero":
                attribute.i = 0
    _drop_unused(result)
    return result


def _observed(model: ModelProto, names: list[str]) -> list[dict[str, tuple[int, ...]]]:
    """Return the shapes of values for each of the sizes."""
    probe = ModelProto()
    probe.CopyFrom(model)
    wanted = {}
    for name in dict.fromkeys(names):
        wanted[name] = f"{name}_observed"
        probe.graph.node.append(helper.make_node("Shape", [name], [wanted[name]]))
        probe.graph.output.append(helper.make_tensor_value_info(wanted[name], 7, None))  # 7: int64
    session = open_session(probe.SerializeToString(), "the model")
    result = []
    for count, height, width in _SIZES:
        feeds = {
            value.name: np.zeros((count, 13 if value.name == "coeff" else 3, height, width), np.float32)
            for value in probe.graph.input
        }
        shapes = session.run(list(wanted.values()), feeds)
        result.append({name: tuple(shape.tolist()) for name, shape in zip(wanted, shapes)})
    return result


def _target(shapes: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[int] | None:
    """Return the constants that describe all (before, after) pairs, None where there are none."""
    target = []
    for place in range(len(shapes[0][1])):
        lengths = {after[place] for _, after in shapes}
        if len(lengths) == 1:
            target.append(lengths.pop())
        elif all(place < len(before) and before[place] == after[place] for before, after in shapes):
            target.append(0)
        else:
            target.append(-1)
    return target if target.count(-1) <= 1 else None


def _drop_unused(model: ModelProto) -> None:
    """Remove the nodes and weights that nothing reads any more."""
    nodes = model.graph.node
    while True:
        read = names_read(model.graph) | {value.name for value in model.graph.output}
        unused = [node for node in nodes if not read & set(node.output)]
        if not unused:
            break
        for node in unused:
            nodes.remove(node)
    for tensor in [t for t in model.graph.initializer if t.name not in read]:
        model.graph.initializer.remove(tensor)
