"""PReLU with a slope for each channel, in operators that ONNX Runtime keeps in its blocked layout on a CPU."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper


def slopes_as_convolutions(model: ModelProto) -> ModelProto:
    """A copy in which every PReLU of a feature map is two depthwise 1x1 convolutions; the same up to float rounding.

    For slopes ``a``: ``x + (1 - a) relu(-x)``. ONNX Runtime computes the ReLU inside the first and the sum inside the
    second, and stays in its layout of blocked channels (NCHWc). PReLU has no kernel for that layout: the data is brought
    back to NCHW for it, and blocked again for the convolution behind (docs/backbone-speed.md has both measured).

    Args:
        model: float32; left alone. A PReLU whose slopes are no constants, or not C x 1 x 1 with C > 1, stays as it is.
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
    """Every value that a node reads, in the graphs of branches and loops too."""
    found = {name for node in graph.node for name in node.input}
    inner = [a.g for node in graph.node for a in node.attribute if a.type == AttributeProto.GRAPH]
    return found.union(*map(names_read, inner))


def _pair(node: NodeProto, a: np.ndarray, initializers) -> Iterator[NodeProto]:
    """The nodes in the place of one PReLU; its weights are added to ``initializers``."""
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
