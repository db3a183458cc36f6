"""``darsr export --format trt`` and ``darsr infer --engine trt`` as typed: on a fake GPU, and for real where none is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from darsr_deploy.files.adapter import Adapter
from darsr_deploy.files.model_spec import coefficients_path
from darsr_deploy.images.arrays import read_image
from darsr_deploy.trt.engine_file import read_facts, sidecar_path

pytest.importorskip("torch", reason="the models of these tests are exported (extras train and export)")

from darsr_deploy.trt.open_bundle import close_bundles
from tests.export.commands.test_export import _adapted, adapted  # noqa: F401, fixtures
from tests.support.commands import darsr, done, names, refused, strict_json
from tests.support.fake_cuda import FakeDriver
from tests.support.gpu import LIBRARIES, filters_file, install, model_file, uninstall
from tests.test_cli import INFER_KEYS

pytestmark = pytest.mark.usefixtures("built_once")

ROOT = Path(__file__).parents[3]
EXPORT_KEYS = {"model", "format", "precision", "form", "bytes", "sha256", "parity_psnr_db", "parity_floor_db"}


@pytest.fixture
def own(tmp_path, monkeypatch, cache):
    """A state and a cache of this test alone, but for model files, which take seconds to export."""
    monkeypatch.setenv("DARSR_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("DARSR_CACHE", str(tmp_path / "own"))
    (tmp_path / "own").mkdir()
    (cache / "models").mkdir(exist_ok=True)
    (tmp_path / "own" / "models").symlink_to(cache / "models")


@pytest.fixture(params=[LIBRARIES[0], LIBRARIES[3]], ids=lambda p: p[0])
def machine(request, monkeypatch, own):
    machine = install(monkeypatch, *request.param)
    yield machine
    close_bundles()
    assert machine.driver.left_over() == {}


def difference(one: str, other: str) -> int:
    return int(np.abs(read_image(one).astype(int) - read_image(other).astype(int)).max())


def test_adapter_to_picture(machine, adapted):
    """Exported, built, compared, kept; the second time neither; the picture is ONNX Runtime's."""
    done("infer", "photo.png", "--engine", "ort", "-o", "ort.png")
    first = done("infer", "photo.png", "--engine", "trt", "-o", "trt.png", "--json")
    row = strict_json(first.stdout)
    assert set(row) == INFER_KEYS and (row["engine"], row["provider"]) == (machine.family, "cuda:0")
    assert "for Fake RTX, 3x3,480x640,1920x1920 (once for all adapters; kept in the cache)" in first.stderr
    assert difference("ort.png", "trt.png") <= 1  # whose weights are constants there, and inputs here
    built = machine.trt.builds
    again = done("infer", "photo.png", "--engine", "trt", "-o", "again.png")
    assert machine.trt.builds == built and again.stderr == ""
    for engine in Path("own/engines").glob("*.engine"):
        facts = read_facts(engine)
        assert facts.device_parity_psnr_db > 80 and facts.cache_key == engine.stem and facts.graph
        assert facts.targets == (("sm_89",) if machine.family == "trt-rtx" else ())


def test_an_adapter_in_int8_is_a_model_of_its_own(machine, adapted):
    """Bundles have no int8: exported, built for this adapter alone, compared with PyTorch, kept."""
    first = done("infer", "photo.png", "--engine", "trt", "--precision", "int8", "-o", "one.png")
    assert "engine for Fake RTX, 3x3,480x640,1920x1920 (once; it is kept in the cache)" in first.stderr
    (engine,) = Path("own/engines").glob("*.engine")
    assert read_facts(engine).device_parity_psnr_db > 43 and not read_facts(engine).graph
    line = refused("infer", "photo.png", "--engine", "trt", "--precision", "int8", "--tile", "32", name="--tile 32")
    assert "--precision fp16" in line


def test_adapters_swapped_in_a_bundle_and_in_tiles(machine, adapted):
    """As on a device: a bundle, then another adapter for it. The second builds nothing."""
    done("export", "photo.darsr", "--split")
    own = Adapter.load("photo.darsr")
    darker = {**own.arrays, "darm.tail.bias": 0.9 * own.arrays["darm.tail.bias"]}
    replace(own, arrays=darker).save(Path("second.darsr"))
    line = ("infer", "photo.png", "--model", "photo.bundle")
    done(*line, "--engine", machine.family, "-o", "first.png")
    built = machine.trt.builds
    assert built >= 5
    for tile in ("auto", "32"):
        second = done(*line, "--adapter", "second.darsr", "--engine", "trt", "--tile", tile, "-o", f"{tile}.png")
        assert ("overlap" in second.stderr) == (tile == "32") and machine.trt.builds == built
    done(*line, "--adapter", "second.darsr", "-o", "ort.png")
    assert difference("auto.png", "ort.png") <= 1 and difference("32.png", "ort.png") <= 1
    assert difference("auto.png", "first.png") > 5
    assert "scale 2, asked for 4" in refused(*line, "--engine", "trt", "--scale", "4", name="photo.bundle")
    assert "fp32, asked for fp16" in refused(*line, "--engine", "trt", "--precision", "fp16", name="photo.bundle")
    (Path("photo.bundle") / "stats0.onnx").write_bytes(b"none")
    close_bundles()
    assert "checksum differs" in refused(*line, "--engine", "trt", name=str(Path("photo.bundle/stats0.onnx")))


