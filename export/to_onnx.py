"""Adapted model -> one ONNX file that any runtime can run."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from onnx import FunctionProto, ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from darsr_deploy.atomic import atomic_path
from darsr_deploy.container import write_container
from darsr_deploy.errors import DarsrError
from darsr_deploy.seal import sealed
from darsr_deploy.spec import (
    COEFFICIENTS_KIND,
    COEFFICIENTS_VERSION,
    METADATA_KEY,
    ModelSpec,
    coefficients_path,
)
from darsr_train.backbones.onnx_cost import multiply_adds
from darsr_train.backbones.onnx_network import OnnxNetwork
from darsr_train.darm import DARM, TAP_OFFSETS
from darsr_train.pipeline import Pipeline

from .fold import fold
from .forms import Formed, GivenFilters, take_form
from .memory import peak_bytes
from .merge import insert_backbone, opset_of
from .parity import FLOORS_DB, cases, measured_parity, require_floor
from .precision import FILTER_DOMAIN as DOMAIN
from .precision import LOW_TYPES, lower, opset_for
from .quantize import EARLY, quantize
from .receptive_field import NotLocal, reach
from .samples import Samples, calibration_crops
from .session import OPSET
from .slopes import slopes_as_convolutions
from .static_reshapes import constant_reshapes


class _ForExport(nn.Module):
    """The folded pipeline with the correction filter as one symbolic node ``darsr::CorrectionFilter``."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__()
        self.correction, self.backbone = pipeline.correction, pipeline.backbone
        self.backprojection = pipeline.backprojection

    def forward(self, lr: Tensor, coeff: Tensor | None = None) -> Tensor:
        if isinstance(self.correction, DARM):
            coeff = self.correction.coefficients(lr)
        if coeff is None:
            corrected = self.correction(lr)
        else:
            corrected = torch.onnx.ops.symbolic(
                f"{DOMAIN}::CorrectionFilter", (lr, coeff), dtype=lr.dtype, shape=lr.shape, version=1
            )
        sr = self.backbone(corrected)
        return (sr if self.backprojection is None else self.backprojection(sr, lr)).clamp(0, 1)


