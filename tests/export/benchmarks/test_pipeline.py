"""What export rewrites for speed computes the same, and the benchmark of the whole way runs."""

from __future__ import annotations

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from darsr_deploy.engines.ort import OrtEngine
from darsr_deploy.files.model_spec import ModelSpec
from darsr_train.networks.backprojection import BackProjection
from export.artefacts.model import export_onnx
from export.benchmarks import pipeline as bench_pipeline
from export.benchmarks.timing import as_onnx
from export.benchmarks.timing import run as run_experiment
from export.folding.backprojection import PlainBackProjection, plain_backprojection
from export.onnx_graphs.rewrites import slopes_as_convolutions
from export.samples import natural_noise
from tests.export.artefacts.test_model import pipeline

pytestmark = pytest.mark.usefixtures("built_once")
SIZES = [(3, 3), (4, 8), (5, 3), (17, 30)]


def stage(scale: int, side: int, rounds: int) -> BackProjection:
    torch.manual_seed(side)
    kernel = torch.rand(side, side)
    return BackProjection(kernel / kernel.sum(), scale, rounds)


@pytest.mark.parametrize(("scale", "side"), [(2, 14), (2, 8), (4, 40)])
def test_backprojection_by_blocks_equals_the_plain_one(scale, side):
    for height, width in SIZES:
        for rounds in (1, 3):
            slow = stage(scale, side, rounds)
            x, y = torch.rand(2, 3, scale * height, scale * width), torch.rand(2, 3, height, width)
            assert (PlainBackProjection(slow)(x, y) - slow(x, y)).abs().max() < 2e-6


def test_backprojection_without_rounds_is_left_out():
    assert plain_backprojection(None) is None and plain_backprojection(stage(2, 14, 0)) is None


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_an_adapter_with_backprojection_passes_the_gate(precision, tmp_path):
    network = pipeline()
    network.backprojection = stage(2, 14, 2)
    target = tmp_path / "m.onnx"
    facts = export_onnx(network, target, ModelSpec(2, precision=precision))
    assert facts["parity_psnr_db"] >= facts["parity_floor_db"]
    proto = onnx.load(target)
    weights = {t.name: t.data_type for t in proto.graph.initializer}
    if precision == "bf16":  # what writes the picture is never that coarse
        assert weights["backprojection.reducing"] == weights["backprojection.enlarging"] == onnx.TensorProto.FLOAT
    else:
        lr = natural_noise(19, 26)
        with OrtEngine(target) as engine:
            assert np.abs(engine.run(lr) - network(torch.from_numpy(lr)).numpy()).max() < 0.05


def run(model: onnx.ModelProto, x: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {model.graph.input[0].name: x.numpy()})[0]


@pytest.mark.parametrize("channels", [5, 32])
def test_slopes_as_convolutions_compute_the_same(channels):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, channels, 3), nn.PReLU(channels), nn.Conv2d(channels, 3, 3), nn.PReLU(3))
    nn.init.uniform_(network[1].weight, -1, 3)  # slopes of any sign, and over 1
    x = torch.randn(1, 3, 20, 23)
    model = as_onnx(network, x)
    before = model.SerializeToString()
    rewritten = slopes_as_convolutions(model)
    onnx.checker.check_model(rewritten, full_check=True)
    assert [n.op_type for n in rewritten.graph.node] == ["Conv", "Conv", "Relu", "Conv", "Add"] * 2
    assert model.SerializeToString() == before
    expected = network(x).detach().numpy()
    assert np.abs(run(rewritten, x) - expected).max() < 3e-6 * np.abs(expected).max()


def test_one_slope_for_all_channels_stays():
    model = as_onnx(nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU()), torch.rand(1, 3, 9, 9))
    assert [n.op_type for n in slopes_as_convolutions(model).graph.node] == ["Conv", "PRelu"]


@pytest.mark.parametrize(("precision", "expected"), [("fp32", 0), ("fp16", 3)])
def test_only_fp32_has_its_slopes_rewritten(precision, expected, tmp_path):
    export_onnx(pipeline(), tmp_path / "m.onnx", ModelSpec(2, precision=precision))
    assert [n.op_type for n in onnx.load(tmp_path / "m.onnx").graph.node].count("PRelu") == expected


def test_the_benchmark_compares_with_the_papers_pipeline(monkeypatch, capsys):
    paper = bench_pipeline.paper_pipeline(2)
    assert sum(p.numel() for p in paper.correction.parameters()) == 681_304  # the paper's own figure
    assert bench_pipeline.fast_pipeline(2).backprojection.rounds == 3
    monkeypatch.setattr(
        bench_pipeline, "paper_pipeline", lambda scale: pipeline("dictionary")
    )  # one that exports sooner
    fast = pipeline()
    fast.backprojection = stage(2, 14, 2)
    monkeypatch.setattr(bench_pipeline, "fast_pipeline", lambda scale: fast)
    monkeypatch.setattr(sys, "argv", ["bench", "--size", "12x10", "--threads", "1", "--repeats", "1", "--json"])
    run_experiment(bench_pipeline.main)
    table = json.loads(capsys.readouterr().out)["tables"][0]
    names = [row["name"] for row in table["rows"]]
    assert names[0] == table["base"] == bench_pipeline.PAPER and len(names) == 5
    assert table["rows"][0]["times_faster"] == 1 and all(row["median_ms"] > 0 for row in table["rows"])


@pytest.mark.parametrize("wrong", [["--size", "2x9"], ["--threads", "0"], ["--size", "big"]])
def test_the_benchmark_refuses_what_it_cannot_measure(wrong, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", *wrong])
    with pytest.raises(SystemExit):
        run_experiment(bench_pipeline.main)
    assert "at least" in capsys.readouterr().err


def test_the_benchmark_names_an_adapter_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["bench", "--adapter", str(tmp_path / "none.darsr")])
    with pytest.raises(SystemExit, match=r"error: .*none\.darsr"):
        run_experiment(bench_pipeline.main)
