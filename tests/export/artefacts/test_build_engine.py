"""Building engines: for real with TensorRT for RTX, which needs no GPU, and every API family through the fake."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import shape_inference

from darsr_deploy.errors import DarsrError
from darsr_deploy.files.model_spec import ModelSpec
from darsr_deploy.files.onnx_bytes import read_spec
from darsr_deploy.trt import library as trt_library
from darsr_deploy.trt.library import FAMILIES, check_targets, import_library
from darsr_deploy.trt.parity import pictures, require_built_type
from darsr_deploy.trt.shapes import Shapes
from export.artefacts.build_engine import BuildOptions, build_engine
from export.artefacts.engine import Comparison, build_file
from export.folding.forms import Formed, take_form
from export.onnx_graphs.build import build_model, typed_model
from export.samples import Samples
from tests.support.fake_cuda import FakeDriver
from tests.support.fake_tensorrt import fake_tensorrt
from tests.support.gpu import DYNAMIC, LIBRARIES, STATIC, image, install, model_file

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
WEIGHTS = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16", "int8": "FLOAT"}  # int8: between quantize and dequantize


@pytest.fixture(scope="module")
def rtx():
    pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX (extra trt-rtx) is not installed")
    return import_library(FAMILIES["trt-rtx"])


@pytest.fixture(scope="module")
def default_models(tmp_path_factory):
    """The default backbone behind a correction network, in every precision, as ``darsr export`` makes them."""
    from darsr_train.backbones import load_backbone
    from darsr_train.networks.darm import DARM
    from darsr_train.pipeline import Pipeline

    pipeline = Pipeline(DARM(), load_backbone("edge", 2).module).eval()
    samples = Samples(photo=image(96, 96))
    formed: Formed = take_form(pipeline, "network", samples)
    plain = build_model(formed.pipeline)
    models = {p: typed_model(plain, p, formed, samples) for p in PRECISIONS if p != "bf16"}
    small = tmp_path_factory.mktemp("bf16") / "small.onnx"  # another opset: the exporter would take seconds once more
    return models | {"bf16": onnx.load(model_file(small, "bf16"))}


def convolutions(model: onnx.ModelProto) -> Counter[str]:
    """Convolutions of a file by the type that they give."""
    graph = shape_inference.infer_shapes(model).graph
    known = {v.name: v.type.tensor_type.elem_type for v in [*graph.value_info, *graph.output]}
    names = {1: "FLOAT", 10: "HALF", 16: "BF16"}
    return Counter(names[known[n.output[0]]] for n in graph.node if n.op_type == "Conv")


@pytest.mark.tensorrt
@pytest.mark.parametrize("precision", PRECISIONS)
def test_real_engines_without_a_gpu(rtx, default_models, precision):
    """Parsed layer by layer as the file says, float32 at both ends, static and dynamic, for one GPU and for three."""
    model = default_models[precision]
    data = model.SerializeToString()
    spec = ModelSpec(2, precision=precision)
    for shapes, targets in ((STATIC, ("sm_86",)), (DYNAMIC, ("sm_86", "sm_89", "sm_120"))):
        seen: list[dict] = []
        engine, facts = build_engine(data, spec, rtx, BuildOptions(shapes, targets), "test", seen.append)
        assert len(engine) > 10_000 and facts.typed
        assert (facts.shapes, facts.targets, facts.family) == (shapes, targets, "trt-rtx")
        found = {k: n for k, n in facts.layers.items() if k.startswith("CONVOLUTION")}
        assert found == {f"CONVOLUTION {kind}": n for kind, n in convolutions(model).items()}
        assert f"CONVOLUTION {WEIGHTS[precision]}" in found
        assert ("QUANTIZE INT8" in facts.layers) == (precision == "int8")
        assert seen[0]["step"] == 0 and seen[-1]["step"] == seen[-1]["steps"]


@pytest.mark.tensorrt
def test_a_static_engine_is_static(rtx, default_models):
    """The parsed network's own shapes are set, so nothing is left to be decided when it runs."""
    trt = rtx.module
    logger = trt_library.make_logger(trt)
    network = trt.Builder(logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    assert trt.OnnxParser(network, logger).parse(default_models["fp16"].SerializeToString())
    assert tuple(network.get_input(0).shape) == (-1, 3, -1, -1)
    network.get_input(0).shape = (1, 3, 24, 32)
    assert tuple(network.get_output(0).shape) == (1, 3, 48, 64)
    assert {network.get_input(0).dtype, network.get_output(0).dtype} == {trt.DataType.FLOAT}


@pytest.mark.tensorrt
def test_the_precision_of_the_parsed_network_is_asserted(rtx, default_models, tmp_path):
    """A float32 file under an fp16 name is refused, and the other way round."""
    for own, told in (("fp32", "fp16"), ("fp16", "fp32"), ("fp16", "bf16"), ("fp32", "int8")):
        data = default_models[own].SerializeToString()
        with pytest.raises(DarsrError, match=f"the parsed network computes in .*, asked for {told}"):
            build_engine(data, ModelSpec(2, precision=told), rtx, BuildOptions(STATIC), "test")


@pytest.mark.tensorrt
def test_what_rtx_does_not_build_for(rtx):
    """Orin is sm_87: one line that names the other format."""
    with pytest.raises(DarsrError, match=r"^--target sm_87: .*sm_86.*; .*Orin is sm_87.* --format trt "):
        check_targets(rtx, ("sm_86", "sm_87"))
    with pytest.raises(DarsrError, match="cannot parse the model"):
        build_engine(b"no model", ModelSpec(2), rtx, BuildOptions(STATIC), "test")


@pytest.mark.tensorrt
def test_the_real_library_without_a_driver_does_not_crash(rtx, default_models, tmp_path):
    engine, _ = build_engine(default_models["fp32"].SerializeToString(), ModelSpec(2), rtx, BuildOptions(STATIC), "x")
    logger = trt_library.make_logger(rtx.module)
    runtime = rtx.module.Runtime(logger)
    assert runtime.deserialize_cuda_engine(b"no engine" * 100) is None
    assert "no reason" not in logger.why()
    assert len(engine) > 0


@pytest.mark.tensorrt
def test_the_fake_has_no_names_of_its_own(rtx):
    """Every class, method and enumeration that the fake offers is the real library's, so code cannot lean on inventions."""
    fake = fake_tensorrt("trt-rtx", rtx.version, FakeDriver())
    real = rtx.module
    ours = {
        "model",
        "layers",
        "inputs",
        "outputs",
        "typed",
        "shapes",
        "targets",
        "profiles",
        "pools",
        "features",
        "facts",
    }
    for name, kind in fake.classes.items():
        methods = {
            n
            for n, m in vars(kind).items()
            if not n.startswith("_") and (inspect.isfunction(m) or isinstance(m, property))
        }
        for method in methods - ours:
            assert hasattr(getattr(real, name), method), f"{name}.{method}"
    for name in ("DataType", "LayerType", "BuilderFlag", "MemoryPoolType", "ProfilingVerbosity", "TensorIOMode",
                 "LayerInformationFormat", "ExecutionContextAllocationStrategy", "ComputeCapability", "CudaGraphStrategy"):  # fmt: skip
        for member in getattr(fake, name).__members__:
            assert member in getattr(real, name).__members__, f"{name}.{member}"


# --- every API family, through the fake


@pytest.fixture(params=LIBRARIES, ids=lambda p: f"{p[0]} {p[1]}")
def machine(request, monkeypatch, tmp_path):
    monkeypatch.setenv("DARSR_STATE", str(tmp_path / "state"))
    return install(monkeypatch, *request.param)


def build(machine, model: Path, shapes: Shapes = DYNAMIC, **options: object):
    data, spec = read_spec(model)
    library = import_library(FAMILIES[machine.family])
    return build_engine(data, spec, library, BuildOptions(shapes, **options), str(model))[1]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_networks_are_strongly_typed(machine, tmp_path, precision):
    facts = build(machine, model_file(tmp_path / "a.onnx", precision), workspace_mb=64)
    config = machine.trt.last_config
    assert facts.typed and machine.trt.builds == 1
    assert config.flags == set(), "TF32 is off, and no flag asks for a precision"
    assert config.pools == {machine.trt.MemoryPoolType.WORKSPACE: 64 * 2**20}
    assert config.profiling_verbosity == machine.trt.ProfilingVerbosity.DETAILED
    assert (facts.gpu, facts.target) == (("Fake RTX", "sm_89") if machine.family == "trt" else ("", ""))


def test_flags_are_the_second_attempt_before_10_12(monkeypatch, tmp_path):
    model = model_file(tmp_path / "a.onnx", "fp16")
    machine = install(monkeypatch, "trt", "10.3.0.26")
    machine.trt.refuse_typed = True
    assert not build(machine, model).typed
    names = {flag.name for flag in machine.trt.last_config.flags}
    assert names == {"FP16", "OBEY_PRECISION_CONSTRAINTS"}
    machine = install(monkeypatch, "trt", "10.13.3.9")
    machine.trt.refuse_typed = True
    with pytest.raises(DarsrError, match=r"TensorRT 10\.13\.3\.9 cannot build it \(Could not find any implementation"):
        build(machine, model)


def test_builder_failures_are_one_line(machine, tmp_path):
    machine.trt.refuse = True
    with pytest.raises(DarsrError, match=r"cannot build it .*--workspace MB and smaller --shapes"):
        build(machine, model_file(tmp_path / "a.onnx"))


def test_targets_are_for_rtx(machine, tmp_path):
    model = model_file(tmp_path / "a.onnx")
    if machine.family == "trt":
        with pytest.raises(DarsrError, match="builds for the GPU it runs on"):
            build(machine, model, targets=("sm_86",))
    else:
        build(machine, model, targets=("sm_86", "sm_89"))
        assert [t.name for t in machine.trt.last_config.targets.values()] == ["SM86", "SM89"]


def test_ctrl_c_stops_the_builder(machine, tmp_path):
    data, spec = read_spec(model_file(tmp_path / "a.onnx"))

    def report(entry: dict) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(data, spec, import_library(FAMILIES[machine.family]), BuildOptions(DYNAMIC), "a", report)


def to_file(machine, model: Path, **options: object):
    library = import_library(FAMILIES[machine.family])
    return build_file(model, model.with_suffix(".engine"), library, BuildOptions(DYNAMIC), **options)


def test_an_engine_is_run_and_compared_before_it_is_written(machine, tmp_path, caplog):
    """With ONNX Runtime on the same file where there is no PyTorch."""
    facts = to_file(machine, model_file(tmp_path / "a.onnx"))
    assert facts.device_parity_psnr_db == 200
    assert not caplog.records
    assert machine.driver.left_over() == {}


def test_an_engine_that_computes_something_else_is_not_written(machine, tmp_path):
    model = model_file(tmp_path / "a.onnx")
    machine.trt.error = 1e-3  # 60 dB
    with pytest.raises(
        DarsrError, match=r"on Fake RTX the engine differs from ONNX Runtime: 60\.0 dB, at least 80\.0 dB"
    ):
        to_file(machine, model)
    machine.trt.error = np.nan
    with pytest.raises(DarsrError, match=r"differs from ONNX Runtime: 0\.0 dB"):
        to_file(machine, model)
    assert [p.name for p in tmp_path.glob("a.*")] == ["a.onnx"]
    machine.trt.error = 1e-3
    assert to_file(machine, model, comparison=Comparison(floor_db=55.0)).device_parity_psnr_db == pytest.approx(
        60, abs=0.1
    )


def test_an_engine_that_was_built_in_another_type_is_not_written(machine, tmp_path):
    model = model_file(tmp_path / "a.onnx", "fp16")
    machine.trt.built_type = "FLOAT"
    with pytest.raises(DarsrError, match="TensorRT built no layer in fp16"):
        to_file(machine, model)
    machine.trt.built_type = None
    to_file(machine, model)


def test_types_as_inspectors_write_them():
    for information, precision in (
        ('"Half"', "fp16"),
        ("FP16 NHWC8", "fp16"),
        ('"BF16"', "bf16"),
        ("Int8 NC/32HW32", "int8"),
    ):
        require_built_type(f'{{"Format/Datatype": {information}, "b": "Float"}}', precision, "engine")
    with pytest.raises(DarsrError):
        require_built_type('{"Datatype": "Float"}', "int8", "engine")


def test_no_gpu_at_hand_is_said(machine, tmp_path, monkeypatch, caplog):
    """RTX builds all the same; enterprise TensorRT does not, and names the way."""
    from darsr_deploy.trt import cuda as cuda_driver

    model = model_file(tmp_path / "a.onnx")

    def none() -> None:
        raise DarsrError("GPU", "no NVIDIA driver is installed here", "install it")

    monkeypatch.setattr(cuda_driver, "load_library", none)
    if machine.family == "trt":
        with pytest.raises(DarsrError, match="no NVIDIA driver"):
            to_file(machine, model)
        return
    caplog.set_level("INFO", "darsr")
    assert to_file(machine, model).device_parity_psnr_db is None
    assert "built, not run yet (no NVIDIA driver is installed here)" in caplog.text


def test_pictures_fit_the_engine():
    """Two sizes where two fit, else the engine's own; of form filters the photo alone."""
    photo = image(100, 120)
    assert [p.shape[2:] for p in pictures(Shapes((8, 8), (64, 64), (99, 99)), photo)] == [(48, 64)] * 2 + [(61, 75)] * 2
    assert [p.shape[2:] for p in pictures(STATIC, photo)] == [(24, 32)] * 2
    assert [p.shape[2:] for p in pictures(Shapes((200, 200), (200, 200), (200, 200)), photo)] == [(200, 200)]
    (only,) = pictures(STATIC, photo, one_image=True)
    assert only is photo


def test_layers_of_a_network_are_counted_by_type(machine, tmp_path):
    facts = build(machine, model_file(tmp_path / "a.onnx", "fp16"))
    assert facts.layers["CONVOLUTION HALF"] == 2 and facts.layers["CAST FLOAT"] == 1
    assert json.loads(json.dumps(facts.to_json()))["layers"] == facts.layers
