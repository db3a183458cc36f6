"""The TensorRT plugin of the correction filter.

No TensorRT here: the plugin is compiled against a stand-in of its header (tests/plugin) and called as TensorRT would call
it, its pixels computed on the host. The CUDA kernel is compiled wherever nvcc is; running it takes a GPU.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.model_spec import METADATA_KEY
from darsr_train.networks.darm import shifted_sums
from export.onnx_graphs import build as graphs
from export.plugin import build as build_plugin
from export.plugin import onnx_model as plugin_model
from export.plugin.build import SOURCES, build, find_headers
from export.plugin.onnx_model import without_body
from tests.export.artefacts.test_model import pipeline

pytestmark = pytest.mark.usefixtures("built_once")
HERE = Path(__file__).parents[2] / "support" / "plugin"
FLOAT, HALF, INT8 = 0, 1, 2
LINEAR, CHW32 = 0, 5
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    library = tmp_path_factory.mktemp("plugin") / "harness.so"
    files = [SOURCES / "tensorrt_plugin.cpp", HERE / "harness.cpp"]
    warnings = ["-Wall", "-Wextra", "-Werror"]
    subprocess.run(
        ["g++", "-std=c++17", "-O1", *warnings, "-shared", "-fPIC", f"-I{HERE}", f"-I{SOURCES}", *files, "-o", library],
        check=True,
    )
    return ctypes.CDLL(str(library))


def dims(*sizes: int):
    return (ctypes.c_int64 * 4)(*sizes)


def test_the_plugin_has_the_name_of_the_function(plugin):
    texts = (ctypes.c_char_p * 6)()
    assert plugin.identity(texts) == 1  # output
    assert [t.decode() for t in texts] == ["CorrectionFilter", "1", ""] * 2
    model = graphs.build_model(pipeline())
    (function,) = model.functions
    assert function.name == "CorrectionFilter" and len(function.input) == 2 and len(function.output) == 1


@pytest.mark.parametrize("size", [(1, 3, 3), (2, 17, 5), (1, 8, 40)])
def test_the_plugin_computes_what_the_plain_filter_computes(size, plugin):
    n, height, width = size
    torch.manual_seed(1)
    x, c = torch.rand(n, 3, height, width), torch.randn(n, 13, height, width)
    y = np.full((n, 3, height, width), np.nan, np.float32)
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (x.numpy(), c.numpy(), y)]
    assert plugin.run(*pointers, dims(*x.shape), dims(*c.shape), FLOAT) == 0
    assert np.abs(y - shifted_sums(x, c).numpy()).max() < 1e-5
    assert plugin.run(*pointers, dims(*x.shape), dims(*c.shape), HALF) == 16  # the launch of the other type
    assert plugin.run(*pointers, dims(*x.shape), dims(*c.shape), INT8) == -1
    assert plugin.run(*pointers, dims(*x.shape), dims(n, 13, height, width + 1), FLOAT) == -1


def test_types_and_layouts_that_it_takes(plugin):
    def supported(types, formats=(LINEAR,) * 3) -> str:
        bits = plugin.supported((ctypes.c_int32 * 3)(*types), (ctypes.c_int32 * 3)(*formats))
        return f"{bits:03b}"[::-1]  # x, c, y

    assert supported([FLOAT] * 3) == supported([HALF] * 3) == "111"
    assert supported([HALF, FLOAT, HALF]) == "101"  # all three alike
    assert supported([INT8] * 3) == "000"
    assert supported([HALF] * 3, [LINEAR, CHW32, LINEAR]) == "101"


def test_sizes_that_it_takes(plugin):
    assert plugin.configure(dims(1, 3, 8, 9), dims(1, 13, 8, 9)) == 0
    assert plugin.configure(dims(-1, 3, -1, -1), dims(-1, 13, -1, -1)) == 0
    for x, c in (
        ((1, 3, 8, 9), (1, 72, 8, 9)),
        ((1, 1, 8, 9), (1, 13, 8, 9)),
        ((1, 3, 2, 9), (1, 13, 2, 9)),
        ((1, 3, 8, 9), (2, 13, 8, 9)),
    ):
        assert plugin.configure(dims(*x), dims(*c)) == -1


@needs_nvcc
def test_the_kernel_compiles_and_keeps_to_its_registers(tmp_path):
    """For Orin, the least that JetPack 6 runs on. Spilled registers would go through memory, which is what it saves."""
    command = ["nvcc", "-O3", "-std=c++17", "-arch=sm_87", "-Xptxas", "-v", "-cubin", "-o", tmp_path / "kernel.cubin"]
    done = subprocess.run([*command, SOURCES / "correction_filter.cu"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"Compiling entry function '\S*correction_filter\S*' for 'sm_87'", done.stderr)) == 2
    assert re.findall(r"(\d+) bytes spill stores", done.stderr) == ["0", "0"]


@needs_nvcc
def test_the_build_command_makes_a_library(tmp_path, monkeypatch, capsys):
    """All of it, with the stand-in's header and an empty library in the place of TensorRT."""
    (tmp_path / "trt" / "lib").mkdir(parents=True)
    shutil.copytree(HERE, tmp_path / "trt" / "include")
    empty = tmp_path / "empty.cpp"
    empty.write_text(
        "namespace nvinfer1 { class IPluginCreatorV3One; }\nvoid stand_in_register(nvinfer1::IPluginCreatorV3One*) {}"
    )
    subprocess.run(
        [
            "g++",
            "-shared",
            "-fPIC",
            "-Wl,-soname,libnvinfer.so",
            empty,
            "-o",
            tmp_path / "trt" / "lib" / "libnvinfer.so",
        ],
        check=True,
    )
    target = tmp_path / "libdarsr_filter.so"
    arguments = ["build", "-o", str(target), "--arch", "sm_87", "--tensorrt", str(tmp_path / "trt")]
    monkeypatch.setattr(sys, "argv", arguments)
    build_plugin.main()
    assert capsys.readouterr().out == f"{target}\n"
    ctypes.CDLL(str(tmp_path / "trt" / "lib" / "libnvinfer.so"), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(target))  # every symbol is there
    before = target.read_bytes()
    (tmp_path / "trt" / "include" / "NvInferRuntime.h").write_text("#error of another version")
    with pytest.raises(DarsrError, match=r"libdarsr_filter\.so: nvcc failed \(.*of another version"):
        build(target, "sm_87", tmp_path / "trt")
    assert target.read_bytes() == before and len(list(tmp_path.glob("*.so"))) == 1


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    with pytest.raises(DarsrError, match=r"NvInferRuntime\.h is not in .*include; .*libnvinfer-headers-dev"):
        find_headers(tmp_path)
    (tmp_path / "include" / "aarch64-linux-gnu").mkdir(parents=True)
    (tmp_path / "include" / "aarch64-linux-gnu" / "NvInferRuntime.h").touch()
    assert find_headers(tmp_path) == tmp_path / "include" / "aarch64-linux-gnu"
    with pytest.raises(DarsrError, match="arch orin: is not a GPU architecture"):
        build(tmp_path / "x.so", "orin", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(build_plugin, "_CUDA", ())
    with pytest.raises(DarsrError, match="nvcc is not installed"):
        build(tmp_path / "x.so", "sm_87", tmp_path)
    assert not (tmp_path / "x.so").exists()


def test_building_needs_neither_torch_nor_onnx():
    code = "import sys, export.plugin.build; print([m for m in ('torch', 'onnx', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE.parents[2], check=True)
    assert done.stdout.strip() == "[]"


def test_a_model_for_the_plugin_has_the_node_and_no_body(tmp_path, monkeypatch):
    model = graphs.build_model(pipeline())
    onnx.helper.set_model_props(model, {METADATA_KEY: "{}"})
    onnx.save(model, tmp_path / "photo.onnx")
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "photo.onnx"), "-o", str(tmp_path / "plugin.onnx")])
    plugin_model.main()
    bare = onnx.load(tmp_path / "plugin.onnx")
    assert not bare.functions and bare.graph == model.graph and bare.metadata_props == model.metadata_props
    with pytest.raises(DarsrError, match="photo: has no correction filter"):
        without_body(graphs.build_model(pipeline("none")), "photo")
    (tmp_path / "photo.onnx").write_bytes(b"no model")
    with pytest.raises(DarsrError, match=r"photo\.onnx: cannot be read"):
        plugin_model.main()


