"""Fixtures of several test files. Nothing heavy is imported here: the tests of darsr_deploy also run where PyTorch is not installed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings

# No deadline: the machine may be busy, and no test is about time. No database: it would be a folder in the checkout.
settings.register_profile("darsr", deadline=None, database=None, derandomize=True)
settings.load_profile("darsr")


@pytest.fixture(scope="session")
def _session_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cache(_session_cache, monkeypatch):
    """The user's own cache is never read or written. One folder for all tests: its keys are hashes, so tests cannot mix.

    Nor are backbones in the user's data folder: tests start with those of the package alone.
    """
    monkeypatch.setenv("DARSR_CACHE", str(_session_cache))
    monkeypatch.setenv("DARSR_DATA", str(_session_cache / "no data"))
    monkeypatch.setenv("DARSR_STATE", str(_session_cache / "state"))
    return _session_cache


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A face and a patterned suit: uint8, 80 x 96 x 3. Its three channels differ, so a swap of two would show."""
    data = pytest.importorskip("skimage.data", reason="scikit-image (extra train) brings the photographs")
    image = np.ascontiguousarray(data.astronaut()[100:180, 180:276])
    image.flags.writeable = False  # shared by all tests of the session
    return image


@pytest.fixture(scope="session")
def gray(photo) -> np.ndarray:
    """The same as uint8, 80 x 96."""
    image = photo.mean(2).round().astype(np.uint8)
    image.flags.writeable = False
    return image


@pytest.fixture(scope="session")
def _built():
    return {}


@pytest.fixture
def built_once(_built, monkeypatch):
    """PyTorch's exporter takes seconds: the same weights in the same form go through it once a session."""
    import onnx

    from export.artefacts import model
    from export.onnx_graphs import build
    from export.onnx_graphs.opset import OPSET

    real = build.build_model

    def cached(pipeline, opset=OPSET):
        tensors = [(name, t.numpy().tobytes()) for name, t in pipeline.state_dict().items()]
        key = (str(pipeline), tuple(tensors), opset)
        if key not in _built:
            _built[key] = real(pipeline, opset).SerializeToString(deterministic=True)
        return onnx.load_from_string(_built[key])

    for module in (build, model):
        monkeypatch.setattr(module, "build_model", cached)
