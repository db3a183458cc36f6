"""Compute the receptive field of a graph: the pixels that a tile needs around its own.

Every operator of a super-resolution network maps an interval of its output's rows to the interval of its input's rows that
it reads. Walking the graph backwards with these intervals, in whole numbers, gives the exact reach of the result.

Borders need no extra care: a tile near the image's border ends there, so only there is anything padded. Mirrored and
repeated pixels lie no farther inside than the pixels they stand for lie outside, and the reach is the same on both sides,
so a tile always holds them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from onnx import ModelProto, NodeProto, helper, inliner, numpy_helper

Interval = tuple[int, int]  # first and last row, both included; rows outside the image have numbers too


class NotLocal(ValueError):
    """Raised for a graph whose result at a pixel depends on the whole picture, or on an unknown part of it."""


@dataclass(frozen=True)
class Reach:
    """The input pixels that a pixel of the result depends on.

    Attributes:
        halo: LR pixels around a tile that its own pixels depend on.
        alignment: tiles must start at multiples of this, in LR pixels; 1 where nothing is reduced below the LR size.
    """

    halo: int
    alignment: int = 1


def reach(model: ModelProto, steps: dict[str, Fraction | int] | None = None, target: str | None = None) -> Reach:
    """Return the reach of a graph.

    Args:
        steps: the inputs that are pictures, each with its LR pixels per pixel (1/2 for a picture at scale 2); by
            default ``lr`` and ``coeff`` at 1, whichever the graph has.
        target: the value in question; the first output by default.

    Raises:
        NotLocal: names the operator that is not known to be local.
    """
    graph = inliner.inline_local_functions(model).graph
    names = {value.name for value in graph.input}
    steps = dict.fromkeys(("lr", "coeff"), 1) if steps is None else steps
    step = {name: Fraction(value) for name, value in steps.items() if name in names}
    pictures = list(step)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in graph.input}
    shapes |= {name: list(tensor.dims) for name, tensor in constants.items()}
    target = target or graph.output[0].name
    found: list[tuple[NodeProto, Local]] = []
    broken: dict[
        str, NotLocal
    ] = {}  # values that are not local, and why: no matter where the target does not need them
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = helper.get_node_attr_value(node, "value")
            continue
        read = [name for name in node.input if name in step or name in broken]
        if not read or node.op_type == "Shape":
            continue
        try:
            for name in read:
                if name in broken:
                    raise broken[name]
            local = _local(node, {step[name] for name in read}, _Known(constants, shapes))
        except NotLocal as why:
            broken |= dict.fromkeys(node.output, why)
            continue
        found.append((node, local))
        step |= dict.fromkeys(node.output, step[read[0]] * local.shrinks)
    if target in broken:
        raise broken[target]
    if target not in step:
        raise NotLocal(f"{target} does not depend on the picture")
    alignment = math.lcm(*(value.numerator for value in step.values()))
    needed = {target: (0, int(alignment / step[target]) - 1)}
    for node, local in reversed(found):
        wanted = [needed[name] for name in node.output if name in needed]
        if not wanted:
            continue
        first, last = local.reads((min(w[0] for w in wanted), max(w[1] for w in wanted)))
        for name in node.input:
            if name in step:
                known = needed.get(name, (first, last))
                needed[name] = (min(first, known[0]), max(last, known[1]))
    halos = [0]
    for name in pictures:
        if name in needed:
            first, last = needed[name]
            halos += [math.ceil(-first * step[name]), math.ceil((last + 1) * step[name]) - alignment]
    return Reach(max(halos), alignment)


@dataclass(frozen=True)
class Local:
    """An operator: how many times smaller its result is, and which rows it reads for some rows of its result."""

    shrinks: Fraction
    reads: Callable[[Interval], Interval]


@dataclass(frozen=True)
class _Known:
    constants: dict
    shapes: dict[str, list[int]]

    def kernel(self, node: NodeProto) -> list[int]:
        """Return height and width of a convolution's kernel."""
        if node.input[1] not in self.shapes:
            raise NotLocal(f"{node.op_type} whose kernel is computed")
        return self.shapes[node.input[1]][2:]

    def values(self, node: NodeProto, position: int) -> list | None:
        """Return a constant input as a list; None where it is left out.

        Raises:
            NotLocal: it is computed.
        """
        if position >= len(node.input) or not node.input[position]:
            return None
        if node.input[position] not in self.constants:
            raise NotLocal(f"{node.op_type} whose parameters are computed")
        return np.atleast_1d(numpy_helper.to_array(self.constants[node.input[position]])).tolist()


