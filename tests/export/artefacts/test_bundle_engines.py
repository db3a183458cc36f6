"""Engines of a runtime bundle, ahead of time: written whole or not at all, as typed, and opened from Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the bundles of these tests are exported (extras train and export)")

import darsr_deploy
from darsr_deploy.bundle.graphs import GRAPHS
from darsr_deploy.bundle.manifest import MANIFEST
from darsr_deploy.bundle.ort_bundle import Bundle
from darsr_deploy.errors import DarsrError
from darsr_deploy.images.arrays import read_image
from darsr_deploy.trt.engine_file import read_facts, write_engine
from darsr_deploy.trt.open_bundle import close_bundles, own_engine, own_engines
from darsr_deploy.trt.shapes import Shapes
from darsr_deploy.trt.trust import trust_list
from export.artefacts import bundle_engines
from export.artefacts.build_engine import BuildOptions
from export.artefacts.bundle_engines import export_engines
from tests.deploy.bundle.test_bundle import KINDS, _desk, _folders, adapter, desk, made  # noqa: F401, fixtures
from tests.deploy.trt.test_bundle import library_of, machine  # noqa: F401, fixture
from tests.support.built_bundles import SHAPES, _built_bundles, comparisons, contents, infer, ready, small_pictures  # noqa: F401, fixtures
from tests.support.commands import done, names, refused, strict_json
from tests.support.gpu import LIBRARIES, STATIC, image, install, model_file

pytestmark = pytest.mark.usefixtures("built_once", "small_pictures")
ROOT = Path(__file__).parents[3]
ROW = {"model", "format", "precision", "form", "bytes", "sha256", "parity_psnr_db", "parity_floor_db", "tensorrt"}
ROW |= {"shapes", "targets", "gpu", "device_parity_psnr_db", "layers", "engines", "macs_per_lr_pixel"}


# ---- written whole or not at all


def test_what_else_lies_in_a_bundle_stays_there(ready, machine, tmp_path):
    folder = ready()
    (folder / "notes").mkdir()
    (folder / "notes" / "camera.txt").write_text("the one at the door")
    library = library_of(machine)
    for out in (None, tmp_path / "copy.bundle"):
        shapes = Shapes((24, 32), (24, 32), (24, 32))
        target, _ = export_engines(folder, out, library, BuildOptions(shapes), lambda path: path)
        assert (target / "notes" / "camera.txt").read_text() == "the one at the door"
        assert not list(target.glob("stats*.engine*")) and read_facts(own_engine(target, "backbone")).shapes == shapes


def test_a_read_only_bundle_gives_a_copy_that_can_be_written(ready, made, machine, monkeypatch, tmp_path):
    """While the engines are written too, and what is left of a failure could not be removed otherwise."""
    source, modes = Path(shutil.copytree(made(), tmp_path / "ro.bundle")), []

    def write(path: Path, *rest: object):  # whoever runs the tests may be root
        modes.append(path.parent.stat().st_mode & 0o700)
        return write_engine(path, *rest)

    monkeypatch.setattr(bundle_engines, "write_engine", write)
    source.chmod(0o555)
    options = BuildOptions(Shapes((24, 32), (24, 32), (24, 32)))
    export_engines(source, tmp_path / "copy", library_of(machine), options, lambda path: path)
    source.chmod(0o755)
    assert modes == [0o700] * 4 == [0o700] * len(own_engines(tmp_path / "copy")) and not own_engines(source)


def test_places_that_cannot_be_replaced(ready, made, machine, monkeypatch, tmp_path):
    source, library = Path(shutil.copytree(made(), tmp_path / "b.bundle")), library_of(machine)
    options = BuildOptions(Shapes((24, 32), (24, 32), (24, 32)))

    def to(out: Path | None, folder: Path = source) -> Path:
        return export_engines(folder, out, library, options, lambda path: path)[0]

    with pytest.raises(DarsrError, match=r"lies in .*b\.bundle, whose copy it is to be"):
        to(source / "inner.bundle")
    monkeypatch.chdir(source)
    with pytest.raises(DarsrError, match=r"^\.: is replaced as a whole, and this command runs in it"):
        to(None, Path())
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(DarsrError, match=r"b\.bundle: is read-only; choose another"):
        patch.setattr(os, "access", lambda path, mode: Path(path) != source)  # whoever runs the tests may be root
        to(None)
    assert machine.trt.builds == 0 and contents(source) == contents(made())


def test_a_link_to_a_bundle_stays_one(ready, made, machine, tmp_path):
    source, link = Path(shutil.copytree(made(), tmp_path / "b.bundle")), tmp_path / "link.bundle"
    link.symlink_to(source.name)
    options = BuildOptions(Shapes((24, 32), (24, 32), (24, 32)))
    export_engines(link, None, library_of(machine), options, lambda path: path)
    assert link.is_symlink() and own_engines(source) and names(tmp_path) >= {"b.bundle", "link.bundle"}
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_a_failure_leaves_the_older_bundle(ready, machine, monkeypatch, tmp_path):
    folder = ready()
    before = contents(folder)
    library, options = library_of(machine), BuildOptions(SHAPES)

    def again(**changes: object) -> None:
        with monkeypatch.context() as patch:
            for name, value in changes.items():
                patch.setattr(machine.trt, name, value)
            export_engines(folder, None, library, options, lambda path: path)

    with pytest.raises(DarsrError, match=r"engine of backbone: TensorRT.* cannot build it"):
        again(refuse=True)
    with pytest.raises(DarsrError, match="is not what was computed"):
        again(error=1e-3)
    (folder / "stats0.onnx").write_bytes(b"none")
    with pytest.raises(DarsrError, match=r"stats0\.onnx: is not the file that bundle\.json lists"):
        again()
    (folder / "stats0.onnx").write_bytes(before["stats0.onnx"])
    assert contents(folder) == before and names(tmp_path) <= {"b.bundle", "cache", "state"}


# ---- as typed


def test_a_bundle_with_engines_as_typed(desk, monkeypatch, tmp_path):
    """Split and built in one go; another adapter runs in it; the engines of a bundle that is there; all refusals."""
    monkeypatch.setenv("DARSR_STATE", str(desk / "state"))
    machine = install(monkeypatch, *LIBRARIES[3])
    engine = ("--format", "trt-rtx", "--target", "sm_86,sm_89,sm_86")
    row = strict_json(done("export", "photo.darsr", "--split", *engine, "--json").stdout)
    assert row.keys() >= ROW and (row["model"], row["format"]) == ("photo.bundle", "trt-rtx")
    assert (row["targets"], row["shapes"]) == (["sm_86", "sm_89"], "3x3,480x640,1920x1920")
    assert row["bytes"] == sum(path.stat().st_size for path in Path("photo.bundle").iterdir())
    assert row["engines"].keys() == {*GRAPHS} and row["device_parity_psnr_db"] > 80 and row["parity_psnr_db"] > 80
    machine.trt.builds = 0
    line = ("infer", "other.png", "--model", "photo.bundle", "--engine")
    first = done(*line, "trt-rtx", "-o", "trt.png", "--json")
    assert strict_json(first.stdout)["engine"] == "trt-rtx" and first.stderr == "" and machine.trt.builds == 0
    done(*line, "ort", "-o", "ort.png")
    assert np.abs(read_image("trt.png").astype(int) - read_image("ort.png")).max() <= 1
    close_bundles()  # another process, on another machine
    monkeypatch.setenv("DARSR_STATE", str(desk / "elsewhere"))
    assert "--trust" in done(*line, "trt-rtx", "-o", "2.png").stderr and machine.trt.builds > 0
    assert done(*line, "trt-rtx", "--trust", "-o", "3.png").stderr == ""

    again = ("export", "photo.bundle", "--format", "trt-rtx")
    assert "--overwrite" in refused(*again, name="photo.bundle")
    row = strict_json(done(*again, "--shape", "24x32", "--overwrite", "--json").stdout)
    assert row.keys() >= ROW and (row["model"], row["shapes"]) == ("photo.bundle", "24x32") and row["targets"] == []
    assert "backbone.engine" in names(Path("photo.bundle")) and "stats0.engine" not in names(Path("photo.bundle"))
    done(*again, "--shape", "24x32", "-o", "copy.bundle")
    assert (Path("copy.bundle") / MANIFEST).read_bytes() == (Path("photo.bundle") / MANIFEST).read_bytes()
    assert "has its own precision" in refused(*again, "--precision", "fp16", name="photo.bundle")
    assert "has its own backbone" in refused(*again, "--backbone", "edge-x2", name="photo.bundle")
    assert "one adapter after another" in refused(*again, "--triton", "models", name="--triton")
    assert "bundles are fp32 or fp16" in refused(*again, "--calibration", ".", name="--calibration")
    assert "Orin is sm_87" in refused(*again, "--target", "sm_87", name="--target sm_87")
    assert "is not a bundle" in refused("export", "state", "--format", "trt-rtx", name="state")
    Path("full").mkdir()
    Path("full/diary.txt").write_text("mine")
    assert "other things in it" in refused(*again, "-o", "full", "--overwrite", name="full")
    close_bundles()
    assert machine.driver.left_over() == {}

    other = install(monkeypatch, *LIBRARIES[1])  # enterprise TensorRT, for the GPU at hand
    row = strict_json(done("export", "photo.bundle", "--format", "trt", "--overwrite", "--json").stdout)
    assert (row["gpu"], row["targets"], row["format"]) == ("Fake RTX", [], "trt") and row["device_parity_psnr_db"] > 80
    other.trt.builds = 0
    done(*line, "trt", "-o", "4.png")
    assert other.trt.builds == 0 and (read_image("4.png") == read_image("trt.png")).all()
    close_bundles()
    assert other.driver.left_over() == {}


WITHOUT = """
import sys
for name in ("torch", "onnx", "onnxscript", "onnxruntime", "skimage"):
    sys.modules[name] = None
