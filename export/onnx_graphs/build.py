"""Build ONNX models from PyTorch modules, in any precision, with no trace of this machine."""

from __future__ import annotations

import onnx
import torch
from onnx import ModelProto, inliner, numpy_helper, shape_inference
from torch import Tensor, nn

from darsr_deploy.errors import DarsrError
from darsr_train.backbones.onnx_network import OnnxNetwork
from darsr_train.networks.darm import DARM
from darsr_train.pipeline import Pipeline

from ..folding.fold import fold
from ..folding.forms import Formed, GivenFilters
from ..samples import Samples, calibration_crops
from .correction_filter import correction_filter_function
from .merge import insert_backbone, opset_for_backbone
from .opset import CORRECTED, OPSET
from .precision import FILTER_DOMAIN as DOMAIN
from .precision import LOW_TYPES, lower
from .quantize import EARLY, quantize, quiet
from .rewrites import constant_reshapes, slopes_as_convolutions


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


def build_model(pipeline: Pipeline, opset: int = OPSET) -> ModelProto:
    """Build the float32 ONNX model of a pipeline: ``lr`` N x 3 x H x W -> ``sr`` N x 3 x sH x sW, N, H and W dynamic.

    With :class:`export.folding.forms.GivenFilters` it has a second input ``coeff``, N x 13 x H x W.
    Deterministic: the same weights give the same bytes, without paths or times. A backbone that is an ONNX model already is
    inserted as it is, and its opset, if newer, becomes the file's.

    Raises:
        DarsrError: PyTorch or onnx cannot convert this backbone.
    """
    network = _ForExport(fold(pipeline)).eval()
    opset = opset_for_backbone(pipeline.backbone, opset)
    axes = {
        axis: torch.export.Dim(name, min=low) for axis, (name, low) in {0: ("n", 1), 2: ("h", 3), 3: ("w", 3)}.items()
    }
    inputs = {"lr": torch.rand(2, 3, 24, 32)}
    if isinstance(pipeline.correction, GivenFilters):
        inputs["coeff"] = torch.rand(2, 13, 24, 32)
    try:
        with quiet("torch.onnx"):
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
    strip(model)
    for node in [node for node in model.graph.node if node.domain == DOMAIN]:
        _rename(model, node.output[0], CORRECTED)
        model.functions.append(correction_filter_function(opset))
    model = constant_reshapes(model)
    onnx.checker.check_model(model, full_check=False)
    return model


def typed_model(
    model: ModelProto, precision: str, formed: Formed, samples: Samples, early: int = EARLY[0]
) -> ModelProto:
    """Convert a float32 model to another precision.

    Args:
        early: number of the backbone's layers after its first that stay float32 in int8.
    """
    if precision in LOW_TYPES:
        model = lower(model, precision)
    elif precision == "int8":
        model = quantize(model, _calibration(formed, samples), early)
    elif precision == "fp32":  # the one for CPUs
        model = slopes_as_convolutions(model)
    strip(model)
    onnx.checker.check_model(model, full_check=False)
    return model


def inline_functions(model: ModelProto) -> ModelProto:
    """Replace the correction filter by its standard operators and add the inferred shapes of all values.

    ONNX Runtime and TensorRT read local functions; OpenVINO, ncnn, onnx2tf, Core ML and RKNN do not.
    """
    model = shape_inference.infer_shapes(inliner.inline_local_functions(model))
    domains = [entry for entry in model.opset_import if entry.domain != DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(domains)
    strip(model)
    onnx.checker.check_model(model, full_check=False)
    return model


def _rename(model: ModelProto, value: str, name: str) -> None:
    for node in model.graph.node:
        node.input[:] = [name if old == value else old for old in node.input]
        node.output[:] = [name if old == value else old for old in node.output]


def _calibration(formed: Formed, samples: Samples) -> list[dict]:
    """Return inputs for the quantizer; form ``filters`` is calibrated on its image, whose pixels its coefficients belong to."""
    if formed.coefficients is None:
        return [{"lr": crop} for crop in calibration_crops(samples)]
    return [{"lr": samples.photo, "coeff": formed.coefficients}]


def serialised(model: ModelProto) -> bytes:
    """Return the bytes of a model: the same for the same model."""
    return model.SerializeToString(deterministic=True)


def strip(model: ModelProto) -> None:
    """Remove the exporter's notes about this machine: stack traces with paths, scopes, names of nodes."""
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
