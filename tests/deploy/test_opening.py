"""The one door to runnable files: what each kind of file runs in, and what is checked before."""

from __future__ import annotations

import pytest

from darsr_deploy import DarsrError, open_engine

pytest.importorskip("torch", reason="the models of these tests are exported (extras train and export)")

from darsr_deploy.engines.ort import OrtEngine
from darsr_deploy.files.folders import engines_folder
from darsr_deploy.trt.open_bundle import close_bundles
from export.artefacts.builder import Builder
from tests.deploy.bundle.test_bundle import _folders, adapter, made  # noqa: F401, fixtures
from tests.support.gpu import LIBRARIES, image, install, model_file


@pytest.fixture(params=[LIBRARIES[0], LIBRARIES[3]], ids=lambda p: p[0])
def machine(request, monkeypatch, tmp_path):
    monkeypatch.setenv("DARSR_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("DARSR_CACHE", str(tmp_path / "cache"))
    machine = install(monkeypatch, *request.param)
    yield machine
    close_bundles()
    assert machine.driver.left_over() == {}


def test_a_model_runs_in_tensorrt_once_somebody_built_its_engine(machine, tmp_path):
    model, said = model_file(tmp_path / "m.onnx"), []
    with pytest.raises(DarsrError, match=r"is no engine, and there is none for Fake RTX yet; build it: darsr export"):
        open_engine(model, engine=machine.family)
    with open_engine(model, engine="trt", builder=Builder(), say=said.append) as engine:
        assert engine.name == machine.family
    assert len(said) == 1 and said[0].startswith("building the TensorRT") and machine.trt.builds == 1
    lr = image(24, 32)
    with open_engine(model, engine=machine.family) as engine, OrtEngine(model) as reference:  # from the cache
        assert abs(engine.run(lr) - reference.run(lr)).max() < 1e-6
    (kept,) = engines_folder().glob("*.engine")
    kept.write_bytes(b"none")
    with (
        pytest.warns(RuntimeWarning, match=r"cannot be used \(is damaged"),
        pytest.raises(DarsrError, match="build it"),
    ):
        open_engine(model, engine=machine.family)
    assert machine.trt.builds == 1


@pytest.mark.parametrize(("asked", "why"), [({"scale": 4}, "scale 2, asked for 4; use --scale 2"),
                                            ({"precision": "int8"}, "precision fp32, asked for int8")])  # fmt: skip
def test_another_scale_or_precision_than_the_files(machine, made, tmp_path, asked, why):
    model = model_file(tmp_path / "m.onnx")
    for path, engine in (
        (model, "ort"),
        (model, "trt"),
        (machine.build(model), "auto"),
        (made(), "ort"),
        (made(), "trt"),
    ):
        with pytest.raises(DarsrError, match=rf"{path.name}: is a model of {why}"):
            open_engine(path, engine=engine, **asked)
    assert machine.trt.builds == 1  # the one of this test


def test_the_backbone_alone_and_adapters_of_another_version(machine, made, tmp_path):
    lr, folder = image(24, 32), made()
    with open_engine(folder, backbone_alone=True) as engine:
        assert engine.spec.form == "none"
        alone = engine.run(lr)
    with open_engine(folder, engine="trt", builder=Builder(), say=print, backbone_alone=True) as engine:
        assert abs(engine.run(lr) - alone).max() < 2e-6
    newer = adapter("global")
    newer.arrays["mirror"] = newer.arrays["taps"]
    newer.save(tmp_path / "newer.darsr")
    for runtime in ("ort", "trt"):
        with pytest.raises(
            DarsrError, match=r"newer\.darsr: its correction \(global\) has a part, mirror, that cannot"
        ):
            open_engine(folder, tmp_path / "newer.darsr", engine=runtime)


def test_names_that_are_not_known(tmp_path):
    with pytest.raises(DarsrError, match=r"^engine torch: is not known; choose one of auto, ort, trt, trt-rtx$"):
        open_engine(tmp_path / "m.onnx", engine="torch")
    with pytest.raises(DarsrError, match=r"^provider tpu: is not known; choose one of cpu, cuda$"):
        open_engine(tmp_path / "m.onnx", provider="tpu")
