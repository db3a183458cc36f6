"""Estimate the memory of a graph: the values that are alive at the same time."""

from __future__ import annotations

import math

from onnx import ModelProto, TensorProto, helper

from darsr_train.backbones.onnx_graph import sized_graph

_SIDE = 48  # of the LR image that shapes are inferred for


def peak_bytes(model: ModelProto, scale: int = 1) -> int:
    """Return the peak of bytes per LR pixel that inputs, results and intermediate values take together, without weights.

    An estimate: a runtime takes more (copies in other layouts, gaps) or less (results written over inputs).

    Args:
        scale: of an input ``sr``, if there is one; all others have the LR image's size, or do not count.
    """
    graph = sized_graph(model, _SIDE, {"sr": _SIDE * scale})
    sizes = {value.name: _bytes(value) for value in [*graph.value_info, *graph.input, *graph.output]}
    last = {name: index for index, node in enumerate(graph.node) for name in node.input}
    last |= {value.name: len(graph.node) for value in graph.output}
    alive = {value.name: sizes[value.name] for value in graph.input if value.name in last}
    peak = 0
    for index, node in enumerate(graph.node):
        alive |= {name: sizes.get(name, 0) for name in node.output}
        peak = max(peak, sum(alive.values()))
        for name in [name for name in alive if last.get(name, -1) <= index]:
            del alive[name]
    return math.ceil(peak / _SIDE**2)


def _bytes(value) -> int:
    kind = value.type.tensor_type
    dims = [dim.dim_value for dim in kind.shape.dim]
    if len(dims) != 4 or not kind.elem_type or kind.elem_type == TensorProto.STRING:
        return 0
    return math.prod(dims) * helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
