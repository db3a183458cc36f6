"""Reshapes whose target is computed from the picture's size -> reshapes by constants, where these say the same.

PyTorch's exporter computes every dynamic size at run time: a chain of small operators for each reshape, through which no
shape inference sees. A 0 (copy this length) and one -1 (whatever is left) say it in the file. Which ones do is found by
running the model at a few sizes.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from darsr_deploy.ort_engine import open_session

from .slopes import names_read

_SIZES = ((1, 8, 11), (2, 13, 9), (3, 10, 12))  # images, height, width: no length follows from another


def constant_reshapes(model: ModelProto) -> ModelProto:
    """The same model; a reshape whose target no constant describes stays as it is.

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
    """Shapes of values, for each of the sizes."""
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
    """The constants that describe all (before, after), None where there are none."""
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
    """Remove what computed the targets, back to the inputs."""
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