def correction_filter_function(opset: int = OPSET) -> FunctionProto:
    """The body of ``darsr::CorrectionFilter(x, c)`` in standard operators.

    Any float type. ``x`` is N x 3 x H x W (sides of at least 3), ``c`` N x 13 x H x W; reflect padding, then
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


def build_model(pipeline: Pipeline, opset: int = OPSET) -> ModelProto:
    """The float32 ONNX model of a pipeline: input ``lr`` N x 3 x H x W, output ``sr`` N x 3 x sH x sW, N, H and W dynamic.

    With :class:`.forms.GivenFilters` it has a second input ``coeff``, N x 13 x H x W.
    Deterministic: the same weights give the same bytes. Nothing of the machine (paths, times) is in it. A backbone that is
    an ONNX model itself is put in as it is, and its opset, where that is newer, is the file's.

    Raises:
        DarsrError: PyTorch or onnx cannot convert this backbone.
    """
    network = _ForExport(fold(pipeline)).eval()
    opset = opset_of(pipeline.backbone, opset)
    axes = {
        axis: torch.export.Dim(name, min=low) for axis, (name, low) in {0: ("n", 1), 2: ("h", 3), 3: ("w", 3)}.items()
    }
    inputs = {"lr": torch.rand(2, 3, 24, 32)}
    if isinstance(pipeline.correction, GivenFilters):
        inputs["coeff"] = torch.rand(2, 13, 24, 32)
    try:
        with _quiet():
            program = torch.onnx.export(
                network,
                tuple(inputs.values()),
                dynamo=True,
                input_names=list(inputs),
                output_names=["sr"],
                dynamic_shapes=dict.fromkeys(inputs, axes),
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
    model = constant_reshapes(model)
    onnx.checker.check_model(model, full_check=False)
    return model


def typed_model(
    model: ModelProto, precision: str, formed: Formed, samples: Samples, early: int = EARLY[0]
) -> ModelProto:
    """A float32 model in another precision.

    Args:
        early: of int8: the backbone's layers that stay float32, behind its first.
    """
    if precision in LOW_TYPES:
        model = lower(model, precision)
    elif precision == "int8":
        model = quantize(model, _calibration(formed, samples), early)
    elif precision == "fp32":  # the one for CPUs
        model = slopes_as_convolutions(model)
    _strip(model)
    onnx.checker.check_model(model, full_check=False)
    return model


def export_onnx(
    pipeline: Pipeline,
    target: str | Path,
    spec: ModelSpec,
    floor_db: float | None = None,
    samples: Samples | None = None,
) -> dict:
    """Build, verify and write one ONNX file, and beside one of form ``filters`` its coefficients.

    Args:
        spec: form and precision of the file, and what its metadata will say; what is measured here is filled in.
        floor_db: least PSNR against PyTorch; by default the precision's own.
        samples: pictures to test, calibrate and bake with; synthetic ones by default.

    Returns:
        ``{model, precision, form, bytes, sha256, parity_psnr_db, parity_floor_db, macs_per_lr_pixel,
        psnr_from_network_db}``, for int8 ``calibration``, for form ``filters`` ``coefficients`` (their file).

    Raises:
        DarsrError: the file does not compute what PyTorch computes (nothing is written; the line holds the figure),
            no runtime is installed to check it with, or a file cannot be written.
    """
    if spec.precision not in FLOORS_DB:
        raise DarsrError(f"precision {spec.precision}", "is not known", f"choose one of {', '.join(FLOORS_DB)}")
    samples, target = samples or Samples(), Path(target)
    floor = FLOORS_DB[spec.precision] if floor_db is None else floor_db
    formed = take_form(pipeline, spec.form, samples)
    plain = build_model(formed.pipeline, opset_for(spec.precision, OPSET))
    spec = spec.extended(
        opset=plain.opset_import[0].version,
        macs_per_lr_pixel=multiply_adds(plain),
        psnr_from_network_db=formed.psnr_from_network_db,
        calibration=samples.origin if spec.precision == "int8" else "",
        source_sha256=samples.photo_sha256 if formed.psnr_from_network_db is not None else "",
        **_reach(plain),
    )
    with contextlib.ExitStack() as written:
        temporary = written.enter_context(atomic_path(target))
        if formed.coefficients is not None:
            height, width = formed.coefficients.shape[2:]
            beside = written.enter_context(atomic_path(coefficients_path(target)))
            digest = write_container(
                beside, COEFFICIENTS_KIND, COEFFICIENTS_VERSION, {}, {"coeff": formed.coefficients}
            )
            spec = spec.extended(source_height=height, source_width=width, coefficients_sha256=digest)
        # Measured on a first version of the file; the figure then goes into the metadata and the file is final.
        for early in EARLY if spec.precision == "int8" else EARLY[:1]:
            model = typed_model(plain, spec.precision, formed, samples, early)
            spec = spec.extended(bytes_per_lr_pixel=peak_bytes(model))
            _set_metadata(model, spec)
            temporary.write_bytes(serialised(model))
            parity = measured_parity(temporary, cases(formed, samples), spec.precision, target)
            if parity >= floor:
                break
        require_floor(parity, spec.precision, target, floor)
        spec = spec.extended(parity_psnr_db=round(parity, 2))
        _set_metadata(model, spec)
        data = sealed(serialised(model))
        temporary.write_bytes(data)
    facts = {"model": str(target), "precision": spec.precision, "form": spec.form}
    facts |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    facts |= {"parity_psnr_db": spec.parity_psnr_db, "parity_floor_db": floor}
    facts |= {"macs_per_lr_pixel": spec.macs_per_lr_pixel, "psnr_from_network_db": spec.psnr_from_network_db}
    facts |= {"calibration": spec.calibration} if spec.calibration else {}
    return facts | ({"coefficients": str(coefficients_path(target))} if formed.coefficients is not None else {})


def _calibration(formed: Formed, samples: Samples) -> list[dict]:
    """Inputs for the quantizer. Coefficients belong to their pixels, so form ``filters`` is calibrated on its image."""
    if formed.coefficients is None:
        return [{"lr": crop} for crop in calibration_crops(samples)]
    return [{"lr": samples.photo, "coeff": formed.coefficients}]


def serialised(model: ModelProto) -> bytes:
    """The bytes of a model: the same for the same model."""
    return model.SerializeToString(deterministic=True)


def _reach(model: ModelProto) -> dict:
    """What tiles of a model need, as fields of its spec."""
    try:
        found = reach(model)
    except NotLocal as error:
        return {"whole_because": str(error)}
    return {"halo": found.halo, "alignment": found.alignment}


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
