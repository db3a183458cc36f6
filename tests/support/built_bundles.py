"""Bundles that hold engines, for the tests of them: made once for each library, copied for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the bundles of these tests are exported (extras train and export)")

from darsr_deploy.trt import open_bundle as trt_opening
from darsr_deploy.trt import parity as device_check
from darsr_deploy.trt.cache import EngineCache
from darsr_deploy.trt.open_bundle import open_in_tensorrt
from darsr_deploy.trt.shapes import Shapes
from export.artefacts.build_engine import BuildOptions
from export.artefacts.builder import Builder
from export.artefacts.bundle_engines import export_engines
from tests.deploy.bundle.test_bundle import KINDS, _desk, _folders, adapter, desk, made  # noqa: F401, fixtures
from tests.deploy.trt.test_bundle import library_of, machine  # noqa: F401, fixture
from tests.support.commands import told

SHAPES = Shapes((3, 3), (24, 32), (64, 64))


@pytest.fixture
def small_pictures(monkeypatch):
    """Comparing takes most of the time: one picture, still of odd size and of several tiles. All sizes: test_trt_bundle."""
    monkeypatch.setattr(device_check, "_SIZES", ((26, 31),))


@pytest.fixture(scope="module")
def _built_bundles(tmp_path_factory):
    """Bundles with engines by family and sizes: what was said, and a folder with all that building them left."""
    return tmp_path_factory.mktemp("built"), {}


@pytest.fixture
def ready(machine, made, tmp_path, monkeypatch, _built_bundles):
    """Makes a bundle with engines for the GPU at hand: built and compared once, copied with this machine's lists after that."""
    monkeypatch.setenv("DARSR_CACHE", str(tmp_path / "cache"))
    store, said = _built_bundles

    def make(shapes: Shapes = SHAPES, name: str = "b.bundle") -> Path:
        key, target = (machine.family, shapes), tmp_path / name
        kept = store / f"{machine.family} {shapes}"
        if key not in said:
            shutil.copytree(made(), kept / "bundle")
            targets = ("sm_86", "sm_89") if machine.family == "trt-rtx" else ()
            with monkeypatch.context() as patch, told() as said[key]:
                patch.setenv("DARSR_CACHE", str(kept / "cache"))
                patch.setenv("DARSR_STATE", str(kept / "state"))
                options = BuildOptions(shapes, targets)
                export_engines(kept / "bundle", None, library_of(machine), options, lambda path: path)
        make.said = said[key]
        shutil.copytree(kept / "bundle", target)
        for folder in ("cache", "state"):
            shutil.copytree(kept / folder, tmp_path / folder, dirs_exist_ok=True)
        machine.trt.builds = 0
        return target

    return make


@pytest.fixture
def infer(machine, tmp_path):
    """Opens an adapter in a bundle as ``darsr infer`` does; what was said is kept."""
    said: list[str] = []

    def open_adapter(folder: Path, mine=None, trusted: bool = False):
        path = tmp_path / f"{len(list(tmp_path.glob('*.darsr')))}.darsr"
        (mine or adapter(rounds=1)).save(path)
        cache = EngineCache(tmp_path / "cache" / "engines", said.append)
        return open_in_tensorrt(folder, path, library_of(machine), cache, said.append, Builder(), trust=trusted)

    open_adapter.said = said
    return open_adapter


@pytest.fixture
def comparisons(monkeypatch):
    """How often engines were compared with ONNX Runtime."""
    found: list[str] = []
    compare = trt_opening.bundle_parity

    def counted(engine, *rest):
        found.append(engine.inputs.kind)
        return compare(engine, *rest)

    monkeypatch.setattr(trt_opening, "bundle_parity", counted)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
