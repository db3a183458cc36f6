"""Precisions: what is typed how, that every one passes its gate, and that the gates can fail."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from darsr_deploy.engines.ort import OrtEngine
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.model_spec import ModelSpec
from darsr_deploy.images.metrics import psnr
from darsr_train.backbones import SRFBN, load_backbone
from darsr_train.backbones.onnx_cost import multiply_adds
from darsr_train.networks.prior import load_prior
from darsr_train.pipeline import Pipeline
from export.artefacts.model import export_onnx
from export.artefacts.parity import FLOORS_DB, cases, expected_loss_db, parity_db
from export.artefacts.reference import evaluate
from export.folding.fold import fold
from export.folding.forms import Formed
from export.onnx_graphs import quantize
from export.onnx_graphs.build import build_model
from export.onnx_graphs.opset import OPSET
from export.onnx_graphs.precision import LOW_TYPES, kept, lower, opset_for, sensitive
from export.onnx_graphs.quantize import EARLY
from export.samples import Samples, calibration_crops, natural_noise
from tests.export.artefacts.test_model import gentle, pipeline

LOW = sorted(LOW_TYPES)
pytestmark = pytest.mark.usefixtures("built_once")


def shipped() -> Pipeline:
    """The prior before the default backbone: trained weights, so that a wrong rounding shows in the picture."""
    return Pipeline(load_prior(2), load_backbone("edge", 2).module).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def plain():
    """The same network as float32 ONNX of the opset that every precision knows."""
    return build_model(shipped(), opset_for("bf16", OPSET))


@pytest.fixture(scope="module")
def srfbn():
    """Transposed convolutions, concatenations, a resize whose scales must stay float32."""
    torch.manual_seed(0)
    made = Pipeline(gentle(pipeline().correction), SRFBN(2, channels=8, steps=2).eval()).requires_grad_(False)
    return made, build_model(made, opset_for("bf16", OPSET))


@pytest.mark.parametrize("precision", FLOORS_DB)
def test_every_precision_passes_its_gate_and_says_so(precision, tmp_path):
    facts = export_onnx(shipped(), tmp_path / "m.onnx", ModelSpec(2, precision=precision))
    assert facts["parity_psnr_db"] >= facts["parity_floor_db"] == FLOORS_DB[precision]
    assert facts["precision"] == precision
    assert facts.get("calibration") == ("synthetic pictures" if precision == "int8" else None)
    proto = onnx.load(tmp_path / "m.onnx")
    assert {v.type.tensor_type.elem_type for v in [*proto.graph.input, *proto.graph.output]} == {TensorProto.FLOAT}
    spec = ModelSpec.from_json(proto.metadata_props[0].value, "m.onnx")
    assert (spec.precision, spec.parity_psnr_db) == (precision, facts["parity_psnr_db"])
    assert spec.opset == next(o.version for o in proto.opset_import if not o.domain)
    export_onnx(shipped(), tmp_path / "again.onnx", ModelSpec(2, precision=precision))
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "m.onnx").read_bytes()
    assert b"site-packages" not in (tmp_path / "m.onnx").read_bytes()


@pytest.mark.parametrize("precision", LOW)
def test_the_typed_graph_is_well_formed_and_mostly_narrow(precision, plain, srfbn):
    for model in (plain, srfbn[1]):
        low = lower(model, precision)
        onnx.checker.check_model(low, full_check=True)  # every operator accepts the types it is given
        narrow = [t for t in low.graph.initializer if t.data_type == LOW_TYPES[precision]]
        weights = sum(numpy_helper.to_array(t).size for t in low.graph.initializer)
        assert sum(numpy_helper.to_array(t).size for t in narrow) > 0.6 * weights
        assert len({t.name for t in low.graph.initializer}) == len(low.graph.initializer)


@pytest.mark.parametrize("precision", LOW)
def test_the_reference_at_true_precision_is_near_and_not_equal(precision, plain, srfbn):
    for network, model in ((shipped(), plain), (srfbn[0], srfbn[1])):
        lr = natural_noise(20, 25)
        result = evaluate(lower(model, precision), {"lr": lr})
        distance = psnr(result.sr, network(torch.from_numpy(lr)).numpy(), peak=1.0)
        assert FLOORS_DB[precision] < distance < 125  # float32 reaches 140 dB
        assert {"fp16": "float16", "bf16": "bfloat16"}[precision] in result.peaks


def test_the_reference_equals_pytorch_in_float32(plain, srfbn):
    for network, model in ((shipped(), plain), (srfbn[0], srfbn[1])):
        lr = natural_noise(13, 18)
        result = evaluate(model, {"lr": lr})
        assert np.abs(result.sr - network(torch.from_numpy(lr)).numpy()).max() < 1e-5
        assert list(result.peaks) == ["float32"]


def test_what_stays_float32(plain):
    def names(indices):
        return {plain.graph.node[i].op_type for i in indices}, {n for i in indices for n in plain.graph.node[i].input}

    operators, _ = names(kept(plain, "fp16"))
    assert operators == {"ReduceMean"}
    operators, inputs = names(kept(plain, "bf16"))
    assert {"ReduceMean", "CorrectionFilter", "DepthToSpace", "Clip", "Add"} <= operators
    assert {"correction.head.weight", "correction.tail.weight", "backbone.body.0.weight"} <= inputs
    assert "backbone.body.1.weight" not in inputs and "correction.stages.0.first.weight" not in inputs
    _, inputs = names(quantize.excluded(plain))
    assert {"backbone.tail.weight", "correction.stages.0.squeeze.weight", "correction.stages.1.excite.weight"} <= inputs
    assert "correction.stages.1.first.weight" in inputs  # reads what an attention has weighted
    assert {
        "backbone.body.1.weight",
        "backbone.body.2.weight",
    } <= inputs  # early errors are worked on by all layers behind
    assert "backbone.body.3.weight" not in inputs and "correction.stages.0.first.weight" not in inputs


def test_a_depthwise_convolution_of_the_picture_is_sensitive():
    model = build_model(pipeline("global"))
    assert "correction.kernel" in {n for i in sensitive(model) for n in model.graph.node[i].input}


def test_int8_is_as_tensorrt_wants_it(tmp_path):
    export_onnx(shipped(), tmp_path / "m.onnx", ModelSpec(2, precision="int8"))
    graph = onnx.load(tmp_path / "m.onnx").graph
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    quantizers = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert quantizers
    for node in quantizers:
        zero = arrays[node.input[2]]
        assert zero.dtype == np.int8 and not zero.any()
    quantized = [
        n
        for n in graph.node
        if n.op_type == "Conv" and getattr(makers.get(n.input[1]), "op_type", "") == "DequantizeLinear"
    ]
    assert quantized
    for node in quantized:
        weight = makers[node.input[1]]
        assert arrays[weight.input[0]].dtype == np.int8
        assert arrays[weight.input[1]].shape == arrays[weight.input[0]].shape[:1]  # a scale for each output channel
        assert makers[node.input[0]].op_type == "DequantizeLinear"
        assert all(arrays[name].dtype == np.float32 for name in node.input[2:])


def test_bad_ranges_are_refused_with_the_figure_and_the_loss_to_expect(tmp_path, monkeypatch):
    dark = Samples(calibration=(0.02 * natural_noise(64, 64),), origin="night")
    monkeypatch.setattr("export.samples.natural_noise", lambda *a: 0.02 * natural_noise(*a))
    target = tmp_path / "m.onnx"
    with pytest.raises(
        DarsrError, match=r"m\.onnx: .* dB, at least 43\.0 dB .*--floor \(about \d+\.\d+ dB of quality\)"
    ):
        export_onnx(shipped(), target, ModelSpec(2, precision="int8"), samples=dark)
    assert not list(tmp_path.iterdir())
    facts = export_onnx(shipped(), target, ModelSpec(2, precision="int8"), floor_db=1, samples=dark)
    assert facts["parity_psnr_db"] < 43 and facts["calibration"] == "night"


def test_a_float16_that_nearly_overflows_is_refused(tmp_path):
    large = shipped()
    with torch.no_grad():  # the same function: one layer 10,000 times as large, the next as much smaller
        large.backbone.body[0].weight *= 10000
        large.backbone.body[0].bias *= 10000
        large.backbone.body[1].weight /= 10000
    with pytest.raises(DarsrError, match=r"precision fp16: a value of this model reaches .* float16 ends at 6.55e"):
        export_onnx(large, tmp_path / "m.onnx", ModelSpec(2, precision="fp16"))
    assert not list(tmp_path.iterdir())


def test_float16_errors_that_onnxruntime_hides_are_seen(tmp_path):
    """A weight that float16 cannot hold: ONNX Runtime's float32 arithmetic must not be all that is looked at."""
    made = shipped()
    target = tmp_path / "m.onnx"
    export_onnx(made, target, ModelSpec(2, precision="fp16"))
    tests = cases(Formed(made), Samples())
    alone = parity_db(target, tests)  # as if it were fp32: ONNX Runtime alone
    assert parity_db(target, tests, "fp16") < alone - 3


