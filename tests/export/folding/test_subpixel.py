"""Rewritten layers against the layers themselves: equal at any size, whole networks too, and nothing else is touched."""

from __future__ import annotations

import json
import re
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darsr_train.backbones import SRFBN, save_backbone
from darsr_train.pipeline import Pipeline
from export.benchmarks import backbones as bench_backbones
from export.benchmarks.timing import alternate, compared, markdown
from export.benchmarks.timing import run as run_experiment
from export.folding.fold import fold
from export.folding.layers import single_slopes
from export.folding.subpixel import (
    from_phases,
    on_phases,
    rewrite,
    strided_to_subpixel,
    to_phases,
    transposed_to_subpixel,
)
from export.onnx_graphs.build import build_model

scales = pytest.mark.parametrize("scale", [2, 4])
bias = pytest.mark.parametrize("bias", [True, False])
SIZES = [(1, 1), (5, 8), (7, 3), (16, 9)]


def assert_same(got: Tensor, expected: Tensor) -> None:
    assert got.shape == expected.shape
    error = (got - expected).abs().max() / expected.abs().max()
    assert error <= 1e-6, f"off by {error:.1e} of the largest value"


def phases(x: Tensor, s: int) -> Tensor:
    """N x C x sH x sW -> N x ss*C x H x W, slowly."""
    return torch.cat([x[:, :, y::s, z::s] for y in range(s) for z in range(s)], 1)


def stirred(network: nn.Module) -> nn.Module:
    """Slopes that differ from layer to layer, biases, and a residual as large as the skip."""
    torch.manual_seed(7)
    for layer in network.modules():
        if isinstance(layer, nn.PReLU):
            nn.init.uniform_(layer.weight, 0.05, 0.9)
        elif isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) and layer.in_channels > 3:
            nn.init.uniform_(layer.bias, -0.3, 0.3)
    network.conv_out[0].weight.data *= 100
    return network.eval().requires_grad_(False)


# --- Layers ----------------------------------------------------------------------------------------------------------------

# kernel, stride, padding, output padding; SRFBN-S's come first
ENLARGING = [
    (6, 2, 2, 0),
    (8, 4, 2, 0),
    (4, 2, 1, 0),
    (3, 2, 1, 1),
    (2, 2, 0, 0),
    (7, 2, 3, 1),
    (9, 4, 4, 3),
    (5, 3, 1, 0),
]
REDUCING = [(6, 2, 2), (8, 4, 2), (4, 2, 1), (3, 2, 1), (2, 2, 0), (7, 2, 3), (1, 2, 0), (5, 3, 1), (3, 4, 0)]


@bias
@pytest.mark.parametrize("k, s, p, output_padding", ENLARGING)
def test_transposed_convolution_is_a_convolution_and_a_shuffle(k, s, p, output_padding, bias):
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(5, 7, k, s, p, output_padding, bias=bias).requires_grad_(False)
    rewritten = transposed_to_subpixel(layer)
    for size in SIZES:
        x = torch.randn(2, 5, *size)
        assert_same(rewritten(x), layer(x))
        assert_same(to_phases(layer)(x), phases(layer(x), s))


@bias
@pytest.mark.parametrize("k, s, p", REDUCING)
def test_strided_convolution_is_an_unshuffle_and_a_convolution(k, s, p, bias):
    torch.manual_seed(1)
    layer = nn.Conv2d(5, 7, k, s, p, bias=bias).requires_grad_(False)
    rewritten = strided_to_subpixel(layer)
    for height, width in SIZES:
        x = torch.randn(2, 5, s * height, s * width)
        assert_same(rewritten(x), layer(x))
        assert_same(from_phases(layer)(phases(x, s)), layer(x))


