"""Export a runtime bundle (:mod:`darsr_deploy.bundle.ort_bundle`) with the graphs of :mod:`export.onnx_graphs.pieces`."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
from onnx import ModelProto
from torch import nn

from darsr_deploy.bundle.manifest import MANIFEST, OWN_ADAPTER, Manifest
from darsr_deploy.bundle.ort_bundle import Bundle, OrtBundleEngine
from darsr_deploy.bundle.weights import kernel_side, weight_shapes, widths_of
from darsr_deploy.engines.tiled import TiledEngine
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.files.atomic import atomic_folder
from darsr_deploy.files.hashing import hash_bytes, hash_file
from darsr_deploy.files.model_spec import ModelSpec
from darsr_train.backbones.onnx_cost import multiply_adds
from darsr_train.blind.modulation import modulated_by
from darsr_train.pipeline import Pipeline

from ..folding.forms import Formed
from ..onnx_graphs import build, pieces
from ..onnx_graphs.memory import peak_bytes
from ..onnx_graphs.opset import OPSET
from ..onnx_graphs.precision import LOW_TYPES, lower, opset_for
from ..onnx_graphs.receptive_field import NotLocal, reach
from ..onnx_graphs.rewrites import slopes_as_convolutions
from ..samples import Samples
from .parity import FLOORS_DB, Case, cases, figure, require_floor, require_headroom

PRECISIONS = ("fp32", "fp16")
Also = Callable[[Path, Path], None]
_TEST_TILE = 24  # LR pixels: several tiles in a test picture


def build_graphs(
    backbone: nn.Module, widths: tuple[int, int], side: int, precision: str, *, modulated: bool = False
) -> dict[str, ModelProto]:
    """Build the graphs of a bundle, by name.

    Args:
        backbone: frozen, or the base of modulated ones, of which adapters bring scales and shifts.
        widths: of the correction network, as of :func:`.widths_of`.
        side: of the kernels of back-projection.
    """
    opset, shapes = opset_for(precision, OPSET), weight_shapes(*widths)
    alone = build.build_model(Pipeline(nn.Identity(), backbone).eval(), opset)
    graphs = {
        "backbone": pieces.modulated(_unclipped(alone)) if modulated else _unclipped(alone),
        "backprojection": pieces.backprojection(backbone.scale, side, opset),
        "correction": pieces.correction(shapes, opset),
        "correction_tile": pieces.correction_tile(shapes, opset),
        "filter": pieces.given_filter(opset),
        "stats0": pieces.statistics(shapes, 0, opset),
        "stats1": pieces.statistics(shapes, 1, opset),
    }
    if precision in LOW_TYPES:
        return {name: lower(graph, precision) for name, graph in graphs.items()}
    return graphs | {"backbone": slopes_as_convolutions(graphs["backbone"])}


def export_bundle(
    pipeline: Pipeline,
    adapter: Adapter,
    target: Path,
    spec: ModelSpec,
    *,
    floor_db: float | None = None,
    samples: Samples | None = None,
    own: Path | None = None,
    also: Also = lambda folder, target: None,
) -> dict:
    """Build, verify and write a runtime bundle.

    Args:
        pipeline: the adapter's.
        target: the folder; one that is there is replaced.
        spec: precision, scale and origin.
        floor_db: least PSNR against PyTorch, whole and in tiles; by default the precision's own.
        own: the adapter's file, to put into the bundle.
        also: puts into the folder what else it is to hold, before that takes the place of ``target``.

    Returns:
        ``{model, precision, form, bytes, sha256, parity_psnr_db, parity_floor_db, macs_per_lr_pixel}``; the checksum is
        that of the manifest.

    Raises:
        DarsrError: another precision than fp32 and fp16; it does not compute what PyTorch computes (nothing is
            written); or it cannot be written.
    """
    if spec.precision not in PRECISIONS:
        raise DarsrError(f"precision {spec.precision}", "a bundle has fp32 or fp16", "leave out --split")
    floor = FLOORS_DB[spec.precision] if floor_db is None else floor_db
    widths, side = widths_of(adapter), kernel_side(adapter)
    networks = modulated_by(adapter.scale, adapter.modulation_sha256) if adapter.modulation_sha256 else None
    base = pipeline.backbone if networks is None else networks.backbone
    graphs = build_graphs(base, widths, side, spec.precision, modulated=networks is not None)
    form, spec = spec.form, spec.extended(form="network", adapter_sha256="", opset=_opset(graphs["backbone"]))
    manifest = describe_graphs(graphs, spec, widths, side)
    if networks is not None:
        channels = {"modulation_sha256": networks.sha256, "modulated_channels": sum(networks.widths)}
        manifest = Manifest(**vars(manifest) | channels)
    with atomic_folder(target) as folder:
        contents = {f"{name}.onnx": build.serialised(build.inline_functions(graph)) for name, graph in graphs.items()}
        contents |= {} if own is None else {OWN_ADAPTER: own.read_bytes()}
        for name, data in contents.items():
            (folder / name).write_bytes(data)
        files = {name: hash_bytes(data) for name, data in contents.items()}
        manifest = Manifest(**vars(manifest) | {"files": files})
        manifest.save(folder)
        with Bundle(folder).engine(adapter, target) as engine:
            parity = _parity(engine, graphs, cases(Formed(pipeline), samples or Samples()), spec.precision)
        require_floor(parity, spec.precision, target, floor)
        spec = manifest.spec.extended(parity_psnr_db=round(parity, 2))
        manifest = Manifest(**vars(manifest) | {"spec": spec})
        manifest.save(folder)
        also(folder, target)
        digest = hash_file(folder / MANIFEST)
        size = sum(path.stat().st_size for path in folder.iterdir())
    facts = {"model": str(target), "precision": spec.precision, "form": form, "bytes": size, "sha256": digest}
    facts |= {"parity_psnr_db": spec.parity_psnr_db, "parity_floor_db": floor}
    return facts | {"macs_per_lr_pixel": spec.macs_per_lr_pixel, "psnr_from_network_db": None}


def describe_graphs(graphs: dict[str, ModelProto], spec: ModelSpec, widths: tuple[int, int], side: int) -> Manifest:
    """Describe the graphs in a manifest that lacks only the checksums of the files."""
    found, why = {}, ""
    for name, graph in graphs.items():
        try:
            pictures = {"lr": 1, "coeff": 1, "core": 1, "sr": Fraction(1, spec.scale)}
            found[name] = reach(graph, pictures, "own" if name.startswith("stats") else None)
        except NotLocal as error:
            why = str(error) if name == "backbone" else why
    halos = {name: found[name].halo if name in found else None for name in graphs}
    macs = [multiply_adds(graphs[name]) for name in ("backbone", "correction")]
    return Manifest(
        spec=spec.extended(macs_per_lr_pixel=None if None in macs else sum(macs)),
        files={},
        weights=weight_shapes(*widths),
        kernel_side=side,
        halos=halos,
        alignment=math.lcm(*(each.alignment for each in found.values())),
        bytes_per_pixel={name: peak_bytes(graph, spec.scale) for name, graph in graphs.items()},
        whole_because=why,
    )


def _parity(engine: OrtBundleEngine, graphs: dict[str, ModelProto], tests: list[Case], precision: str) -> float:
    """Return the worst PSNR in dB against PyTorch: whole, tiled where possible, and for ``fp16`` at true precision."""
    figures = [figure(engine.run(test.lr), test.expected) for test in tests]
    if engine.locality.halo is not None:
        tiled = TiledEngine(engine, _TEST_TILE)
        figures += [figure(tiled.run(test.lr), test.expected) for test in tests]
    if precision in LOW_TYPES:
        figures += [figure(_at_true_precision(engine, graphs, test.lr, precision), test.expected) for test in tests]
    return min(figures)


def _at_true_precision(
    engine: OrtBundleEngine, graphs: dict[str, ModelProto], lr: np.ndarray, precision: str
) -> np.ndarray:
    """Run the graphs in the types that they declare (see :mod:`.reference`)."""
    from .reference import evaluate

    buffers = {"lr": lr}
    for step in engine.inputs.steps():
        bound = engine.inputs.arrays.keys() & {value.name for value in graphs[step.graph].graph.input}
        feeds = {name: buffers[buffer] for name, buffer in step.inputs.items()}
        result = evaluate(graphs[step.graph], feeds | {name: engine.inputs.arrays[name] for name in bound})
        require_headroom(precision, result.peaks)
        buffers[step.to] = result.sr
    return buffers[step.to].clip(0, 1)


def _unclipped(model: ModelProto) -> ModelProto:
    """Remove the final Clip of a backbone: back-projection also needs the values outside [0, 1]."""
    clip = model.graph.node[-1]
    if clip.op_type != "Clip":
        raise ValueError(f"the model ends with {clip.op_type}, expected Clip")
    value, unused = clip.input[0], set(clip.input[1:])
    del model.graph.node[-1]
    for node in model.graph.node:
        node.input[:] = ["sr" if name == value else name for name in node.input]
        node.output[:] = ["sr" if name == value else name for name in node.output]
    unused -= {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in unused]
    del model.graph.initializer[:], model.graph.value_info[:]
    model.graph.initializer.extend(kept)
    return model


def _opset(model: ModelProto) -> int:
    return next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