import cli
cli.app(["export", "b.bundle", "--format", "trt-rtx", "--target", "sm_86,sm_89", "--shapes", "3x3,24x32,64x64"])
"""


@pytest.mark.tensorrt
def test_for_real_without_a_gpu_torch_and_onnx(made, tmp_path):
    """TensorRT for RTX itself, as in continuous integration: a bundle that is there gains its engines."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX (extra trt-rtx) is not installed")
    folder = Path(shutil.copytree(made(2, "fp16"), tmp_path / "b.bundle"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DARSR_STATE": str(tmp_path / "state")}
    ran = subprocess.run([sys.executable, "-c", WITHOUT], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    for graph in GRAPHS:
        facts = read_facts(own_engine(folder, graph))
        assert facts.targets == ("sm_86", "sm_89") and facts.bytes == own_engine(folder, graph).stat().st_size > 10_000
        assert facts.sha256 in (tmp_path / "state" / "trusted-engines").read_text()


# ---- from Python


@pytest.fixture
def python(monkeypatch, machine):
    """``darsr_deploy.open_engine`` as on a device: nothing of what exports can be imported."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("export", "darsr_train")]:
        monkeypatch.setitem(sys.modules, name, None)
    return darsr_deploy.open_engine


def test_python_opens_a_bundle_in_its_own_engines(ready, machine, request, tmp_path):
    folder, lr, mine = ready(), image(50, 61), adapter("global", seed=4)
    mine.save(tmp_path / "mine.darsr")
    expected = Bundle(folder).engine(mine).run(lr)
    open_engine = request.getfixturevalue("python")
    for asked in (machine.family, "trt"):
        with open_engine(folder, adapter=tmp_path / "mine.darsr", engine=asked) as engine:
            assert (engine.name, engine.provider) == (machine.family, "cuda:0")
            assert np.abs(engine.run(lr) - expected).max() < 2e-6
    with open_engine(folder, engine=machine.family, tile=32) as engine:  # the adapter that it was exported from
        assert np.abs(engine.run(lr) - open_engine(folder, engine="ort").run(lr)).max() < 1e-5
    with open_engine(str(folder)) as engine:
        assert engine.name == "ort"
    assert machine.trt.builds == 0


def test_python_says_which_command_builds_what_is_missing(ready, made, infer, machine, request, tmp_path):
    bare, folder = Path(shutil.copytree(made(), tmp_path / "bare.bundle")), ready()
    infer(bare, adapter()).__exit__()  # darsr infer builds engines into the cache
    built = machine.trt.builds
    close_bundles()
    trust_list().rename(tmp_path / "list")
    open_engine = request.getfixturevalue("python")
    target = " --target sm_89" if machine.family == "trt-rtx" else ""
    line = f"build them: darsr export {folder} --format {machine.family}{target} --overwrite"
    with pytest.warns(RuntimeWarning, match="was not built on this machine"), pytest.raises(DarsrError) as error:
        open_engine(folder, engine=machine.family)
    assert str(error.value).endswith(line) and str(error.value).startswith(f"{folder}: there is no engine of ")
    with open_engine(folder, engine=machine.family, trust=True) as engine:
        engine.run(image(24, 32))
    (tmp_path / "list").rename(trust_list())
    adapter().save(tmp_path / "mine.darsr")
    with open_engine(bare, adapter=tmp_path / "mine.darsr", engine=machine.family) as engine:  # from the cache
        engine.run(image(24, 32))
    with pytest.raises(
        DarsrError, match=r"no engine of backprojection .* build them: .*bare\.bundle --format [a-z-]+"
    ) as error:
        open_engine(bare, engine=machine.family)
    assert "--overwrite" not in str(error.value) and machine.trt.builds == built


def test_an_engine_that_does_not_run_such_a_file(machine, python, tmp_path):
    model = model_file(tmp_path / "m.onnx")
    machine.build(model)
    for asked, file, why in (
        ("torch", "m.onnx", "engine torch: is not known; choose one of auto, ort, trt, trt-rtx"),
        ("trt", "m.onnx", r"m\.onnx: is no engine, .*; build it: darsr export .*m\.onnx --format trt"),
        ("ort", "m.engine", r"m\.engine: is an engine of TensorRT .*, and ort was asked for; use --engine"),
    ):
        with pytest.raises(DarsrError, match=why):
            python(tmp_path / file, engine=asked)
    with python(tmp_path / "m.engine", engine="trt") as engine:
        assert engine.name == machine.family
    with pytest.raises(DarsrError, match="--tile 16"):
        python(machine.build(model, STATIC), tile=16)


IMPORTED = """
import sys
for name in ("export", "darsr_train", "torch", "onnx", "onnxruntime"):
    sys.modules[name] = None
import darsr_deploy.trt.open_bundle, darsr_deploy.opening
"""


def test_the_device_needs_darsr_deploy_alone():
    subprocess.run([sys.executable, "-c", IMPORTED], check=True, cwd=ROOT)
