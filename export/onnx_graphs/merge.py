"""Merge a backbone that is an ONNX model into the exported graph.

PyTorch exports the rest with a placeholder node for the backbone; then the backbone's graph takes that node's place.
"""

from __future__ import annotations

from onnx import GraphProto, ModelProto
from torch import nn

from darsr_train.backbones.onnx_graph import inner_graphs, opset_of
from darsr_train.backbones.onnx_network import OnnxNetwork

from ..folding.placeholder import DOMAIN, NODE

_PREFIX = "backbone/"  # of every name that comes from the backbone's graph


def opset_for_backbone(backbone: nn.Module, minimum: int) -> int:
    """Return the opset to export with: an ONNX backbone's own where it is newer, for conversion only goes upwards."""
    return max(minimum, opset_of(backbone.model)) if isinstance(backbone, OnnxNetwork) else minimum


def insert_backbone(model: ModelProto, network: OnnxNetwork) -> None:
    """Replace the placeholder node by the backbone's graph, in place.

    Args:
        model: exported with the opset of :func:`opset_for_backbone`.

    Raises:
        DarsrError: the backbone cannot be converted from its own opset to the model's.
    """
    foreign = GraphProto()
    foreign.CopyFrom(network.in_opset(opset_of(model)).graph)
    nodes = list(model.graph.node)
    place = next(i for i, node in enumerate(nodes) if (node.domain, node.op_type) == (DOMAIN, NODE))
    names = {name: _PREFIX + name for name in _names(foreign)}
    _rename(foreign, names | {network.input: nodes[place].input[0], network.output: nodes[place].output[0], "": ""})
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:place], *foreign.node, *nodes[place + 1 :]])
    model.graph.initializer.extend(foreign.initializer)
    model.graph.sparse_initializer.extend(foreign.sparse_initializer)
    model.ir_version = max(model.ir_version, network.model.ir_version)
    known = {entry.domain for entry in model.opset_import}
    model.opset_import.extend(e for e in network.model.opset_import if e.domain not in known | {"ai.onnx"})
    if not network.batches:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1


def _names(graph: GraphProto) -> set[str]:
    """Return every value and weight that a graph, or one inside it, defines."""
    own = {name for node in graph.node for name in node.output} | {value.name for value in graph.input}
    own |= {tensor.name for tensor in graph.initializer} | {tensor.values.name for tensor in graph.sparse_initializer}
    return own.union(*map(_names, inner_graphs(graph.node)))


def _rename(graph: GraphProto, names: dict[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names[name] for name in node.input]
        node.output[:] = [names[name] for name in node.output]
        node.ClearField("metadata_props")  # what an exporter notes there may be paths of its machine
        node.ClearField("doc_string")
    for value in (*graph.input, *graph.output, *graph.initializer, *(t.values for t in graph.sparse_initializer)):
        value.name = names[value.name]
    for inner in inner_graphs(graph.node):
        inner.ClearField("doc_string")
        del inner.value_info[:]
        _rename(inner, names)
