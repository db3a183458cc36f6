"""From an ONNX file to an engine that was checked and may be loaded: into a file, or into the cache."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
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

Say = Callable[[str], None]


def build_file(
    onnx: Path,
    target: Path,
    library: Library,
    options: BuildOptions,
    say: Say,
    report: Report | None = None,
    reference: Reference | None = None,
    photo: np.ndarray | None = None,
    floor_db: float | None = None,
    key: str = "",
) -> EngineFacts:
    """Build an engine, run it where a GPU that it is for is at hand, and write it with its sidecar, whole or not at all.

    Args:
        onnx: a model file of this toolkit; of form ``filters`` with its coefficients beside it.
        reference: what it is compared with on the device; by default ONNX Runtime on the file, where that is installed.
        photo: 1 x 3 x H x W, to compare on; of form ``filters`` the one that it is for.

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
    why_not = runs_here(facts)
    if why_not:
        say(f"{target}: built, not run yet ({why_not})")
    else:
        with TrtEngine(target, built=(engine, facts), coefficients=coefficients) as opened:
            compared = reference or reference_from_file(onnx, spec.precision)
            tests = pictures(facts.shapes, photo, spec.form == "filters")
            if compared is None:
                say(f"{target}: not compared with anything on this device (no PyTorch, no ONNX Runtime)")
            else:
                parity = require_device_parity(opened, compared, tests, str(target), floor_db)
                facts = replace(facts, device_parity_psnr_db=round(parity, 2))
    if coefficients is not None and coefficients_path(onnx) != coefficients_path(target):
        shutil.copyfile(coefficients_path(onnx), coefficients_path(target))
    facts = write_engine(target, engine, facts)
    trust(facts.sha256)
    return facts


def runs_here(facts: EngineFacts) -> str:
    """Why an engine cannot be run on this machine; empty where it can."""
    try:
        with Device() as device:
            require_device("the engine", facts, device)
    except DarsrError as error:
        return error.args[1]
    return ""
