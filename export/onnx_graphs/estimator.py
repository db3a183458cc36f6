"""Build the graph of :class:`darsr_train.blind.estimator.Estimator`, whose weights are inputs, node by node."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto

from .opset import OPSET
from .pieces import Graph

_BLOCK, _MOST = 8, 0.04  # side of JPEG's blocks; the excess of a step that counts, as in darsr_train.blind.estimator


def estimator(shapes: Mapping[str, list[int]], opset: int = OPSET) -> ModelProto:
    """Build the graph: lr 1 x 3 x H x W -> found 1 x 16; ``shapes`` are those of the network's state, by name."""
    graph = Graph(opset, dict(shapes))
    x, found = "lr", [_blockiness(graph)]
    for stage in range(3):
        for layer in (0, 2):
            stride = 2 if stage and not layer else 1
            x = graph.add("Relu", graph.conv(x, f"stages.{stage}.{layer}", stride))
        flat = graph.constant("flat", [0, 0, -1])
        attention = graph.add("Softmax", graph.add("Reshape", graph.conv(x, f"looks.{stage}"), flat), axis=2)
        features = graph.add("Transpose", graph.add("Reshape", x, flat), perm=[0, 2, 1])  # N, HW, C
        mean = graph.add("MatMul", attention, features)  # N, heads, C
        square = graph.add("MatMul", attention, graph.add("Mul", features, features))
        variance = graph.add("Sub", square, graph.add("Mul", mean, mean))
        spread = graph.add("Sqrt", graph.add("Max", variance, _number(graph, "least", 1e-8)))
        found += [graph.add("Flatten", part, axis=1) for part in (mean, spread)]
    hidden = graph.add("Relu", _linear(graph, graph.add("Concat", *found, axis=1), "judge.0"))
    graph.output(_linear(graph, hidden, "judge.2"), "found", ["n", shapes["judge.2.bias"][0]])
    return graph.model()


def _blockiness(graph: Graph) -> str:
    """Add :func:`darsr_train.blind.estimator.blockiness`: N x 8."""
    y = graph.add("ReduceMean", "lr", graph.constant("colours", [1]), keepdims=0)
    angles = 2 * np.pi * np.outer(np.arange(_BLOCK), np.arange(1, _BLOCK // 2 + 1)) / _BLOCK
    found = [_harmonics(graph, plane, angles) for plane in (y, graph.add("Transpose", y, perm=[0, 2, 1]))]
    scaled = graph.add("Mul", graph.add("Concat", *found, axis=1), _number(graph, "gain", 200))
    return graph.add("Log", graph.add("Add", scaled, _number(graph, "one", 1)))


def _harmonics(graph: Graph, plane: str, angles: np.ndarray) -> str:
    """Add the spectrum over the eight phases of the columns' mean second difference, N x H x W -> N x 4."""

    def part(first: int, end: int) -> str:
        limits = (graph.constant(f"at{place}", [place]) for place in (first, end))
        return graph.add("Slice", plane, *limits, graph.constant("last", [2]))

    def difference(before: tuple[int, int], behind: tuple[int, int]) -> str:
        return graph.add("Abs", graph.add("Sub", part(*before), part(*behind)))

    end = np.iinfo(np.int64).max
    around = graph.add("Add", difference((0, -3), (1, -2)), difference((2, -1), (3, end)))
    half = graph.add("Mul", around, _number(graph, "half", 0.5))
    excess = graph.add("Sub", difference((1, -2), (2, -1)), half)
    limits = _number(graph, "lowest", -_MOST), _number(graph, "highest", _MOST)
    columns = graph.add("ReduceMean", graph.add("Clip", excess, *limits), graph.constant("rows", [1]), keepdims=0)
    width = graph.add("Slice", graph.add("Shape", columns), graph.constant("at1", [1]), graph.constant("at2", [2]))
    block = graph.constant("block", [_BLOCK])
    whole = graph.add("Mul", graph.add("Div", width, block), block)
    kept = graph.add("Slice", columns, graph.constant("at0", [0]), whole, graph.constant("rows", [1]))
    blocks = graph.add("Reshape", kept, graph.constant("blocks", [0, -1, _BLOCK]))
    phases = graph.add("ReduceMean", blocks, graph.constant("rows", [1]), keepdims=0)
    parts = [
        graph.add("MatMul", phases, graph.weight(name, wave(angles).astype(np.float32)))
        for name, wave in (("cosines", np.cos), ("sines", np.sin))
    ]
    power = graph.add("Add", *(graph.add("Mul", value, value) for value in parts))
    return graph.add("Sqrt", power)


def _linear(graph: Graph, value: str, layer: str) -> str:
    names = [graph.input(f"{layer}.{part}", graph.shapes[f"{layer}.{part}"]) for part in ("weight", "bias")]
    return graph.add("Gemm", value, *names, transB=1)


def _number(graph: Graph, name: str, value: float) -> str:
    return graph.weight(name, np.array(value, np.float32))
