"""The graphs that come with the package: they are what the command makes, and compute what PyTorch computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from darsr_deploy.adaptation.modulation import correction_weights, scales_and_shifts
from darsr_deploy.adaptation.networks import OrtNetworks
from darsr_deploy.bundle.ort_bundle import open_bundle
from darsr_deploy.bundle.shipped import GRAPH_FILES, REGIMES, bundle_for, is_default, load_modulated
from darsr_deploy.degradation import kernels
from darsr_deploy.degradation.condition import Condition
from darsr_deploy.files.adapter import Adapter
from darsr_train.backbones import load_backbone
from darsr_train.blind.modulation import modulated_of
from darsr_train.blind.networks import TorchNetworks
from darsr_train.pipeline import pipeline_of
from export.artefacts.parity import figure
from export.shipped import write_graphs

CONDITION = Condition(np.array([[2.0, 0.3], [0.3, 1.2]]), noise=4.0, quality=60.0, treated=0.5, enlarged=1.3)
scales = pytest.mark.parametrize("scale", [2, 4])


def picture(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width] / 7
    waves = 0.5 + 0.3 * np.sin(rows + np.arange(3)[:, None, None]) * np.cos(0.8 * columns)
    noise = np.random.default_rng(0).normal(0, 0.03, (3, height, width))
    return (waves + noise).clip(0, 1).astype(np.float32)[None]


def told(scale: int, regime: str = "wild") -> Adapter:
    """What ``adapt`` would say of a picture of this condition."""
    weights, backbone = load_modulated(scale, regime), load_backbone("edge", scale)
    factors, shifts = scales_and_shifts(weights, CONDITION)
    arrays = {f"darm.{name}": array for name, array in correction_weights(weights, CONDITION).items()}
    arrays |= {"modulation.scale": factors, "modulation.shift": shifts}
    arrays["kernel"] = kernels.estimated(CONDITION.covariance, scale).astype(np.float32)
    return Adapter("network", scale, backbone.name, backbone.sha256, {}, arrays, 2, weights.sha256)


def test_the_command_makes_the_graphs_that_are_shipped(tmp_path):
    write_graphs(tmp_path / "graphs")
    made = sorted(path.relative_to(tmp_path / "graphs") for path in (tmp_path / "graphs").rglob("*.*"))
    assert made == sorted(path.relative_to(GRAPH_FILES) for path in GRAPH_FILES.rglob("*.*"))
    for path in made:
        if path.suffix == ".onnx":  # exporters of other versions may name the values between differently
            ours, shipped = (onnx.load(folder / path).graph for folder in (tmp_path / "graphs", GRAPH_FILES))
            hint = f"{path}: run python -m export.shipped"
            assert list(ours.input) == list(shipped.input) and list(ours.output) == list(shipped.output), hint
            assert [node.op_type for node in ours.node] == [node.op_type for node in shipped.node], hint
            weights = [{t.name: t.SerializeToString() for t in graph.initializer} for graph in (ours, shipped)]
            assert weights[0] == weights[1], hint


@scales
@pytest.mark.parametrize("size", [(32, 32), (61, 75)])
def test_the_networks_that_look_are_those_of_pytorch(scale, size):
    lr, ours, theirs = picture(*size), OrtNetworks(scale), TorchNetworks(scale)
    np.testing.assert_allclose(ours.estimate(lr), theirs.estimate(lr), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(ours.restore(lr), theirs.restore(lr), atol=2e-5)


@scales
@pytest.mark.parametrize("regime", REGIMES)
def test_the_networks_that_are_told_are_those_of_pytorch(scale, regime):
    backbone = load_backbone("edge", scale)
    assert is_default(backbone.sha256, scale) and not is_default("0" * 64, scale)
    networks, weights = modulated_of(backbone, regime), load_modulated(scale, regime)
    assert networks.sha256 == weights.sha256
    factors, shifts = (torch.cat(part) for part in networks.scales_and_shifts(networks.vector(CONDITION)))
    found = scales_and_shifts(weights, CONDITION)
    np.testing.assert_allclose(found[0], factors.numpy(), atol=1e-5)
    np.testing.assert_allclose(found[1], shifts.numpy(), atol=1e-5)
    expected = networks.correction(CONDITION).state_dict()
    corrections = correction_weights(weights, CONDITION)
    assert list(corrections) == list(expected)
    for name, array in corrections.items():
        np.testing.assert_allclose(array, expected[name].numpy(), atol=1e-5)


@scales
@pytest.mark.parametrize("regime", [*REGIMES, None])
def test_a_shipped_bundle_runs_what_pytorch_runs(scale, regime, tmp_path, monkeypatch):
    """Whole and as a part of the cache, for both regimes and for the backbone alone."""
    monkeypatch.setenv("DARSR_CACHE", str(tmp_path))
    backbone, lr = load_backbone("edge", scale), picture(37, 42)
    adapter = told(scale, regime) if regime else None
    alone = Adapter("none", scale, backbone.name, backbone.sha256, {}, {})
    with torch.inference_mode():
        expected = pipeline_of(adapter or alone, backbone.module)(torch.from_numpy(lr)).numpy()
    folder = bundle_for(adapter, scale)
    with open_bundle(folder).engine(adapter) as engine:
        assert figure(engine.run(lr), expected) > 80
    stamp = (folder / "backbone.onnx").stat().st_mtime_ns
    assert bundle_for(adapter, scale) == folder and (folder / "backbone.onnx").stat().st_mtime_ns == stamp
    (folder / "backbone.onnx").write_bytes(b"damaged")
    open_bundle.__globals__["_kept"].cache_clear()
    assert bundle_for(adapter, scale) == folder and (folder / "backbone.onnx").stat().st_size > 100_000


def test_what_does_not_come_with_the_package_has_no_shipped_bundle():
    adapter = told(2)
    changes = {"backbone_sha256": "0" * 64, "modulation_sha256": "0" * 64}
    for name, value in changes.items():
        assert bundle_for(Adapter(**{**vars(adapter), name: value})) is None
    wide = {**adapter.arrays, "darm.head.bias": np.zeros(128, np.float32)}
    assert bundle_for(Adapter(**{**vars(adapter), "arrays": wide})) is None
