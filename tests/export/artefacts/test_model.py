"""The exported file: equal to PyTorch, deterministic, free of the machine it was made on, refused where it differs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from darsr_deploy.engines.ort import OrtEngine
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.model_spec import ModelSpec
from darsr_deploy.files.onnx_bytes import sealed
from darsr_deploy.images.metrics import psnr
from darsr_train.backbones import SRFBN, EdgeSR
from darsr_train.networks.darm import DARM, filter_with_taps
from darsr_train.networks.dictionary import correction_dictionary
from darsr_train.pipeline import GlobalCorrection, Pipeline
from export.artefacts.model import export_onnx
from export.artefacts.parity import cases, parity_db
from export.folding.forms import Formed
from export.onnx_graphs import opset
from export.onnx_graphs.build import build_model
from export.onnx_graphs.correction_filter import correction_filter_function
from export.samples import Samples, natural_noise


def gentle(darm: DARM) -> DARM:
    """Random weights, but coefficients small enough that pictures stay pictures."""
    with torch.no_grad():
        darm.tail.weight.mul_(0.02)
        darm.tail.bias[-1] = 1
    return darm.eval()


def pipeline(correction: str = "taps", scale: int = 2) -> Pipeline:
    torch.manual_seed(3)
    made = {
        "taps": lambda: gentle(DARM(channels=16)),
        "dictionary": lambda: gentle(DARM(correction_dictionary(), channels=16)),
        "global": lambda: GlobalCorrection(torch.tensor([0.01] * 12 + [0.76])),
        "none": nn.Identity,
    }[correction]()
    return Pipeline(made, EdgeSR(scale, channels=8, blocks=2)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = tmp_path_factory.mktemp("export") / "m.onnx"
    return model, export_onnx(pipeline(), model, ModelSpec(2, backbone="edge-x2"))


@pytest.mark.parametrize("correction", ["dictionary", "global", "none"])
def test_every_correction_passes_the_gate(correction, tmp_path):
    facts = export_onnx(pipeline(correction), tmp_path / "m.onnx", ModelSpec(2))
    assert facts["parity_psnr_db"] >= 80


def test_srfbn_with_its_range_folded_in_passes_the_gate(tmp_path):
    torch.manual_seed(0)
    model = Pipeline(gentle(DARM(channels=8)), SRFBN(4, steps=2).eval()).requires_grad_(False)
    assert export_onnx(model, tmp_path / "m.onnx", ModelSpec(4))["parity_psnr_db"] >= 80


@pytest.mark.parametrize("shape", [(1, 3, 3), (1, 17, 31), (3, 24, 40)])
def test_any_size_and_batch(exported, shape):
    n, height, width = shape
    lr = np.concatenate([natural_noise(height, width, seed) for seed in range(n)])
    with OrtEngine(exported[0]) as engine:
        got = engine.run(lr)
    assert got.shape == (n, 3, 2 * height, 2 * width)
    assert psnr(got, pipeline()(torch.from_numpy(lr)).numpy(), peak=1.0) > 80


def test_same_weights_same_bytes(exported, tmp_path):
    export_onnx(pipeline(), tmp_path / "again.onnx", ModelSpec(2, backbone="edge-x2"))
    assert (tmp_path / "again.onnx").read_bytes() == exported[0].read_bytes()


def test_nothing_of_this_machine_is_in_the_file(exported):
    data = exported[0].read_bytes()
    for trace in (str(Path(__file__).parents[3]), str(Path.home()), "site-packages", ".py", "torch"):
        assert trace.encode() not in data


def test_the_file_tells_its_contract(exported):
    model, facts = exported
    with OrtEngine(model) as engine:
        assert engine.spec == ModelSpec(
            2,
            backbone="edge-x2",
            parity_psnr_db=facts["parity_psnr_db"],
            macs_per_lr_pixel=facts["macs_per_lr_pixel"],
            whole_because="ReduceMean over the whole picture",
            bytes_per_lr_pixel=engine.spec.bytes_per_lr_pixel,
        )
        assert 100 < engine.spec.bytes_per_lr_pixel < 1000
    proto = onnx.load(model)
    assert {o.domain: o.version for o in proto.opset_import} == {"": opset.OPSET}
    assert [d.dim_param or d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim] == ["n", 3, "h", "w"]


def test_standard_operators_alone_with_their_shapes(exported):
    """What many runtimes need: they read no local functions."""
    proto = onnx.load(exported[0])
    assert not proto.functions and {node.domain for node in proto.graph.node} <= {"", "ai.onnx"}
    known = {value.name for value in [*proto.graph.value_info, *proto.graph.output]}
    assert {name for node in proto.graph.node for name in node.output} <= known
    assert [node.output[0] for node in proto.graph.node].count(opset.CORRECTED) == 1


def test_the_function_is_kept_for_the_plugin(exported, tmp_path):
    export_onnx(pipeline(), tmp_path / "m.onnx", ModelSpec(2), keep_function=True)
    proto = onnx.load(tmp_path / "m.onnx")
    assert [(f.domain, f.name) for f in proto.functions] == [("darsr", "CorrectionFilter")]
    lr = natural_noise(24, 40)
    with OrtEngine(tmp_path / "m.onnx") as kept, OrtEngine(exported[0]) as inlined:
        assert np.abs(kept.run(lr) - inlined.run(lr)).max() < 1e-6


def test_openvino_computes_the_same(exported):
    openvino = pytest.importorskip("openvino", reason="openvino (extra dev) is not installed")
    lr = natural_noise(37, 48)
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(str(exported[0]), "CPU", hints)
    assert np.abs(compiled(lr)[0] - pipeline()(torch.from_numpy(lr)).numpy()).max() < 2e-5


@pytest.mark.parametrize("size", [(3, 3), (5, 8), (31, 17)])
def test_the_function_body_equals_the_plain_filter(size, tmp_path):
    x, c = torch.rand(2, 3, *size), torch.randn(2, 13, *size)
    node = onnx.helper.make_node("CorrectionFilter", ["x", "c"], ["y"], domain="darsr")
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", channels, "h", "w"])
        for name, channels in (("x", 3), ("c", 13), ("y", 3))
    ]
    graph = onnx.helper.make_graph([node], "g", values[:2], values[2:])
    opsets = [onnx.helper.make_opsetid("", opset.OPSET), onnx.helper.make_opsetid("darsr", 1)]
    model = onnx.helper.make_model(graph, functions=[correction_filter_function()], opset_imports=opsets, ir_version=10)
    import onnxruntime

    got = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x.numpy(), "c": c.numpy()}
    )[0]
    assert np.abs(got - filter_with_taps(x, c).numpy()).max() < 1e-5


def test_a_model_that_differs_is_refused_with_the_figure(tmp_path, monkeypatch):
    def wrong(*arguments):
        proto = build_model(*arguments)
        for tensor in proto.graph.initializer:
            if tensor.name.endswith("backbone.tail.bias"):
                tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + 0.01, tensor.name))
        return proto

    monkeypatch.setattr("export.artefacts.model.build_model", wrong)
    target = tmp_path / "m.onnx"
    target.write_bytes(b"an older file")
    with pytest.raises(DarsrError, match=r"m\.onnx: .*4\d\.\d dB, at least 80\.0 dB .*--floor"):
        export_onnx(pipeline(), target, ModelSpec(2))
    assert target.read_bytes() == b"an older file"
    assert list(tmp_path.iterdir()) == [target]
    # the way out that the line names: a lower floor
    assert 30 < export_onnx(pipeline(), target, ModelSpec(2), floor_db=30)["parity_psnr_db"] < 50


def test_a_model_that_gives_nan_has_no_parity(tmp_path):
    sick = pipeline()
    export_onnx(sick, tmp_path / "m.onnx", ModelSpec(2))
    proto = onnx.load(tmp_path / "m.onnx")
    bias = next(t for t in proto.graph.initializer if t.name.endswith("backbone.tail.bias"))
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full_like(onnx.numpy_helper.to_array(bias), np.nan), bias.name))
    proto.metadata_props.pop()  # the seal, which such a change would break
    (tmp_path / "nan.onnx").write_bytes(sealed(proto.SerializeToString()))  # unsealed ones with NaN are refused
    assert parity_db(tmp_path / "nan.onnx", cases(Formed(sick), Samples())) == 0.0


def test_a_foreign_onnx_file_is_refused(tmp_path, exported):
    proto = onnx.load(exported[0])
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "foreign.onnx")
    with pytest.raises(DarsrError, match="does not hold the metadata"):
        OrtEngine(tmp_path / "foreign.onnx")
    (tmp_path / "cut.onnx").write_bytes(exported[0].read_bytes()[:500])
    with pytest.raises(DarsrError, match=r"cut\.onnx"):
        OrtEngine(tmp_path / "cut.onnx")


def test_input_is_checked_before_the_runtime_sees_it(exported):
    with OrtEngine(exported[0]) as engine:
        for bad in (
            np.zeros((3, 8, 8), np.float32),
            np.zeros((1, 3, 8, 8), np.float64),
            np.zeros((1, 3, 2, 8), np.float32),
        ):
            with pytest.raises(DarsrError, match="engine input"):
                engine.run(bad)
