"""Export an adapted model to one ONNX file that any runtime can run."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from onnx import ModelProto, helper

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.atomic import atomic_path
from darsr_deploy.files.container import write_container
from darsr_deploy.files.hashing import hash_bytes
from darsr_deploy.files.model_spec import (
    COEFFICIENTS_KIND,
    COEFFICIENTS_VERSION,
    METADATA_KEY,
    ModelSpec,
    coefficients_path,
)
from darsr_deploy.files.onnx_bytes import sealed
from darsr_train.backbones.onnx_cost import multiply_adds
from darsr_train.pipeline import Pipeline

from ..folding.forms import take_form
from ..onnx_graphs.build import build_model, inline_functions, serialised, typed_model
from ..onnx_graphs.memory import peak_bytes
from ..onnx_graphs.opset import OPSET
from ..onnx_graphs.precision import opset_for
from ..onnx_graphs.quantize import EARLY
from ..onnx_graphs.receptive_field import NotLocal, reach
from ..samples import Samples
from .parity import FLOORS_DB, cases, measured_parity, require_floor


def export_onnx(
    pipeline: Pipeline,
    target: str | Path,
    spec: ModelSpec,
    floor_db: float | None = None,
    samples: Samples | None = None,
    *,
    keep_function: bool = False,
) -> dict:
    """Build, verify and write one ONNX file, and beside one of form ``filters`` its coefficients.

    Args:
        spec: form and precision of the file, and what its metadata will say; what is measured here is filled in.
        floor_db: least PSNR against PyTorch; by default the precision's own.
        samples: pictures for the parity check, calibration and baked forms; synthetic ones by default.
        keep_function: leave the correction filter one node, ``darsr::CorrectionFilter``, with its body as a local function:
            for TensorRT with the plugin of :mod:`export.plugin`.

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
            model = model if keep_function else inline_functions(model)
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
    facts |= {"bytes": len(data), "sha256": hash_bytes(data)}
    facts |= {"parity_psnr_db": spec.parity_psnr_db, "parity_floor_db": floor}
    facts |= {"macs_per_lr_pixel": spec.macs_per_lr_pixel, "psnr_from_network_db": spec.psnr_from_network_db}
    facts |= {"calibration": spec.calibration} if spec.calibration else {}
    return facts | ({"coefficients": str(coefficients_path(target))} if formed.coefficients is not None else {})


def _reach(model: ModelProto) -> dict:
    """Return the tile requirements of a model as fields of its spec."""
    try:
        found = reach(model)
    except NotLocal as error:
        return {"whole_because": str(error)}
    return {"halo": found.halo, "alignment": found.alignment}


def _set_metadata(model: ModelProto, spec: ModelSpec) -> None:
    helper.set_model_props(model, {METADATA_KEY: json.dumps(spec.to_json(), sort_keys=True)})