@bias
@pytest.mark.parametrize("k", [1, 3, 5, 7])
@pytest.mark.parametrize("s", [2, 3, 4])
def test_convolution_on_phases(k, s, bias):
    torch.manual_seed(2)
    layer = nn.Conv2d(3, 4, k, padding=k // 2, bias=bias).requires_grad_(False)
    for height, width in SIZES:
        x = torch.randn(2, 3, s * height, s * width)
        assert_same(on_phases(layer, s)(phases(x, s)), phases(layer(x), s))


@pytest.mark.parametrize("k, s, p, radius", [(6, 2, 2, 1), (8, 4, 2, 1), (2, 2, 0, 0), (7, 2, 3, 2)])
def test_the_new_kernel_is_no_larger_than_it_must_be(k, s, p, radius):
    side = 2 * radius + 1
    assert to_phases(nn.ConvTranspose2d(3, 4, k, s, p, 2 * p + s - k)).weight.shape == (4 * s * s, 3, side, side)
    assert from_phases(nn.Conv2d(3, 4, k, s, p)).weight.shape == (4, 3 * s * s, side, side)


UNFIT = {
    "another size": nn.ConvTranspose2d(4, 4, 4, 2, 0),
    "uneven output": nn.ConvTranspose2d(4, 4, 3, 2, 1, (1, 0)),
    "groups": nn.ConvTranspose2d(4, 4, 6, 2, 2, groups=2),
    "dilation": nn.ConvTranspose2d(4, 4, 3, 2, 2, 1, dilation=2),
    "axes": nn.ConvTranspose2d(4, 4, (6, 2), 2, (2, 0)),
    "strided, another size": nn.Conv2d(4, 4, 3, 2, 2),
    "strided, groups": nn.Conv2d(4, 4, 6, 2, 2, groups=4),
    "strided, dilation": nn.Conv2d(4, 4, 3, 2, 2, dilation=2),
    "strided, axes": nn.Conv2d(4, 4, 6, (2, 3), 2),
    "strided, reflecting": nn.Conv2d(4, 4, 6, 2, 2, padding_mode="reflect"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_a_layer_that_cannot_be_rewritten_is_named_and_left_alone(kind):
    layer = UNFIT[kind]
    convert = to_phases if isinstance(layer, nn.ConvTranspose2d) else from_phases
    with pytest.raises(ValueError, match=re.escape(str(layer))):
        convert(layer)
    kept = rewrite(nn.Sequential(layer), strided=True)[0]
    assert type(kept) is type(layer) and torch.equal(kept.weight, layer.weight) and kept is not layer


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 2, padding="same"), nn.Conv2d(4, 4, 3, 2, 1)])
def test_only_what_keeps_the_size_runs_on_phases(layer):
    with pytest.raises(ValueError, match=re.escape(str(layer))):
        on_phases(layer, 2)


# --- Networks --------------------------------------------------------------------------------------------------------------


@scales
@pytest.mark.parametrize("transposed, strided", [(True, False), (False, True), (True, True), (False, False)])
def test_srfbn_is_rewritten_whole_by_kind(scale, transposed, strided):
    network = stirred(SRFBN(scale))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    rewritten = rewrite(network, transposed, strided)
    kinds = [type(layer) for layer in rewritten.modules()]
    assert (kinds.count(nn.ConvTranspose2d), kinds.count(nn.PixelShuffle)) == ((0, 4) if transposed else (4, 0))
    assert kinds.count(nn.PixelUnshuffle) == (3 if strided else 0)
    x = torch.rand(1, 3, 11, 6)
    assert_same(rewritten(x), network(x))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@scales
def test_srfbn_as_exported_never_leaves_the_small_size(scale):
    network = stirred(SRFBN(scale))
    plain = fold(Pipeline(nn.Identity(), network)).backbone
    sides = set()
    for layer in plain.modules():
        assert not isinstance(layer, (nn.ConvTranspose2d, nn.PReLU))
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _, inputs, output: sides.update({inputs[0].shape[-1], output.shape[-1]}))
    for size in ((9, 7), (4, 13), (1, 1)):
        sides.clear()
        x = torch.rand(2, 3, *size)
        assert_same(plain(x), network(x))
        assert sides == {size[1]}


def test_one_slope_becomes_a_leaky_relu_and_more_stay():
    torch.manual_seed(3)
    network = nn.Sequential(nn.PReLU(init=0.3), nn.Sequential(nn.Conv2d(4, 4, 1), nn.PReLU(init=-0.1)), nn.PReLU(4))
    simple = single_slopes(network)
    assert [type(layer) for layer in (simple[0], simple[1][1], simple[2])] == [nn.LeakyReLU, nn.LeakyReLU, nn.PReLU]
    x = torch.randn(2, 4, 5, 6)
    assert torch.equal(simple(x), network(x))
    assert isinstance(network[1][1], nn.PReLU)


