"""Adapted model -> one ONNX file that any runtime can run."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import onnx
import torch
from onnx import FunctionProto, ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from darsr_deploy.atomic import atomic_path
from darsr_deploy.errors import DarsrError
from darsr_deploy.spec import METADATA_KEY, ModelSpec
from darsr_train.backbones.onnx_network import OnnxNetwork
from darsr_train.darm import TAP_OFFSETS
from darsr_train.pipeline import Pipeline

from .fold import fold
from .merge import insert_backbone, opset_of
from .parity import FLOORS_DB, require_parity

OPSET = 18
DOMAIN = "darsr"


class _ForExport(nn.Module):
    """The folded pipeline with the correction filter as one symbolic node ``darsr::CorrectionFilter``."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__()
        self.correction, self.backbone = pipeline.correction, pipeline.backbone

    def forward(self, lr: Tensor) -> Tensor:
        corrected = lr
        if not isinstance(self.correction, nn.Identity):
            coefficients = self.correction.coefficients(lr)
            corrected = torch.onnx.ops.symbolic(
                f"{DOMAIN}::CorrectionFilter", (lr, coefficients), dtype=lr.dtype, shape=lr.shape, version=1
            )
        return self.backbone(corrected).clamp(0, 1)


def correction_filter_function(opset: int = OPSET) -> FunctionProto:
    """The body of ``darsr::CorrectionFilter(x, c)`` in standard operators.

    ``x`` is N x 3 x H x W (sides of at least 3), ``c`` N x 13 x H x W; reflect padding, then
    ``c12 x + sum over i < 12 of c_i (x[+o_i] + x[-o_i])``, accumulated so that no stack of responses is ever in memory.
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
        """The image moved by (dy, dx): a slice of the padded one, counted from its end, so that no size is needed."""
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


def build_model(pipeline: Pipeline) -> ModelProto:
    """The ONNX model of a pipeline: input ``lr`` N x 3 x H x W, output ``sr`` N x 3 x sH x sW, N, H and W dynamic.

    Deterministic: the same weights give the same bytes. Nothing of the machine (paths, times) is in it. A backbone that is
    an ONNX model itself is put in as it is, and its opset, where that is newer, is the file's.

    Raises:
        DarsrError: PyTorch or onnx cannot convert this backbone.
    """
    network = _ForExport(fold(pipeline)).eval()
    opset = opset_of(pipeline.backbone, OPSET)
    axes = {
        axis: torch.export.Dim(name, min=low) for axis, (name, low) in {0: ("n", 1), 2: ("h", 3), 3: ("w", 3)}.items()
    }
    example = torch.rand(2, 3, 24, 32)
    try:
        with _quiet():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                input_names=["lr"],
                output_names=["sr"],
                dynamic_shapes={"lr": axes},
                opset_version=opset,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise DarsrError(
            f"the backbone ({type(pipeline.backbone).__name__})", "PyTorch cannot export it", "use --engine torch"
        ) from error
    model = program.model_proto
    if isinstance(pipeline.backbone, OnnxNetwork):
        insert_backbone(model, pipeline.backbone)
    _strip(model)
    if any(node.domain == DOMAIN for node in model.graph.node):
        model.functions.append(correction_filter_function(opset))
    onnx.checker.check_model(model, full_check=False)
    return model


def export_onnx(pipeline: Pipeline, target: str | Path, spec: ModelSpec, floor_db: float | None = None) -> dict:
    """Build, verify and write one ONNX file.

    Args:
        spec: what the file's metadata will say; its measured parity is filled in here.
        floor_db: least PSNR against PyTorch; by default the precision's own.

    Returns:
        ``{model, bytes, sha256, parity_psnr_db, parity_floor_db}``.

    Raises:
        DarsrError: the file does not compute what PyTorch computes (nothing is written; the line holds the figure),
            no runtime is installed to check it with, or the file cannot be written.
    """
    floor = FLOORS_DB[spec.precision] if floor_db is None else floor_db
    model = build_model(pipeline)
    spec = replace(spec, opset=model.opset_import[0].version)
    target = Path(target)
    with atomic_path(target) as temporary:
        # Measured on a first version of the file; the figure then goes into the metadata and the file is final.
        _set_metadata(model, spec)
        temporary.write_bytes(_serialised(model))
        parity = require_parity(temporary, pipeline, target, floor)
        _set_metadata(model, spec.with_parity(parity))
        data = _serialised(model)
        temporary.write_bytes(data)
    return {
        "model": str(target),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "parity_psnr_db": round(parity, 2),
        "parity_floor_db": floor,
    }


def _serialised(model: ModelProto) -> bytes:
    return model.SerializeToString(deterministic=True)


def _set_metadata(model: ModelProto, spec: ModelSpec) -> None:
    helper.set_model_props(model, {METADATA_KEY: json.dumps(spec.to_json(), sort_keys=True)})


def _strip(model: ModelProto) -> None:
    """Remove what the exporter noted about this machine: stack traces with paths, scopes, producer names of nodes."""
    model.doc_string = model.graph.doc_string = ""
    model.producer_name, model.producer_version = "darsr", ""
    model.graph.name = "darsr"
    for item in [
        model,
        model.graph,
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
        *model.graph.initializer,
    ]:
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"
    for tensor in model.graph.initializer:  # typed fields and raw bytes mean the same: choose raw bytes
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks on stdout, stderr and through loggers even where all is well."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