_PIXELWISE = frozenset(
    [
        "Abs",
        "Add",
        "BatchNormalization",
        "Cast",
        "Ceil",
        "Clip",
        "Concat",
        "DequantizeLinear",
        "Div",
        "Dropout",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Log",
        "Max",
        "Min",
        "Mish",
        "Mul",
        "Neg",
        "PRelu",
        "Pow",
        "QuantizeLinear",
        "Reciprocal",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Split",
        "Sqrt",
        "Sub",
        "Tanh",
        "Where",
    ]
)
_POOLING = frozenset(["GlobalAveragePool", "GlobalMaxPool", "InstanceNormalization"])
_CHANNELS = 1


def _local(node: NodeProto, sizes: set[Fraction], known: _Known) -> Local:
    if len(sizes) > 1:
        raise NotLocal(f"{node.op_type} reads pictures of different sizes")
    options = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    kind = node.op_type
    if kind in _PIXELWISE:
        if kind in ("Concat", "Split") and options.get("axis", 0) not in (_CHANNELS, -3):
            raise NotLocal(f"{kind} along rows or columns")
        return _PLAIN
    if kind in ("ReduceMean", "ReduceSum", "ReduceMax", "Softmax", "LogSoftmax"):
        axes = known.values(node, 1) or options.get("axes") or [options.get("axis", -1)]
        if set(axes) <= {_CHANNELS, -3}:
            return _PLAIN
        raise NotLocal(f"{kind} over the whole picture")
    if kind in _POOLING:
        raise NotLocal(f"{kind} over the whole picture")
    rule = _RULES.get(kind)
    if rule is None:
        raise NotLocal(f"{kind} is not known to be local")
    return rule(node, options, known)


def _convolution(node: NodeProto, options: dict, known: _Known) -> Local:
    kernel = options.get("kernel_shape") or known.kernel(node)
    reads = [_window(node, options, kernel, axis) for axis in (0, 1)]
    if len({shrinks for shrinks, _, _ in reads}) > 1:
        raise NotLocal(f"{node.op_type} whose strides differ")
    stride = reads[0][0]
    before, behind = max(pad for _, pad, _ in reads), max(tail for _, _, tail in reads)
    return Local(Fraction(stride), lambda rows: (rows[0] * stride - before, rows[1] * stride + behind))


