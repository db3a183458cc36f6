"""Fixtures of several test files. Nothing heavy is imported here: the tests of darsr_deploy also run where PyTorch is not installed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from tests.support.thrift import keep_exports, keep_to_one_thread

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # for tests that import ONNX Runtime themselves

# No deadline: the machine may be busy, and no test is about time. No database: it would be a folder in the checkout.
settings.register_profile("darsr", deadline=None, database=None, derandomize=True)
settings.load_profile("darsr")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    keep_to_one_thread()


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
def kept_exports(tmp_path_factory) -> Path:
    """What PyTorch's exporter made, in a folder that all processes of this run share: see :mod:`tests.support.thrift`."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "kept exports"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def built_once(kept_exports, monkeypatch):
    """Each network goes through PyTorch's exporter once in a run."""
    keep_exports(kept_exports, monkeypatch.setattr)
