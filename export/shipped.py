"""Make the graphs that come with the package, which run without PyTorch and onnx: ``python -m export.shipped``.

Their weights are inputs and come from the weight files of the package (:mod:`darsr_deploy.bundle.shipped`), so that a new
training of a network of the same size needs no new graphs.
"""

from __future__ import annotations

import re
from pathlib import Path

from onnx import ModelProto, helper

from darsr_deploy.bundle.manifest import Manifest
from darsr_deploy.bundle.shipped import GRAPH_FILES
from darsr_deploy.bundle.weights import USUAL_KERNEL_SIDE, USUAL_WIDTHS
from darsr_deploy.files.atomic import atomic_folder
from darsr_deploy.files.hashing import hash_bytes
from darsr_deploy.files.model_spec import ModelSpec
from darsr_train.backbones import load_backbone
from darsr_train.blind.estimator import load_estimator

from .artefacts.bundle import build_graphs, describe_graphs
from .onnx_graphs.build import inline_functions, serialised
from .onnx_graphs.estimator import estimator

_PRELU = re.compile(r"prelu(?:_(\d+))?_rest")


def write_graphs(target: Path = GRAPH_FILES) -> None:
    """Write the graphs of both scales and the estimator's into a folder, which is replaced."""
    with atomic_folder(target) as folder:
        shapes = {name: list(tensor.shape) for name, tensor in load_estimator().state_dict().items()}
        (folder / "estimator.onnx").write_bytes(serialised(inline_functions(estimator(shapes))))
        for scale in (2, 4):
            _write_bundle(folder / f"x{scale}", scale)


def _write_bundle(folder: Path, scale: int) -> None:
    network = load_backbone("edge", scale)
    side = USUAL_KERNEL_SIDE[scale]
    graphs = build_graphs(network.module, USUAL_WIDTHS, side, "fp32", modulated=True)
    spec = ModelSpec(scale, backbone=network.name)
    manifest = describe_graphs(graphs, spec, USUAL_WIDTHS, side)
    graphs["backbone"] = without_weights(graphs["backbone"])
    contents = {f"{name}.onnx": serialised(inline_functions(graph)) for name, graph in graphs.items()}
    channels = sum(layer.out_channels for layer in (*network.module.body, network.module.tail))
    own = {"files": {name: hash_bytes(data) for name, data in contents.items()}}
    own |= {"modulation_sha256": "given with the weights", "modulated_channels": channels}
    folder.mkdir()
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    Manifest(**vars(manifest) | own).save(folder)


def without_weights(model: ModelProto) -> ModelProto:
    """Return a copy of an ``edge`` network's graph whose weights are inputs, named as in its state.

    Of a PReLU's slopes ``a``, which stand in it as ``1 - a``, the input is ``backbone.activations.N.rest``.
    """
    result = ModelProto()
    result.CopyFrom(model)
    graph, names = result.graph, {}
    for tensor in model.graph.initializer:
        slope = _PRELU.fullmatch(tensor.name)
        if slope:
            names[tensor.name] = f"backbone.activations.{slope.group(1) or 0}.rest"
        elif tensor.name.startswith(("backbone.body.", "backbone.tail.")):
            names[tensor.name] = tensor.name
    kept = [tensor for tensor in graph.initializer if tensor.name not in names]
    given = [tensor for tensor in graph.initializer if tensor.name in names]
    graph.input.extend(helper.make_tensor_value_info(names[t.name], t.data_type, list(t.dims)) for t in given)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return result


if __name__ == "__main__":
    write_graphs()
