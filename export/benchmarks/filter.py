"""The correction filter alone, in every formulation, on a CPU: ``python -m export.benchmarks.filter``.

All formulations take ``x`` N x 3 x H x W and ``c`` N x 13 x H x W and compute ``y`` as
:func:`export.onnx_graphs.correction_filter.correction_filter_function` does, whose body is the first of them;
docs/correction-filter.md has their costs. PyTorch's plain version stands beside for comparison. Runs alternate in one process.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from darsr_train.networks.darm import TAP_OFFSETS, filter_with_taps, symmetric_basis

from ..onnx_graphs.correction_filter import correction_filter_function
from ..onnx_graphs.opset import OPSET
from ..onnx_graphs.precision import FILTER_DOMAIN
from .timing import alternate, compared, heading, machine, markdown, ort_session, parser, run

_END = 2**31 - 1
_NAMES = [f"c{i}" for i in range(13)]


class _Body:
    """A builder of nodes; every method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.padded = self.op("Pad", "x", self.of([0, 0, 2, 2, 0, 0, 2, 2]), mode="reflect")

    def op(self, kind: str, *inputs: str, into: str | None = None, **attributes: object) -> str:
        result = into or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [result], **attributes))
        return result

    def of(self, values: object, dtype: type = np.int64) -> str:
        return self.op("Constant", value=numpy_helper.from_array(np.asarray(values, dtype)))

    def split(self, what: str, names: list[str]) -> None:
        self.nodes.append(helper.make_node("Split", [what], names, axis=1, num_outputs=len(names)))

    def moved(self, what: str, shifts: tuple[int, ...], axes: list[int]) -> str:
        """Shift something padded by 2: a slice counted from its end, so that no size is needed."""
        starts, ends = [2 + d for d in shifts], [d - 2 if d < 2 else _END for d in shifts]
        return self.op("Slice", what, self.of(starts), self.of(ends), self.of(axes))

    def spatial(self, what: str) -> str:
        """Return height and width of something as a vector."""
        return self.op("Slice", self.op("Shape", what), self.of([2]), self.of([4]))

    def reshaped(self, what: str, front: list[int], sizes_of: str) -> str:
        shape = self.op("Concat", self.of(front), self.spatial(sizes_of), axis=0)
        return self.op("Reshape", what, shape)

    def responses(self, weight: np.ndarray, **attributes: object) -> str:
        return self.op("Conv", self.padded, self.of(weight, np.float32), kernel_shape=[5, 5], **attributes)


