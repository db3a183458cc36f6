"""The quickly deployable plugin: registered by the rules, built into an engine, its kernel compiled without a GPU.

What needs Triton is skipped without it; the rest is done with a kernel's outline in the place of a compiled one.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from darsr_deploy.engines.ort import OrtEngine
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.model_spec import ModelSpec, coefficients_path
from darsr_deploy.trt.engine import TrtEngine
from darsr_deploy.trt.engine_file import read_facts
from darsr_deploy.trt.library import FAMILIES, import_library
from darsr_deploy.trt.shapes import Shapes
from darsr_train.networks.darm import shifted_sums
from export.artefacts.build_engine import BuildOptions
from export.artefacts.model import export_onnx
from export.onnx_graphs.correction_filter import correction_filter_function
from export.plugin import aot_kernel as quick_plugin
from export.plugin.aot_kernel import BLOCK, PLUGIN, Kernel, build_with_plugin, register
from export.plugin.onnx_model import without_body
from tests.export.artefacts.test_model import pipeline
from tests.support.commands import told
from tests.support.fake_trt_plugin import fake_plugin_module
from tests.support.gpu import LIBRARIES, STATIC, filters_file, image, install, model_file

pytestmark = pytest.mark.usefixtures("built_once")
ROOT = Path(__file__).parents[3]
OPTIONS = BuildOptions(Shapes((3, 3), (24, 32), (48, 64)))
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed (pip install triton)"
)
OUTLINE = """
.visible .entry linear_filter_kernel(
    .param .u64 .ptr .global .align 1 linear_filter_kernel_param_0,
    .param .u64 .ptr .global .align 1 linear_filter_kernel_param_1,
    .param .u32 linear_filter_kernel_param_2,
    .param .u32 linear_filter_kernel_param_3,
    .param .u64 .ptr .global .align 1 linear_filter_kernel_param_4,
    .param .u64 .ptr .global .align 1 linear_filter_kernel_param_5
)
"""


def outline(kind: str, target: str, driver: int) -> Kernel:
    return Kernel("linear_filter_kernel", f".version 8.4 // {kind} {target} {driver}\n{OUTLINE}", 128, 0)


@pytest.fixture(params=[LIBRARIES[1], LIBRARIES[2]], ids=lambda p: p[1])
def machine(request, monkeypatch, tmp_path):
    """A GPU with a TensorRT that has tensorrt.plugin."""
    monkeypatch.setenv("DARSR_STATE", str(tmp_path / "state"))
    machine = install(monkeypatch, *request.param)
    plugins = fake_plugin_module({PLUGIN: correction_filter_function})
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", plugins)
    machine.trt.plugins = plugins.registry
    yield machine
    assert machine.driver.left_over() == {}


@pytest.fixture
def exported(tmp_path):
    def export(precision: str = "fp32") -> Path:
        export_onnx(pipeline(), tmp_path / "photo.onnx", ModelSpec(2, precision=precision), keep_function=True)
        return tmp_path / "photo.onnx"

    return export


def library():
    return import_library(FAMILIES["trt"])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_holds_the_kernel_and_gives_the_same_picture(machine, exported, precision, tmp_path):
    model, target = exported(precision), tmp_path / "photo.engine"
    with told() as said:
        facts = build_with_plugin(model, target, library(), OPTIONS, outline)
    (launch,) = machine.trt.plugins.launches
    assert f"{precision} sm_89 13000".encode() in launch.ptx and launch.name == b"linear_filter_kernel"
    assert (launch.grid, launch.threads, launch.integers) == ((-(-24 * 32 // BLOCK), 1, 1), 128, [24, 32])
    assert facts == read_facts(target) and facts.device_parity_psnr_db > 50 and said == []
    lr = image(24, 32)
    with TrtEngine(target) as engine, OrtEngine(model) as reference:
        assert np.abs(engine.run(lr) - reference.run(lr)).max() < 1e-5


def test_filters_of_one_image_are_compared_too(machine, tmp_path, monkeypatch):
    model = filters_file(tmp_path / "photo.onnx")
    with told() as said:
        facts = build_with_plugin(model, tmp_path / "other.engine", library(), OPTIONS, outline)
    assert facts.device_parity_psnr_db > 100 and facts.shapes == STATIC and said == []
    copied = coefficients_path(tmp_path / "other.engine")
    assert copied.read_bytes() == coefficients_path(model).read_bytes()
    (tmp_path / "other.engine").rename(tmp_path / "moved.engine")
    (tmp_path / "other.engine.json").unlink()
    monkeypatch.setattr(sys, "argv", ["quick_plugin", str(model), "-o", str(tmp_path / "other.engine")])
    with pytest.raises(DarsrError, match=r"other\.coeff\.safetensors: exists already"):
        quick_plugin.main()


def test_it_is_registered_once(machine, exported, tmp_path):
    model = exported()
    for _ in range(2):
        build_with_plugin(model, tmp_path / "photo.engine", library(), OPTIONS, outline)
    assert list(machine.trt.plugins.plugins) == [PLUGIN] and len(machine.trt.plugins.launches) == 2


def test_a_model_without_a_filter_needs_no_plugin(machine, tmp_path):
    model = model_file(tmp_path / "plain.onnx")
    with pytest.raises(DarsrError, match=r"plain\.onnx: has no correction filter"):
        build_with_plugin(model, tmp_path / "x.engine", library(), OPTIONS, outline)
    assert not (tmp_path / "x.engine").exists()


@pytest.mark.parametrize("which", [LIBRARIES[0], LIBRARIES[3]], ids=lambda p: p[1])
def test_versions_without_it_are_told_what_to_do(monkeypatch, which):
    install(monkeypatch, *which)
    with pytest.raises(
        DarsrError, match=r"takes no kernels ahead of time, TensorRT 10\.9 and newer do; .*export\.plugin\.build"
    ):
        register(import_library(FAMILIES[which[0]]), "sm_89")


def test_without_triton_one_line_and_nothing_written(machine, exported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    target = tmp_path / "photo.engine"
    monkeypatch.setattr(sys, "argv", ["quick_plugin", str(exported()), "-o", str(target)])
    with pytest.raises(DarsrError, match=r"the plugin: Triton cannot be imported \(.*\); pip install triton"):
        quick_plugin.main()
    assert not target.exists()
    target.touch()
    with pytest.raises(DarsrError, match="exists already; give --overwrite"):
        quick_plugin.main()
    monkeypatch.setattr(sys, "argv", ["quick_plugin", "photo.onnx", "-o", "photo.plan"])
    with pytest.raises(DarsrError, match=r"photo\.plan: does not end in \.engine"):
        quick_plugin.main()


def test_the_stand_in_refuses_what_the_documentation_forbids(machine):
    """Among them annotations that are texts, as ``from __future__ import annotations`` would make of those in export."""
    trtp = sys.modules["tensorrt.plugin"]

    def texts(x: "trtp.TensorDesc") -> "trtp.TensorDesc":  # noqa: UP037
        return x.like()

    with pytest.raises(ValueError, match="is not TensorDesc"):
        trtp.register("darsr::Other")(texts)
    with pytest.raises(ValueError, match="reserved"):
        trtp.register("trt::CorrectionFilter")(texts)
    register(library(), "sm_89", 0, outline)
    with pytest.raises(ValueError, match="does not match"):
        trtp.aot_impl(PLUGIN)(lambda x, c, outputs: None)
    shifted = OUTLINE.replace(".u32 linear_filter_kernel_param_2", ".u64 linear_filter_kernel_param_2")
    machine.trt.plugins.plugins.clear()
    delattr(trtp.op, "darsr")
    register(library(), "sm_89", 0, lambda *_: outline("", "", 0)._replace(ptx=shifted))
    with pytest.raises(AssertionError, match="64"):
        machine.trt.plugins.launch(PLUGIN, [machine.trt.DataType.FLOAT] * 3)


# ---- with Triton


@needs_triton
def test_the_kernel_as_tensorrt_launches_it(machine, monkeypatch):
    """In Triton's interpreter, with the grid and the integers that the plugin asks for."""
    register(library(), "sm_89", 0, outline)
    launch = machine.trt.plugins.launch(PLUGIN, [machine.trt.DataType.FLOAT] * 3)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.delitem(sys.modules, "darsr_train.networks.triton_filter", raising=False)
    kernel = importlib.import_module("darsr_train.networks.triton_filter").linear_filter_kernel
    sys.modules.pop("darsr_train.networks.triton_filter")
    torch.manual_seed(0)
    x, c = torch.rand(1, 3, *launch.integers), torch.randn(1, 13, *launch.integers)
    y = torch.empty_like(x)
    kernel[launch.grid[:2]](x, c, *launch.integers, y, BLOCK=BLOCK)
    assert (y - shifted_sums(x, c)).abs().max() < 1e-5


