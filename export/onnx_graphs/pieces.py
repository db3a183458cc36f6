"""Build the graphs of a runtime bundle: a model cut where adapters differ, with what differs as inputs.

Pictures are named ``lr`` and ``sr``, weights as in DARM's state (13 taps). Everything is float32, for any N, H and W.

* ``correction``: lr, weights -> corrected. For whole images.
* ``correction_tile``: lr, pooled0, pooled1, weights -> corrected. The attentions' averages are inputs.
* ``stats0``: lr, core, weights -> sum: the sum behind the first average, over the pixels where ``core`` is 1.
* ``stats1``: lr, core, pooled0, weights -> sum: the second attention reads what the first has weighted.
* ``filter``: lr, coeff -> corrected. Coefficients for every pixel, or 1 x 13 x 1 x 1 for all.
* ``backprojection``: sr, lr, kernel -> better: one round.

The graphs are small and written node by node, so an adapter becomes a model without PyTorch's exporter.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from darsr_deploy.bundle.graphs import STAGES
from darsr_train.networks.backprojection import BackProjection

from ..folding.backprojection import BLOCK, RIM, PlainBackProjection
from .correction_filter import correction_filter_function
from .opset import OPSET
from .precision import FILTER_DOMAIN

_IR_VERSION = 10  # of opset 18 to 22, and what ONNX Runtime 1.18 reads
_AT_LR, _AT_SR = ("h", "w"), ("hh", "ww")


def correction(shapes: dict[str, list[int]], opset: int = OPSET) -> ModelProto:
    """Build the correction of a whole image; ``shapes`` as of :func:`darsr_deploy.bundle.weights.weight_shapes`."""
    graph = Graph(opset, shapes)
    features = graph.head()
    for stage in range(STAGES):
        features = graph.stage(features, stage)
        features = graph.weighted(features, stage, graph.add("ReduceMean", features, graph.constant("area", [2, 3])))
    return graph.filtered(graph.conv(features, "tail"))


def correction_tile(shapes: dict[str, list[int]], opset: int = OPSET) -> ModelProto:
    """Build the correction of a tile, given the averages of the whole image: N x C x 1 x 1 each."""
    graph = Graph(opset, shapes)
    features = graph.head()
    for stage in range(STAGES):
        features = graph.weighted(graph.stage(features, stage), stage, graph.pooled(stage))
    return graph.filtered(graph.conv(features, "tail"))


def statistics(shapes: dict[str, list[int]], stage: int, opset: int = OPSET) -> ModelProto:
    """Build the sum over a tile's own pixels of what an attention averages: N x C x 1 x 1.

    ``core`` is 1 x 1 x H x W of ones and zeros. The value before the sum, which tells the reach, is named ``own``.
    """
    graph = Graph(opset, shapes)
    features, core = graph.head(), graph.input("core", [1, 1, *_AT_LR])
    for before in range(stage):
        features = graph.weighted(graph.stage(features, before), before, graph.pooled(before))
    own = graph.add("Mul", graph.stage(features, stage), core, name="own")
    graph.output(graph.add("ReduceSum", own, graph.constant("area", [2, 3])), "sum", ["n", *_channels(shapes), 1, 1])
    return graph.model()


def modulated(backbone: ModelProto) -> ModelProto:
    """Return a copy of a stack of 3x3 convolutions that scales and shifts the result of each, channel by channel.

    ``scale`` and ``shift`` are inputs, one number a channel, layer by layer. Bound as constants, a runtime fuses them into
    the convolutions, so that the copy costs what the original does.

    Args:
        backbone: of an ``edge`` network: lr -> sr; convolutions of other sizes are left as they are.
    """
    model = ModelProto()
    model.CopyFrom(backbone)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    nodes, first = [], 0
    for node in model.graph.node:
        nodes.append(node)
        shape = shapes.get(node.input[1], ()) if node.op_type == "Conv" else ()
        if shape[2:] != (3, 3):
            continue
        value, last = node.output[0], first + shape[0]
        node.output[0] = before = f"{value}_plain"
        ends = {f"{value}_first": [first], f"{value}_last": [last], f"{value}_axes": [1, shape[0], 1, 1]}
        model.graph.initializer.extend(numpy_helper.from_array(np.array(v, np.int64), n) for n, v in ends.items())
        for kind, name, after in (("Mul", "scale", f"{value}_scaled"), ("Add", "shift", value)):
            part, ready = f"{value}_{name}", f"{value}_{name}_4d"
            nodes.append(helper.make_node("Slice", [name, f"{value}_first", f"{value}_last"], [part]))
            nodes.append(helper.make_node("Reshape", [part, f"{value}_axes"], [ready]))
            nodes.append(helper.make_node(kind, [before, ready], [after]))
            before = after
        first = last
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [first]) for name in ("scale", "shift")]
    model.graph.input.extend(inputs)
    onnx.checker.check_model(model)
    return model


def given_filter(opset: int = OPSET) -> ModelProto:
    """Build the correction filter with given coefficients."""
    graph = Graph(opset, {})
    return graph.filtered(graph.input("coeff", ["n", 13, "ch", "cw"]))


def backprojection(scale: int, side: int, opset: int = OPSET) -> ModelProto:
    """Build one round of :class:`darsr_train.networks.backprojection.BackProjection` with a kernel of side x side.

    By blocks, as in :class:`export.folding.backprojection.PlainBackProjection`. The kernel's sixteen shifted copies are
    made from the input: where that is bound as a constant, a runtime folds them when it opens the session.
    """
    fixed = PlainBackProjection(BackProjection(torch.zeros(side, side), scale, 1))
    graph = Graph(opset, {})
    sr, kernel = graph.input("sr", ["n", 3, *_AT_SR]), graph.input("kernel", [side, side])
    far, leading = scale * (BLOCK - 1), graph.constant("leading", [0, 1])
    places = []
    for i in range(BLOCK):
        for j in range(BLOCK):
            pads = [scale * i, scale * j, far - scale * i, far - scale * j]
            moved = graph.add("Pad", kernel, graph.constant(f"place{i}{j}", pads))
            places.append(graph.add("Unsqueeze", moved, leading))
    kernels = graph.add("Concat", *places, axis=0)  # 16, 1, side + far, side + far
    alone, together = graph.constant("alone", [-1, 1, 0, 0]), graph.constant("together", [-1, 3, 0, 0])
    x, y = graph.add("Reshape", sr, alone), graph.add("Reshape", "lr", alone)  # 3N, 1: colours as items of the batch
    stride = scale * BLOCK
    padded = graph.padded(x, fixed.margin, fixed.margin + far)
    reduced = graph.add("Conv", padded, kernels, strides=[stride, stride], kernel_shape=[side + far] * 2)
    reduced = graph.add("DepthToSpace", reduced, blocksize=BLOCK, mode="CRD")
    ends = graph.add("Shape", "lr", start=2, end=4)
    reduced = graph.add("Slice", reduced, graph.constant("first", [0, 0]), ends, graph.constant("spatial", [2, 3]))
    missing = graph.padded(graph.add("Sub", y, reduced), RIM, RIM)
    up = graph.weight("up", fixed.enlarging.numpy())
    detail = graph.add("DepthToSpace", graph.add("Conv", missing, up), blocksize=scale, mode="CRD")
    better = graph.add("Reshape", graph.add("Add", x, detail), together)
    graph.output(better, "better", ["n", 3, *_AT_SR])
    return graph.model()


def _channels(shapes: dict[str, list[int]]) -> list[int]:
    return shapes["head.bias"]


class Graph:
    """A graph builder: values are names, and every method that adds a node returns the name of its result."""

    def __init__(self, opset: int, shapes: dict[str, list[int]]) -> None:
        self.opset, self.shapes = opset, shapes
        self.nodes, self.inputs, self.outputs, self.weights = [], {}, [], {}
        self.input("lr", ["n", 3, *_AT_LR])

    def add(self, kind: str, *inputs: str, name: str = "", domain: str = "", **options: object) -> str:
        name = name or f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], f"{kind}_{len(self.nodes)}", domain=domain, **options))
        return name

    def input(self, name: str, shape: list) -> str:
        self.inputs.setdefault(name, helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def output(self, value: str, name: str, shape: list) -> None:
        self.add("Identity", value, name=name)
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def constant(self, name: str, values: list[int]) -> str:
        return self.weight(name, torch.tensor(values).numpy())

    def weight(self, name: str, array) -> str:
        self.weights[name] = numpy_helper.from_array(array, name)
        return name

    def padded(self, value: str, before: int, behind: int) -> str:
        pads = self.constant(f"pads{before}_{behind}", [0, 0, before, before, 0, 0, behind, behind])
        return self.add("Pad", value, pads, mode="edge")

    def conv(self, value: str, layer: str, stride: int = 1) -> str:
        names = [self.input(f"{layer}.{part}", self.shapes[f"{layer}.{part}"]) for part in ("weight", "bias")]
        side = self.shapes[names[0]][-1]
        strides = {} if stride == 1 else {"strides": [stride, stride]}
        return self.add("Conv", value, *names, pads=[side // 2] * 4, kernel_shape=[side, side], **strides)

    def head(self) -> str:
        return self.conv("lr", "head")

    def stage(self, value: str, stage: int) -> str:
        for layer in ("first", "second"):
            value = self.add("Relu", self.conv(value, f"stages.{stage}.{layer}"))
        return value

    def pooled(self, stage: int) -> str:
        return self.input(f"pooled{stage}", ["n", *_channels(self.shapes), 1, 1])

    def weighted(self, value: str, stage: int, pooled: str) -> str:
        squeezed = self.add("Relu", self.conv(pooled, f"stages.{stage}.squeeze"))
        return self.add("Mul", value, self.add("Sigmoid", self.conv(squeezed, f"stages.{stage}.excite")))

    def filtered(self, coefficients: str) -> ModelProto:
        corrected = self.add("CorrectionFilter", "lr", coefficients, domain=FILTER_DOMAIN)
        self.output(corrected, "corrected", ["n", 3, *_AT_LR])
        return self.model([correction_filter_function(self.opset)])

    def model(self, functions: list | None = None) -> ModelProto:
        graph = helper.make_graph(
            self.nodes, "darsr", list(self.inputs.values()), self.outputs, list(self.weights.values())
        )
        domains = [helper.make_opsetid("", self.opset)]
        domains += [helper.make_opsetid(FILTER_DOMAIN, 1)] if functions else []
        model = helper.make_model(
            graph, producer_name="darsr", opset_imports=domains, functions=functions or [], ir_version=_IR_VERSION
        )
        onnx.checker.check_model(model)
        return model
