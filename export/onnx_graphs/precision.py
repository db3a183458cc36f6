"""Convert ONNX models to float16 or bfloat16, deciding which layers stay float32.

TensorRT since version 11, and strongly typed engines before, use the types of the file as they are, so the precision is
decided here, once. Input and output stay float32: the casts are inside.
"""

from __future__ import annotations

from collections.abc import Sequence

import ml_dtypes
import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

LOW_TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
SUMS = ("ReduceMean", "ReduceSum", "GlobalAveragePool")  # over all pixels: they grow with the image
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_PICTURE = (1, 3)  # channels: a picture, or its colours one by one
FILTER_DOMAIN = "darsr"
_ALWAYS_FLOAT32 = {"Resize": (1, 2)}  # inputs, by position, that are float32 whatever the type of the others


def lower(model: ModelProto, precision: str) -> ModelProto:
    """Return the same network in ``fp16`` or ``bf16``, with the layers of :func:`kept` in float32.

    Args:
        model: float32 throughout, of an opset that knows the type (see :func:`opset_for`); not changed.
    """
    low = LOW_TYPES[precision]
    model = shape_inference.infer_shapes(model)
    graph = model.graph
    types = {v.name: v.type.tensor_type.elem_type for v in [*graph.value_info, *graph.input, *graph.output]}
    types |= {t.name: t.data_type for t in graph.initializer}
    typed = _Retyped(types, {t.name: numpy_helper.to_array(t) for t in graph.initializer})
    stay = kept(model, precision)
    for index, node in enumerate(graph.node):
        typed.add(node, TensorProto.FLOAT if index in stay else low)
    typed.restore([value.name for value in graph.output])
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(typed.nodes)
    graph.initializer.extend(typed.initializers())
    return model


def opset_for(precision: str, minimum: int) -> int:
    """Return the opset that a file of this precision needs: bfloat16 convolutions came with 22."""
    return max(minimum, 22) if precision == "bf16" else minimum


def kept(model: ModelProto, precision: str) -> set[int]:
    """Return the indices of the nodes that stay float32, chosen by measurement (docs/precision-and-form.md).

    In ``fp16`` only sums over all pixels, which would overflow on a large image. In ``bf16``, whose 8 bits resolve one
    grey level, also the correction filter with its coefficients and whatever carries the picture itself.
    """
    sums = {index for index, node in enumerate(model.graph.node) if node.op_type in SUMS}
    return sums | sensitive(model) if precision == "bf16" else sums


def sensitive(model: ModelProto) -> set[int]:
    """Return the indices of the nodes where an error in a value is an error in the picture.

    * the correction filter and the convolution that makes its coefficients;
    * convolutions that read the picture, its 3 channels or one of them: the first ones, and those of back-projection;
    * everything after the last other convolutions: skips, pixel shuffle, back-projection, clip.
    """
    graph = model.graph
    maker = {name: index for index, node in enumerate(graph.node) for name in node.output}
    weights = {t.name: t.dims for t in graph.initializer}
    found: set[int] = set()
    for index, node in enumerate(graph.node):
        if node.domain == FILTER_DOMAIN:
            found |= {index, *(maker[name] for name in node.input if name in maker)}
        elif _reads_picture(node, weights):
            found.add(index)
    waiting, seen = [value.name for value in graph.output], set()
    while waiting:
        index = maker.get(waiting.pop())
        if index is None or index in seen:
            continue
        if graph.node[index].op_type in WEIGHTED and not _reads_picture(graph.node[index], weights):
            continue
        seen.add(index)
        waiting += graph.node[index].input
    return found | seen


def _reads_picture(node: NodeProto, weights: dict[str, Sequence[int]]) -> bool:
    """Return whether a convolution's input is a picture of 3 channels, or of one."""
    dims = weights.get(node.input[1]) if node.op_type in ("Conv", "ConvTranspose") else None
    if dims is None:
        return False
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    return (dims[0] if node.op_type == "ConvTranspose" else groups * dims[1]) in _PICTURE


class _Retyped:
    """A graph builder: nodes are added in order, with a cast where types differ, once for each value and type."""

    def __init__(self, types: dict[str, int], arrays: dict[str, np.ndarray]) -> None:
        self.types, self.arrays = types, arrays
        self.nodes: list[NodeProto] = []
        self._constants: dict[str, TensorProto] = {}
        self._casts: dict[tuple[str, int], str] = {}

    def add(self, node: NodeProto, wanted: int) -> None:
        floats = [name for name in (*node.input, *node.output) if self.types.get(name) in _FLOATS]
        copied = NodeProto()
        copied.CopyFrom(node)
        if not any(name in node.output for name in floats):  # shapes and the like: they take any type
            for name in node.input:
                self._constant(name, name, self.types.get(name, 0))
            self.nodes.append(copied)
            return
        if node.op_type in ("Cast", "Constant", "ConstantOfShape"):
            wanted = TensorProto.FLOAT
        for position, name in enumerate(node.input):
            fixed = position in _ALWAYS_FLOAT32.get(node.op_type, ())
            copied.input[position] = self._as(name, TensorProto.FLOAT if fixed else wanted)
        self.nodes.append(copied)
        for name in node.output:
            if self.types.get(name) in _FLOATS:
                self.types[name] = wanted

    def restore(self, outputs: list[str]) -> None:
        """Cast outputs that are not float32 back to it, under their old names."""
        for name in outputs:
            if self.types[name] == TensorProto.FLOAT:
                continue
            for node in self.nodes:
                node.input[:] = [f"{name}_low" if n == name else n for n in node.input]
                node.output[:] = [f"{name}_low" if n == name else n for n in node.output]
            self._cast(f"{name}_low", name, TensorProto.FLOAT)

    def initializers(self) -> list[TensorProto]:
        return list(self._constants.values())

    def _as(self, name: str, wanted: int) -> str:
        """Return the name of a value in a type, casting it if need be."""
        current = self.types.get(name)
        if current not in _FLOATS:
            return self._constant(name, name, current or 0)
        if name in self.arrays:
            return self._constant(name, name if wanted == TensorProto.FLOAT else f"{name}.low", wanted)
        if current == wanted:
            return name
        if (name, wanted) not in self._casts:
            self._casts[name, wanted] = self._cast(name, f"{name}_{_FLOATS[wanted]}", wanted)
        return self._casts[name, wanted]

    def _constant(self, name: str, new_name: str, wanted: int) -> str:
        if name in self.arrays and new_name not in self._constants:
            array = self.arrays[name]
            if wanted in _NUMPY:
                with np.errstate(over="ignore"):  # a weight out of range becomes infinite: the parity check fails
                    array = array.astype(_NUMPY[wanted])
            self._constants[new_name] = numpy_helper.from_array(array, new_name)
        return new_name

    def _cast(self, name: str, new_name: str, wanted: int) -> str:
        self.nodes.append(helper.make_node("Cast", [name], [new_name], name=f"Cast_{new_name}", to=wanted))
        return new_name


_FLOATS = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}
_NUMPY = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16, TensorProto.BFLOAT16: ml_dtypes.bfloat16}