_COMPILE = """
import sys
from export.plugin.aot_kernel import compile_kernel, ptx_version
for target in ("sm_86", "sm_89"):
    for kind in ("fp32", "fp16"):
        kernel = compile_kernel(kind, target, 12040)
        open(f"{target}-{kind}.ptx", "w").write(kernel.ptx)
        print(target, kind, kernel.name, kernel.threads, kernel.shared_bytes, ptx_version(kernel.ptx))
assert "torch" not in sys.modules
"""


@needs_triton
def test_the_kernel_compiles_for_two_gpus_without_any(machine, tmp_path):
    """In a process of its own, since the interpreter must be off; PyTorch is not needed."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    paths = [str(ROOT), environment.get("PYTHONPATH", "")]
    environment |= {"TRITON_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == 4 and {(row[0], row[1]) for row in rows} == {
        (t, k) for t in ("sm_86", "sm_89") for k in ("fp32", "fp16")
    }
    name = rows[0][2]
    register(library(), "sm_89", 0, lambda kind, *_: Kernel(name, (tmp_path / f"sm_89-{kind}.ptx").read_text(), 128, 0))
    for kind in ("FLOAT", "HALF"):  # the parameters are checked there
        machine.trt.plugins.launch(PLUGIN, [machine.trt.DataType[kind]] * 3)
    for target, kind, _, threads, shared, version in rows:
        ptx = (tmp_path / f"{target}-{kind}.ptx").read_text()
        assert f".target {target}" in ptx and int(threads) % 32 == 0 and shared == "0" and int(version) <= 84
        assert "ld.global" in ptx and "st.global" in ptx and "ld.local" not in ptx
        assert (".b16" in ptx.split("ld.global", 1)[1]) == (kind == "fp16")


def test_the_file_without_the_body_names_the_plugin(exported):
    bare = without_body(onnx.load(exported()), quick=True)
    (node,) = (n for n in bare.graph.node if n.domain == "darsr")
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert given == {"plugin_namespace": b"darsr", "aot": 1} and not bare.functions
