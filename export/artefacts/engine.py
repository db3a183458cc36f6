"""Build an engine file from an ONNX file, compare it on the device, and record it as trusted."""

from __future__ import annotations

import functools
import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.model_spec import coefficients_path
from darsr_deploy.files.onnx_bytes import read_spec
from darsr_deploy.trt.cuda import Device
from darsr_deploy.trt.engine import TrtEngine
from darsr_deploy.trt.engine_file import EngineFacts, write_engine
from darsr_deploy.trt.library import Library, require_device
from darsr_deploy.trt.parity import Reference, pictures, reference_from_file, require_device_parity
from darsr_deploy.trt.trust import trust

from .build_engine import BuildOptions, Report, build_engine
from .subject import Subject

log = logging.getLogger("darsr")


@dataclass(frozen=True)
class Comparison:
    """Reference and pictures for comparing a built engine on the device.

    Attributes:
        reference: by default ONNX Runtime on the very file, where that is installed.
        photo: 1 x 3 x H x W, to compare on; of form ``filters`` the one that it is for.
        floor_db: least PSNR in dB; by default the precision's own.
    """

    reference: Reference | None = None
    photo: np.ndarray | None = None
    floor_db: float | None = None


def compare_with_torch(subject: Subject, form: str | None = None, floor_db: float | None = None) -> Comparison:
    """Compare with PyTorch in float32, which computes a form of the subject (by default its own)."""

    @functools.cache
    def formed():
        from ..folding.forms import take_form

        return take_form(subject.pipeline, form or subject.spec.form, subject.samples)

    def run(lr: np.ndarray) -> np.ndarray:
        return formed().run(lr, formed().coefficients)

    return Comparison(Reference("PyTorch", run), subject.samples.photo, floor_db)


def build_file(
    onnx: Path,
    target: Path,
    library: Library,
    options: BuildOptions,
    comparison: Comparison = Comparison(),
    *,
    report: Report | None = None,
    key: str = "",
) -> EngineFacts:
    """Build an engine, compare it if this machine has a GPU for it, and write it with its sidecar, whole or not at all.

    Args:
        onnx: a model file of this toolkit; of form ``filters`` with its coefficients beside it.
        key: its name in the cache, if it is for that.

    Raises:
        DarsrError: see :func:`.build_engine.build_engine` and :func:`darsr_deploy.trt.parity.require_device_parity`.
    """
    data, spec = read_spec(onnx)
    coefficients = None
    if spec.form == "filters":
        from darsr_deploy.files.coefficients import read_coefficients

        coefficients = read_coefficients(onnx, spec)
    engine, facts = build_engine(data, spec, library, options, str(target), report)
    facts = replace(facts, cache_key=key)
    why_not = why_not_here(facts)
    if why_not:
        log.info("%s: built, not run yet (%s)", target, why_not)
    else:
        with TrtEngine(target, built=(engine, facts), coefficients=coefficients) as opened:
            reference = comparison.reference or reference_from_file(onnx, spec.precision)
            tests = pictures(facts.shapes, comparison.photo, spec.form == "filters")
            if reference is None:
                log.info("%s: not compared on this device (neither PyTorch nor ONNX Runtime)", target)
            else:
                parity = require_device_parity(opened, reference, tests, str(target), comparison.floor_db)
                facts = replace(facts, device_parity_psnr_db=round(parity, 2))
    if coefficients is not None and coefficients_path(onnx) != coefficients_path(target):
        shutil.copyfile(coefficients_path(onnx), coefficients_path(target))
    facts = write_engine(target, engine, facts)
    trust(facts.sha256)
    return facts


def why_not_here(facts: EngineFacts) -> str:
    """Say why an engine cannot be run on this machine; empty where it can."""
    try:
        with Device() as device:
            require_device("the engine", facts, device)
    except DarsrError as error:
        return error.args[1]
    return ""