def _transposed(node: NodeProto, options: dict, known: _Known) -> Local:
    kernel = options.get("kernel_shape") or known.kernel(node)
    if options.get("output_shape"):
        raise NotLocal(f"{node.op_type} with a given output size")
    reads = [_window(node, options, kernel, axis) for axis in (0, 1)]
    if len({shrinks for shrinks, _, _ in reads}) > 1:
        raise NotLocal(f"{node.op_type} whose strides differ")
    stride = reads[0][0]
    # a row j of the result has taps j + pad - stride * i for rows i of the input, from 0 to the kernel's last
    pad, last = max(pad for _, pad, _ in reads), max(tail for _, _, tail in reads)
    return Local(Fraction(1, stride), lambda rows: (-((last - rows[0]) // stride), (rows[1] + pad) // stride))


def _window(node: NodeProto, options: dict, kernel: list[int], axis: int) -> tuple[int, int, int]:
    """Return the stride, and the rows read before and after the one where a row of the result starts, along one axis."""
    automatic = options.get("auto_pad", b"NOTSET").decode()
    span = options.get("dilations", [1, 1])[axis] * (kernel[axis] - 1)
    stride = options.get("strides", [1, 1])[axis]
    if automatic == "VALID":
        return stride, 0, span
    if automatic != "NOTSET":
        raise NotLocal(f"{node.op_type} with automatic padding {automatic}")
    pad = options.get("pads", [0, 0, 0, 0])[axis]
    return stride, pad, span - pad


def _shuffle(node: NodeProto, options: dict, known: _Known) -> Local:
    block = options["blocksize"]
    if node.op_type == "DepthToSpace":
        return Local(Fraction(1, block), lambda rows: (rows[0] // block, rows[1] // block))
    return Local(Fraction(block), lambda rows: (rows[0] * block, rows[1] * block + block - 1))


def _pad(node: NodeProto, options: dict, known: _Known) -> Local:
    if options.get("mode") == b"wrap":
        raise NotLocal("Pad that wraps around")
    pads = options.get("pads") or known.values(node, 1)
    axes = known.values(node, 3) or range(len(pads) // 2)
    fronts = {axis % 4: pads[i] for i, axis in enumerate(axes)}
    fronts = [fronts.get(2, 0), fronts.get(3, 0)]
    return Local(Fraction(1), lambda rows: (rows[0] - max(fronts), rows[1] - min(fronts)))


def _slice(node: NodeProto, options: dict, known: _Known) -> Local:
    starts = known.values(node, 1)  # where a slice ends matters to the size alone
    axes = known.values(node, 3) or range(len(starts))
    strides = known.values(node, 4) or [1] * len(starts)
    spatial = {axis % 4: (start, step) for axis, start, step in zip(axes, starts, strides) if axis % 4 > _CHANNELS}
    spatial = [spatial.get(axis, (0, 1)) for axis in (2, 3)]
    if any(start < 0 or step != 1 for start, step in spatial):
        raise NotLocal("Slice that counts from the end of the picture, or skips rows")
    fronts = [start for start, _ in spatial]
    return Local(Fraction(1), lambda rows: (rows[0] + min(fronts), rows[1] + max(fronts)))


def _reshape(node: NodeProto, options: dict, known: _Known) -> Local:
    target = known.values(node, 1)
    if len(target) != 4 or target[2:] != [0, 0] or options.get("allowzero"):
        raise NotLocal("Reshape of rows or columns")
    return _PLAIN


def _resize(node: NodeProto, options: dict, known: _Known) -> Local:
    mode = options.get("mode", b"nearest").decode()
    where = options.get("coordinate_transformation_mode", b"half_pixel").decode()
    if options.get("antialias") or where not in ("half_pixel", "pytorch_half_pixel", "asymmetric"):
        raise NotLocal(f"Resize ({where}{', antialiased' if options.get('antialias') else ''})")
    scales = known.values(node, 2)
    if not scales or scales[-2] != scales[-1]:
        raise NotLocal("Resize whose scale is computed, or differs between the axes")
    scale = Fraction(scales[-1]).limit_denominator(64)
    shift = Fraction(0) if where == "asymmetric" else Fraction(1, 2)
    more = {"nearest": (0, 0), "linear": (0, 0), "cubic": (1, 1)}[mode]

    def reads(rows: Interval) -> Interval:
        first, last = ((row + shift) / scale - shift for row in rows)
        return math.floor(first) - more[0], math.ceil(last) + more[1]

    return Local(1 / scale, reads)


_PLAIN = Local(Fraction(1), lambda rows: rows)
_RULES = {
    "Conv": _convolution,
    "MaxPool": _convolution,
    "AveragePool": _convolution,
    "ConvTranspose": _transposed,
    "DepthToSpace": _shuffle,
    "SpaceToDepth": _shuffle,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "Resize": _resize,
}