def test_onnxruntime_says_that_it_has_no_bfloat16(tmp_path):
    export_onnx(shipped(), tmp_path / "m.onnx", ModelSpec(2, precision="bf16"))
    with pytest.raises(DarsrError, match=r"m\.onnx: CPUExecutionProvider .* cannot run precision bf16"):
        OrtEngine(tmp_path / "m.onnx")


def test_an_unknown_precision_is_named(tmp_path):
    with pytest.raises(DarsrError, match="precision fp8: is not known; choose one of fp32, fp16, bf16, int8"):
        export_onnx(shipped(), tmp_path / "m.onnx", ModelSpec(2, precision="fp8"))


def test_expected_loss():
    assert expected_loss_db(30) == pytest.approx(10 * np.log10(2))
    assert 0.19 < expected_loss_db(43) < 0.22  # why int8's floor is 43 dB
    truth, random = np.zeros(200_000), np.random.default_rng(0)
    good = truth + random.normal(0, 10 ** (-30 / 20), truth.shape)
    worse = good + random.normal(0, 10 ** (-35 / 20), truth.shape)
    assert psnr(good, truth, peak=1.0) - psnr(worse, truth, peak=1.0) == pytest.approx(expected_loss_db(35), abs=0.02)


@pytest.mark.parametrize(("architecture", "scale"), [("edge", 4), ("srfbn", 2)])
def test_multiply_adds_are_those_that_pytorch_counts(architecture, scale):
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(0)
    backbone = pipeline("none", scale).backbone if architecture == "edge" else SRFBN(scale, channels=8, steps=2)
    network = Pipeline(torch.nn.Identity(), backbone.eval())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        fold(network)(torch.zeros(1, 3, 32, 32))
    assert multiply_adds(build_model(network)) == counter.get_total_flops() // 2 // 32**2


