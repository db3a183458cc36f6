"""What Python users import: there, light, and to be called whatever was imported before."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import darsr_deploy
from darsr_deploy import DarsrError, open_engine, upscale

NAMES = ["DarsrError", "adapt", "open_engine", "read_image", "upscale", "write_image"]


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_imports_nothing_else():
    heavy = ("cv2", "numpy", "onnx", "onnxruntime", "tensorrt", "torch")
    assert python(f"import sys, darsr_deploy; print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_every_public_name_is_there():
    assert darsr_deploy.__all__ == NAMES and set(NAMES) <= set(dir(darsr_deploy))
    assert all(callable(getattr(darsr_deploy, name)) for name in NAMES)
    with pytest.raises(AttributeError, match="module 'darsr_deploy' has no attribute 'nothing'"):
        darsr_deploy.nothing  # noqa: B018


def test_a_kind_of_file_that_is_not_known_is_one_line(tmp_path):
    with pytest.raises(
        DarsrError, match=r"model\.tflite: is no model that can be opened; give a bundle, or a file \.onnx or \.engine"
    ):
        open_engine(tmp_path / "model.tflite")


def test_an_onnx_file_is_opened_and_runs(tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx (extra export) writes the model of this test")
    pytest.importorskip("onnxruntime", reason="onnxruntime is an extra")
    from darsr_deploy.files.model_spec import METADATA_KEY, ModelSpec
    from tests.support.onnx_models import onnx_model

    model = onnx_model(
        takes="float[n, 3, h, w] lr",
        gives="float[n, 3, hh, ww] sr",
        body="sr = ConvTranspose <strides = [2, 2], group = 3> (lr, weight)",
    )
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(ModelSpec(2).to_json())})
    onnx.save(model, tmp_path / "M.ONNX")
    image = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    with open_engine(tmp_path / "M.ONNX", threads=1) as engine:
        assert (engine.name, engine.provider, engine.spec.scale) == ("ort", "CPUExecutionProvider", 2)
        assert np.array_equal(upscale(engine, image), image.repeat(2, 0).repeat(2, 1))


def test_an_adapter_is_for_a_bundle_alone(tmp_path):
    with pytest.raises(DarsrError, match=r"model\.onnx: holds its correction, and an adapter was given"):
        open_engine(tmp_path / "model.onnx", adapter=tmp_path / "a.darsr")
    with pytest.raises(DarsrError, match=str(tmp_path)):
        open_engine(tmp_path)  # a folder that is no bundle
