"""The correction filter in standard ONNX operators."""

from __future__ import annotations

import onnx
from onnx import FunctionProto, TensorProto, helper

from darsr_train.networks.darm import TAP_OFFSETS

from .opset import OPSET
from .precision import FILTER_DOMAIN as DOMAIN


def correction_filter_function(opset: int = OPSET) -> FunctionProto:
    """Write the body of ``darsr::CorrectionFilter(x, c)`` in standard operators.

    Any float type. ``x`` is N x 3 x H x W (sides of at least 3), ``c`` N x 13 x H x W; reflect padding, then
    ``c12 x + sum over i < 12 of c_i (x[+o_i] + x[-o_i])``, accumulated so that no stack of responses is held in memory.
    """
    nodes: list[onnx.NodeProto] = []

    def constant(name: str, values: list[int]) -> str:
        nodes.append(
            helper.make_node(
                "Constant", [], [name], value=helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
            )
        )
        return name

    def shifted(name: str, dy: int, dx: int) -> str:
        """Shift the image by (dy, dx): a slice of the padded one, counted from its end, so that no size is needed."""
        starts = constant(f"{name}_starts", [2 + dy, 2 + dx])
        ends = constant(f"{name}_ends", [d - 2 if d < 2 else 2**31 - 1 for d in (dy, dx)])
        nodes.append(helper.make_node("Slice", ["padded", starts, ends, "spatial"], [name]))
        return name

    constant("spatial", [2, 3])
    nodes.append(helper.make_node("Pad", ["x", constant("pads", [0, 0, 2, 2, 0, 0, 2, 2])], ["padded"], mode="reflect"))
    nodes.append(helper.make_node("Split", ["c"], [f"c{i}" for i in range(13)], axis=1, num_outputs=13))
    nodes.append(helper.make_node("Mul", ["c12", "x"], ["sum12"]))
    previous = "sum12"
    for i, (dy, dx) in enumerate(TAP_OFFSETS[:12]):
        nodes.append(
            helper.make_node("Add", [shifted(f"before{i}", dy, dx), shifted(f"behind{i}", -dy, -dx)], [f"pair{i}"])
        )
        nodes.append(helper.make_node("Mul", [f"c{i}", f"pair{i}"], [f"term{i}"]))
        result = "y" if i == 11 else f"sum{i}"
        nodes.append(helper.make_node("Add", [previous, f"term{i}"], [result]))
        previous = result
    return helper.make_function(DOMAIN, "CorrectionFilter", ["x", "c"], ["y"], nodes, [helper.make_opsetid("", opset)])
