"""What tests of TensorRT share: a fake GPU with a fake library, and small model files of this toolkit."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
from onnx import helper

from darsr_deploy.files.container import write_container
from darsr_deploy.files.model_spec import (
    COEFFICIENTS_KIND,
    COEFFICIENTS_VERSION,
    METADATA_KEY,
    ModelSpec,
    coefficients_path,
)
from darsr_deploy.files.onnx_bytes import read_spec
from darsr_deploy.trt import cuda as cuda_driver
from darsr_deploy.trt.engine_file import write_engine
from darsr_deploy.trt.library import FAMILIES, import_library
from darsr_deploy.trt.shapes import Shapes
from darsr_deploy.trt.trust import trust
from export.artefacts.build_engine import BuildOptions, build_engine
from export.onnx_graphs.correction_filter import correction_filter_function
from export.onnx_graphs.precision import LOW_TYPES, lower, opset_for
from tests.support.fake_cuda import FakeDriver
from tests.support.fake_tensorrt import fake_tensorrt
from tests.support.onnx_models import onnx_model

# Every API that the code speaks.
LIBRARIES = [("trt", "10.3.0.26"), ("trt", "10.13.3.9"), ("trt", "11.4.0.106"), ("trt-rtx", "1.7.1.116")]
DYNAMIC, STATIC = Shapes((8, 8), (24, 32), (48, 64)), Shapes((24, 32), (24, 32), (24, 32))


@dataclass
class Machine:
    """A fake GPU with a fake TensorRT on it."""

    driver: FakeDriver
    trt: ModuleType
    family: str

    def build(self, onnx_file: Path, shapes: Shapes = DYNAMIC, trusted: bool = True, **changed: object) -> Path:
        """An engine file beside the model file; ``changed`` facts are lies."""
        data, spec = read_spec(onnx_file)
        library = import_library(FAMILIES[self.family])
        engine, facts = build_engine(data, spec, library, BuildOptions(shapes), str(onnx_file))
        path = onnx_file.with_suffix(".engine")
        facts = write_engine(path, engine, replace(facts, **changed))
        if trusted:
            trust(facts.sha256)
        return path


def install(monkeypatch, family: str, version: str, driver: FakeDriver | None = None) -> Machine:
    """Put a fake GPU and one family of a fake TensorRT into this process; the other family is not installed."""
    driver = driver or FakeDriver()
    trt = fake_tensorrt(family, version, driver)
    monkeypatch.setattr(cuda_driver, "load_library", driver.library)
    uninstall(monkeypatch)
    monkeypatch.setitem(sys.modules, FAMILIES[family].modules[0], trt)
    return Machine(driver, trt, family)


def uninstall(monkeypatch) -> None:
    """No TensorRT, whatever is installed here."""
    from darsr_deploy.trt import library as trt_library

    real = trt_library.importlib.util.find_spec
    names = {name for family in FAMILIES.values() for name in family.modules}

    def find(name: str):
        return real(name) if name not in names or getattr(sys.modules.get(name), "classes", None) else None

    monkeypatch.setattr(trt_library, "installed", lambda family: next((n for n in family.modules if find(n)), None))


def model_file(path: Path, precision: str = "fp32", form: str = "none", **facts: object) -> Path:
    """A model file as ``darsr export`` writes it, made without an exporter: two convolutions, or the filter alone."""
    body = """
        features = Conv <pads = [1, 1, 1, 1]> (lr, first)
        active = PRelu (features, slope)
        deep = Conv <pads = [1, 1, 1, 1]> (active, last)
        big = DepthToSpace <blocksize = 2> (deep)
        sr = Clip (big, low, high)
    """
    random = np.random.default_rng(3)
    weights = {"first": 0.3 * random.random((4, 3, 3, 3)), "slope": np.full((4, 1, 1), 0.2), "low": 0.0, "high": 1.0}
    weights |= {"last": 0.1 * random.random((12, 4, 3, 3))}
    takes = "float[n, 3, h, w] lr"
    if form == "filters":
        takes += ", float[n, 13, h, w] coeff"
        body = body.replace("(lr, first)", "(corrected, first)")
    arrays = {name: np.asarray(array, np.float32) for name, array in weights.items()}
    opset = opset_for(precision, 18)
    model = onnx_model(body, takes=takes, gives="float[n, 3, hh, ww] sr", opset=opset, ir_version=10, **arrays)
    if form == "filters":
        node = helper.make_node("CorrectionFilter", ["lr", "coeff"], ["corrected"], domain="darsr")
        model.graph.node.insert(0, node)
        model.functions.append(correction_filter_function(18))
        model.opset_import.append(helper.make_opsetid("darsr", 1))
    if precision in LOW_TYPES:
        model = lower(model, precision)
    spec = ModelSpec(2, form=form, precision=precision, backbone="test", parity_psnr_db=99.0, macs_per_lr_pixel=1)
    spec = spec.extended(**facts)
    helper.set_model_props(model, {METADATA_KEY: json.dumps(spec.to_json())})
    onnx.save(model, path)
    return path


def filters_file(path: Path, height: int = 24, width: int = 32) -> Path:
    """A model file of form filters with the coefficients of its one image beside it."""
    coefficients = np.random.default_rng(1).normal(0, 0.1, (1, 13, height, width)).astype(np.float32)
    beside = coefficients_path(path)
    digest = write_container(beside, COEFFICIENTS_KIND, COEFFICIENTS_VERSION, {}, {"coeff": coefficients})
    return model_file(path, form="filters", source_height=height, source_width=width, coefficients_sha256=digest)


def image(height: int, width: int, seed: int = 0, n: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random((n, 3, height, width), np.float32)