def test_a_version_that_wants_constant_weights_builds_for_each_adapter(machine, adapted):
    machine.trt.fixed_weights = True
    first = done("infer", "photo.png", "--engine", "trt", "-o", "trt.png")
    assert "The kernel must be an initializer!): going on with an engine for this adapter alone" in first.stderr
    done("infer", "photo.png", "-o", "ort.png")
    assert difference("trt.png", "ort.png") <= 1
    done("export", "photo.darsr", "--split")
    result = darsr("infer", "photo.png", "--model", "photo.bundle", "--engine", "trt", "-o", "bundle.png")
    assert result.exit_code == 1 and not Path("bundle.png").exists()
    line = result.stderr.splitlines()[-1]
    assert line.startswith("error: engine of correction: ") and line.endswith("use --engine ort")


def test_the_backbone_alone(machine, adapted):
    done("infer", "photo.png", "--no-adapter", "--scale", "2", "--engine", "trt", "--tile", "24", "-o", "trt.png")
    assert machine.trt.builds == 1
    done("infer", "photo.png", "--no-adapter", "--scale", "2", "-o", "ort.png")
    assert difference("trt.png", "ort.png") <= 1


def test_a_damaged_engine_in_the_cache_is_built_again(machine, adapted):
    done("export", "photo.darsr")
    line = ("infer", "photo.png", "--model", "photo.onnx", "--engine", "trt")
    done(*line, "-o", "one.png")
    (engine,) = Path("own/engines").glob("*.engine")
    for path in (engine, sidecar_path(engine)):
        flipped = bytearray(path.read_bytes())
        flipped[len(flipped) // 2] ^= 4
        path.write_bytes(flipped)
        result = done(*line, "-o", "two.png", "--overwrite")
        assert "is damaged" in result.stderr and "building it again" in result.stderr
        assert difference("one.png", "two.png") == 0


def test_another_gpu_has_an_engine_of_its_own(machine, adapted, monkeypatch):
    done("export", "photo.darsr")
    line = ("infer", "photo.png", "--model", "photo.onnx", "--engine", "trt")
    done(*line, "-o", "one.png")
    install(monkeypatch, machine.family, machine.trt.__version__, FakeDriver("Other", (8, 6)))
    done(*line, "-o", "two.png")
    assert len(list(Path("own/engines").glob("*.engine"))) == 2


def test_an_engine_file(adapted, own, monkeypatch):
    machine = install(monkeypatch, *LIBRARIES[3])
    export = done(
        "export", "photo.darsr", "--format", machine.family, "--precision", "fp16", "--shape", "80x96", "--json"
    )
    row = strict_json(export.stdout)
    assert row.keys() >= EXPORT_KEYS and row["model"] == "photo_fp16.engine"
    assert (row["format"], row["shapes"], row["precision"]) == (machine.family, "80x96", "fp16")
    assert row["device_parity_psnr_db"] > 50 and row["layers"]["CONVOLUTION HALF"] > 20
    assert names(Path()) >= {"photo_fp16.engine", "photo_fp16.engine.json"} and "photo_fp16.onnx" not in names(Path())
    done("infer", "photo.png", "--model", "photo_fp16.engine", "-o", "engine.png")
    done("infer", "photo.png", "--precision", "fp16", "-o", "ort.png")
    assert difference("engine.png", "ort.png") <= 1  # which runs in a bundle: the same network in other pieces
    model = ("infer", "photo.png", "--model", "photo_fp16.engine", "-o", "x.png")
    assert "precision fp16, asked for int8" in refused(*model, "--precision", "int8", name="photo_fp16.engine")
    assert "and ort was asked for" in refused(*model, "--engine", "ort", name="photo_fp16.engine")
    monkeypatch.setenv("DARSR_STATE", "elsewhere")
    assert "--trust" in refused(*model, name="photo_fp16.engine")
    done(*model, "--trust")


def test_a_model_file_in_tensorrt(machine, adapted):
    done("export", "photo.darsr")
    result = done("infer", "photo.png", "--model", "photo.onnx", "--engine", machine.family, "-o", "trt.png")
    assert "building the" in result.stderr
    done("infer", "photo.png", "--model", "photo.onnx", "-o", "ort.png")
    assert difference("trt.png", "ort.png") == 0


def test_filters_take_their_coefficients_along(adapted, own, monkeypatch):
    machine = install(monkeypatch, *LIBRARIES[0])
    done("export", "photo.darsr", "--format", machine.family, "--form", "filters", "-o", "one.engine")
    assert coefficients_path("one.engine").is_file()
    done("infer", "photo.png", "--model", "one.engine", "-o", "trt.png")
    done("infer", "photo.png", "-o", "ort.png")
    assert difference("trt.png", "ort.png") <= 1
    asked = (
        "export",
        "photo.darsr",
        "--format",
        machine.family,
        "--form",
        "filters",
        "--shape",
        "8x8",
        "-o",
        "two.engine",
    )
    assert "size of its image" in refused(*asked, name="--shape")
    filters_file(Path("m.onnx"))
    Path("mine.coeff.safetensors").write_text("of another model")
    again = ("export", "m.onnx", "--format", machine.family, "-o", "mine.engine")
    assert "exists already" in refused(*again, name="mine.coeff.safetensors")
    done(*again, "--overwrite")
    assert Path("mine.coeff.safetensors").read_bytes() == Path("m.coeff.safetensors").read_bytes()


def test_an_engine_that_computes_something_else_leaves_nothing(machine, adapted):
    machine.trt.error = 0.01
    before = names(Path())
    line = refused("export", "photo.darsr", "--format", machine.family, name="photo.engine")
    assert "differs from PyTorch: 40.0 dB, at least 80.0 dB" in line
    assert names(Path()) == before


def test_options_that_do_not_go_together(machine, adapted):
    engine = ("export", "photo.darsr", "--format", machine.family)
    assert "is for engines" in refused("export", "photo.darsr", "--shape", "8x8", name="--shape")
    assert "choose one of onnx, trt, trt-rtx" in refused(
        "export", "photo.darsr", "--format", "plan", name="format plan"
    )
    assert "is not 1 size" in refused(*engine, "--shape", "8", name="--shape 8")
    assert "does not end in .engine" in refused(*engine, "-o", "photo.plan", name="photo.plan")
    Path("photo.engine").touch()
    assert "--overwrite" in refused(*engine, name="photo.engine")


def test_a_jetson_with_rtx_is_told_the_other_way(adapted, monkeypatch, own):
    install(monkeypatch, *LIBRARIES[3], FakeDriver("Orin", (8, 7)))
    line = refused("infer", "photo.png", "--engine", "trt", name="Orin (sm_87)")
    assert "--format trt" in line and "--engine ort works here" in line


@pytest.mark.parametrize("engine", ["trt", "trt-rtx"])
def test_no_library_and_no_gpu_are_one_line(adapted, monkeypatch, own, engine):
    """Said at once: nothing was exported."""
    uninstall(monkeypatch)
    assert 'pip install "tensorrt' in refused("infer", "photo.png", "--engine", engine, name="TensorRT")
    machine = install(monkeypatch, *(LIBRARIES[0] if engine == "trt" else LIBRARIES[3]))
    machine.driver.count = 0
    assert "--engine ort works here" in refused("infer", "photo.png", "--engine", engine, name="GPU")
    assert not Path("own/engines").exists()


@pytest.mark.tensorrt
def test_ahead_of_time_for_two_gpus_without_any(adapted, own):
    """The real TensorRT for RTX: what continuous integration runs."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX (extra trt-rtx) is not installed")
    asked = ("export", "photo.darsr", "--format", "trt-rtx", "--target", "sm_86,sm_89", "--json")
    row = strict_json(done(*asked).stdout)
    assert row["targets"] == ["sm_86", "sm_89"] and row["bytes"] > 10**6 and row["parity_psnr_db"] > 80
    assert row["device_parity_psnr_db"] is None or row["device_parity_psnr_db"] > 80
    assert "Orin is sm_87" in refused(*asked[:-2], "sm_87", name="--target sm_87")


WITHOUT = """
import sys
for name in ("torch", "onnx", "onnxscript"):
    sys.modules[name] = None
import cli
cli.app(["export", "model.onnx", "--format", "trt-rtx", "--shape", "24x32"])
"""


@pytest.mark.tensorrt
def test_an_engine_from_a_model_file_without_torch_and_onnx(tmp_path):
    """As on a device: the real library, and nothing else."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX (extra trt-rtx) is not installed")
    model_file(tmp_path / "model.onnx", "fp16")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DARSR_STATE": str(tmp_path / "state")}
    ran = subprocess.run([sys.executable, "-c", WITHOUT], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert read_facts(tmp_path / "model.engine").layers["CONVOLUTION HALF"] == 2


@pytest.mark.gpu
@pytest.mark.tensorrt
def test_on_a_real_gpu(adapted, own):
    """Built, compared and run on the GPU at hand."""
    from darsr_deploy.errors import DarsrError
    from darsr_deploy.trt.cuda import Device
    from darsr_deploy.trt.library import choose_family, import_library

    try:
        library = import_library(choose_family("trt"))
        with Device():
            pass
    except DarsrError as error:
        pytest.skip(str(error))
    for precision in ("fp32", "fp16"):
        result = darsr(
            "infer", "photo.png", "--engine", library.family.name, "--precision", precision, "-o", f"{precision}.png"
        )
        assert result.exit_code == 0, result.stderr
        done("infer", "photo.png", "--precision", precision, "-o", f"{precision}_ort.png")
        assert difference(f"{precision}.png", f"{precision}_ort.png") <= 1