def single_taps() -> list[NodeProto]:
    """Multiply each of the 25 shifts by its coefficient: no sums of pairs, twice the products."""
    body, total = _Body(), None
    body.split("c", _NAMES)
    for i in range(25):
        term = body.op("Mul", body.moved(body.padded, (i // 5 - 2, i % 5 - 2), [2, 3]), f"c{min(i, 24 - i)}")
        total = term if total is None else body.op("Add", total, term, into="y" if i == 24 else None)
    return body.nodes


def columns_first() -> list[NodeProto]:
    """Make the five shifts to the side once, so that the others are slices of whole rows."""
    body = _Body()
    body.split("c", _NAMES)
    columns = {dx: body.moved(body.padded, (dx,), [3]) for dx in range(-2, 3)}
    total = body.op("Mul", "c12", "x")
    for i, (dy, dx) in enumerate(TAP_OFFSETS[:12]):
        pair = body.op("Add", body.moved(columns[dx], (dy,), [2]), body.moved(columns[-dx], (-dy,), [2]))
        total = body.op("Add", total, body.op("Mul", f"c{i}", pair), into="y" if i == 11 else None)
    return body.nodes


def _depthwise(body: _Body) -> str:
    """Return the pairs of each colour, N x 3 x 13 x HW, by one-hot kernels."""
    weight = np.tile(symmetric_basis().numpy()[:, None], (3, 1, 1, 1))
    return body.op("Reshape", body.responses(weight, group=3), body.of([0, 3, 13, -1]))


def depthwise_sum() -> list[NodeProto]:
    """Use a one-hot depthwise convolution, a product, ReduceSum."""
    body = _Body()
    products = body.op("Mul", _depthwise(body), body.op("Reshape", "c", body.of([0, 1, 13, -1])))
    total = body.op("ReduceSum", products, body.of([2]), keepdims=0)
    body.op("Reshape", total, body.op("Shape", "x"), into="y")
    return body.nodes


def depthwise_einsum() -> list[NodeProto]:
    """Use a one-hot depthwise convolution, then product and sum as one Einsum."""
    body = _Body()
    pairs, coefficients = _depthwise(body), body.op("Reshape", "c", body.of([0, 13, -1]))
    total = body.op("Einsum", pairs, coefficients, equation="nktp,ntp->nkp")
    body.op("Reshape", total, body.op("Shape", "x"), into="y")
    return body.nodes


def colours_as_batch() -> list[NodeProto]:
    """Use a one-hot convolution of 1 to 13 channels over the colours one by one, a product, ReduceSum."""
    body = _Body()
    body.padded = body.reshaped(body.padded, [-1, 1], body.padded)
    pairs = body.reshaped(body.responses(symmetric_basis().numpy()[:, None]), [-1, 3, 13], "c")
    products = body.op("Mul", pairs, body.op("Unsqueeze", "c", body.of([1])))
    body.op("ReduceSum", products, body.of([2]), keepdims=0, into="y")
    return body.nodes


def dense() -> list[NodeProto]:
    """Use a one-hot convolution of 3 to 39 channels, two thirds of it zeros, split by tap; products, one Sum."""
    body, weight = _Body(), np.einsum("tij,kl->tklij", symmetric_basis().numpy(), np.eye(3)).reshape(39, 3, 5, 5)
    names = [f"pair{i}" for i in range(13)]
    body.split(body.responses(weight), names)
    body.split("c", _NAMES)
    body.op("Sum", *(body.op("Mul", pair, c) for pair, c in zip(names, _NAMES)), into="y")
    return body.nodes


def _present() -> list[NodeProto]:
    return list(correction_filter_function().node)


BODIES: dict[str, Callable[[], list[NodeProto]]] = {
    "13 fused taps (the body)": _present,
    "13 taps, columns first": columns_first,
    "25 taps": single_taps,
    "one-hot depthwise, ReduceSum": depthwise_sum,
    "one-hot depthwise, Einsum": depthwise_einsum,
    "one-hot, colours as batch, ReduceSum": colours_as_batch,
    "one-hot dense, Sum": dense,
}


def model_of(nodes: list[NodeProto]) -> ModelProto:
    """Return the filter alone as a model: inputs ``x`` and ``c``, output ``y``, all sizes dynamic."""
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(FILTER_DOMAIN, 1)]
    function = helper.make_function(FILTER_DOMAIN, "CorrectionFilter", ["x", "c"], ["y"], nodes, opsets[:1])
    x, c, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, "h", "w"])
        for name, channels in (("x", 3), ("c", 13), ("y", 3))
    )
    node = helper.make_node("CorrectionFilter", ["x", "c"], ["y"], domain=FILTER_DOMAIN)
    graph = helper.make_graph([node], "filter", [x, c], [y])
    return helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=10)


BASE = next(iter(BODIES))


def ways(height: int, width: int, threads: int) -> dict[str, Callable[[], object]]:
    """Return every formulation, the present body first, on one random image."""
    x, c = torch.rand(1, 3, height, width), torch.randn(1, 13, height, width)
    feeds = {"x": x.numpy(), "c": c.numpy()}

    def in_runtime(session) -> Callable[[], object]:
        return lambda: session.run(None, feeds)

    made = {name: in_runtime(ort_session(model_of(body()), threads)) for name, body in BODIES.items()}
    made["PyTorch eager, 13 taps"] = lambda: filter_with_taps(x, c)
    return made


@torch.inference_mode()
def bench(sizes: list[tuple[int, int]], threads: list[int], repeats: int) -> list[dict]:
    """Measure each size (width, height) and number of threads: tables ``{height, width, threads, machine, rows}``."""
    tables = []
    for count in threads:
        torch.set_num_threads(count)
        for width, height in sizes:
            timings = alternate(ways(height, width, count), repeats, warm_up=3)
            facts = {"height": height, "width": width, "threads": count, "machine": machine(count)}
            tables.append({**facts, "rows": compared(timings, BASE)})
    return tables


def main() -> None:
    """Print a table for each size and number of threads, or one JSON list."""
    sizes = [(64, 64), (240, 160), (640, 480)]
    given = parser(__doc__, sizes=sizes, threads=[1, 2], repeats=15, json=False).parse_args()
    tables = bench(given.sizes, given.threads, given.repeats)
    if given.json:
        print(json.dumps(tables, indent=1))
        return
    for table in tables:
        print(heading(table["machine"]))
        print(markdown(f"{table['width']} x {table['height']}", BASE, table["rows"]) + "\n")


if __name__ == "__main__":
    run(main)