def test_the_exported_file_holds_the_operators_it_should():
    """The exporter must give the shuffle as one operator, and nothing that changes the resolution before it."""
    nodes = build_model(Pipeline(nn.Identity(), SRFBN(2, channels=4, steps=1, groups=2).eval())).graph.node
    kinds = {node.op_type for node in nodes}
    assert kinds == {"Conv", "LeakyRelu", "Concat", "Add", "DepthToSpace", "Resize", "Clip"}
    shuffles = [node for node in nodes if node.op_type == "DepthToSpace"]
    assert [a.s for node in shuffles for a in node.attribute if a.name == "mode"] == [b"CRD"]


def test_other_networks_lose_their_transposed_convolutions_in_the_file():
    torch.manual_seed(4)
    other = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1)).eval()
    assert "ConvTranspose" not in {node.op_type for node in build_model(Pipeline(nn.Identity(), other)).graph.node}


# --- The benchmark ---------------------------------------------------------------------------------------------------------


def test_runs_alternate_and_the_first_does_not_count():
    calls = []
    timings = alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2)
    assert "".join(calls) == "ababab"
    rows = compared(timings, "b")
    assert [row["name"] for row in rows] == ["a", "b"]
    assert rows[1]["times_faster"] == 1
    assert all(0 < row["least_ms"] <= row["median_ms"] <= row["most_ms"] for row in rows)


@pytest.mark.parametrize(
    "tables, counts",
    [
        ("networks", {"networks": 11}),
        pytest.param("operators", {"transposed": 5, "strided": 6}, marks=pytest.mark.slow),
        pytest.param("activations", {"edge-x2": 7}, marks=pytest.mark.slow),
    ],
)
def test_the_benchmark_gives_every_row(tables, counts, monkeypatch, capsys, tmp_path):
    """At a size at which nothing takes time. What is left is the export of many models, so these are small."""
    save_backbone(SRFBN(2, channels=4, steps=1, groups=2), tmp_path / "small.safetensors", {})
    small = ["--size", "10x6", "--repeats", "1", "--blocks", "2", "1", "--srfbn", str(tmp_path / "small.safetensors")]
    monkeypatch.setattr(sys, "argv", ["bench", "--json", *small, "--tables", tables])
    run_experiment(bench_backbones.main)
    report = json.loads(capsys.readouterr().out)
    assert {"processor", "threads", "torch", "onnxruntime"} <= report["machine"].keys()
    expected = {"height": 6, "width": 10, "scale": 2, "threads": 1, "repeats": 1, "blocks": [2, 1]}
    assert report["setting"] == expected
    assert {table["title"].split(",")[0]: len(table["rows"]) for table in report["tables"]} == counts
    for table in report["tables"]:
        assert table["rows"][0]["name"] == table["base"] and table["rows"][0]["times_faster"] == 1
        assert all(row["median_ms"] > 0 for row in table["rows"])
    report["tables"][0]["rows"][0] |= {"median_ms": 1234.56, "times_faster_cpu": None}
    table = markdown("title", "base", report["tables"][0]["rows"]).splitlines()
    assert len(table) == 2 + len(report["tables"][0]["rows"])
    assert len({line.count("|") for line in table}) == 1 and "| 1234.6 |" in table[2]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--size", "240"], "240 is not WIDTHxHEIGHT, at least 3x3"),
        (["--repeats", "0"], "at least 1"),
        (["--srfbn", "nope.pth"], "error: backbone nope.pth: "),
    ],
)
def test_the_benchmark_refuses_in_one_line(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    with pytest.raises(SystemExit) as stopped:
        run_experiment(bench_backbones.main)
    assert message in (capsys.readouterr().err + str(stopped.value))


def test_the_alternatives_in_the_benchmark_compute_the_same():
    slopes = torch.tensor([0.0, 0.2, 0.9, 1.0])
    x = torch.randn(1, 4, 5, 6)
    for way in (bench_backbones.MaxMin, bench_backbones.Depthwise):
        assert_same(way(slopes)(x), F.prelu(x, slopes))