def test_calibration_crops_are_of_one_size():
    samples = Samples(calibration=(natural_noise(200, 130), natural_noise(40, 300)))
    crops = calibration_crops(samples)
    assert {c.shape for c in crops} == {(1, 3, 40, 40)}
    assert len(crops) > 20


def test_int8_keeps_more_layers_in_float32_where_it_must(tmp_path, monkeypatch):
    """The first number of them with which the file passes its gate; with none of them, nothing is written."""
    tried: list[int] = []
    real = quantize.quantize

    def counted(model, feeds, early):
        tried.append(early)
        return real(model, feeds, early)

    monkeypatch.setattr("export.onnx_graphs.build.quantize", counted)
    figures = iter([40.0, 42.9, 43.1])
    monkeypatch.setattr("export.artefacts.model.measured_parity", lambda *_: next(figures))
    spec, pipe = ModelSpec(2, precision="int8"), shipped()
    facts = export_onnx(pipe, tmp_path / "m.onnx", spec)
    assert tried == list(EARLY) and facts["parity_psnr_db"] == 43.1
    with pytest.raises(StopIteration):
        next(figures)
    monkeypatch.setattr("export.artefacts.model.measured_parity", lambda *_: 41.0)
    with pytest.raises(DarsrError, match=r"41\.0 dB, at least 43\.0 dB are required, so nothing was written"):
        export_onnx(pipe, tmp_path / "never.onnx", spec)
    assert not (tmp_path / "never.onnx").exists()
    tried.clear()
    export_onnx(pipe, tmp_path / "low.onnx", spec, floor_db=41.0)
    assert tried == [EARLY[0]]
