"""A bundle whose backbone adapters modulate: the same picture as PyTorch, for every adapter of the same networks."""

from __future__ import annotations

import cv2
import numpy as np
import onnxruntime
import pytest
import torch

from darsr_deploy.bundle.manifest import Manifest
from darsr_deploy.degradation.condition import Condition
from darsr_deploy.images.arrays import read_image, write_image
from darsr_train.backbones import load_backbone
from darsr_train.blind.modulation import modulated_of
from export.artefacts.bundle import build_graphs
from tests.support.commands import done, refused


def test_the_modulated_graph_computes_the_folded_network():
    networks = modulated_of(load_backbone("edge", 2), "wild")
    condition = Condition(np.diag([1.5, 0.7]), noise=5, quality=70)
    graph = build_graphs(networks.backbone, (32, 8), 14, "fp32", modulated=True)["backbone"]
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    scale, shift = (torch.cat(parts).numpy() for parts in networks.scales_and_shifts(networks.vector(condition)))
    lr = torch.rand(1, 3, 21, 26)
    (sr,) = session.run(["sr"], {"lr": lr.numpy(), "scale": scale, "shift": shift})
    expected = networks.member(condition)(lr).numpy()
    assert np.abs(sr - expected).max() < 2e-5, np.abs(sr - expected).max()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photo):
    """Two noisy photographs and a blurred one, adapted; a bundle of the first."""
    folder = tmp_path_factory.mktemp("modulated")
    blurred = cv2.GaussianBlur(photo, (0, 0), 0.8)
    for name, sigma in (("a", 7), ("b", 10)):
        noise = np.random.default_rng(0).normal(0, sigma, photo.shape)
        write_image(folder / f"{name}.png", (blurred + noise).clip(0, 255).round().astype(np.uint8))
    write_image(folder / "c.png", blurred)
    done("adapt", folder)
    done("export", folder / "a.darsr", "--split")
    return folder


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("tile", [0, 32])
def test_every_adapter_of_the_networks_runs(folder, name, tile, tmp_path):
    image, adapter = folder / f"{name}.png", folder / f"{name}.darsr"
    done(
        "infer", image, "--model", folder / "a.bundle", "--adapter", adapter, "--tile", tile, "-o", tmp_path / "ort.png"
    )
    done("infer", image, "--adapter", adapter, "--engine", "torch", "-o", tmp_path / "torch.png")
    ort, expected = (read_image(tmp_path / f"{engine}.png").astype(int) for engine in ("ort", "torch"))
    assert np.abs(ort - expected).max() <= 1


def test_an_adapter_of_other_networks_is_one_line(folder, tmp_path):
    manifest = Manifest.load(folder / "a.bundle")
    assert manifest.modulated_channels == 460 and len(manifest.modulation_sha256) == 64
    line = refused(
        *("infer", folder / "c.png", "--model", folder / "a.bundle", "--adapter", folder / "c.darsr"),
        *("-o", tmp_path / "c.png"),
        name=folder / "c.darsr",
    )
    assert "modulates the backbone edge-x2 in another way than" in line and "export a bundle from this adapter" in line