@pytest.mark.tensorrt
def test_the_parser_takes_the_body_and_without_it_asks_for_the_plugin():
    """NVIDIA's own parser, as TensorRT for RTX has it; it runs without a GPU."""
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX (extra trt-rtx) is not installed")
    builder = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR))

    def parsed(model: onnx.ModelProto) -> tuple[set[str], list[str]]:
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, trt.Logger(trt.Logger.INTERNAL_ERROR))
        parser.parse(model.SerializeToString())
        kinds = {str(network.get_layer(i).type) for i in range(network.num_layers)}
        return kinds, [parser.get_error(i).desc() for i in range(parser.num_errors)]

    class Creator(trt.IPluginCreatorV3One):
        def __init__(self) -> None:
            super().__init__()
            self.name, self.plugin_version, self.plugin_namespace = "CorrectionFilter", "1", ""
            self.field_names = trt.PluginFieldCollection([])

    model = graphs.build_model(pipeline())
    _, errors = parsed(without_body(model))
    assert errors and "Plugin not found" in errors[0]
    creator = Creator()
    assert trt.get_plugin_registry().register_creator(creator, "")
    try:
        kinds, errors = parsed(model)
    finally:
        trt.get_plugin_registry().deregister_creator(creator)
    assert not errors and "LayerType.SLICE" in kinds and not any("PLUGIN" in kind for kind in kinds)
