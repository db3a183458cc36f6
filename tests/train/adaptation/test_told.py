"""Profile ``fast`` through the default backbone: what is found, what is told, and what the adapter brings."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pytest
import torch

from darsr_deploy.bundle.shipped import REGIMES
from darsr_deploy.degradation.kernels import gaussian
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.adapter import Adapter
from darsr_deploy.images.arrays import read_image, to_tensor, write_image
from darsr_deploy.images.metrics import psnr_y
from darsr_train.adaptation.adapt import adapt_image
from darsr_train.adaptation.options import AdaptOptions
from darsr_train.backbones import load_backbone
from darsr_train.blind.modulation import modulated_by, modulated_of
from darsr_train.degradation.reduction import reduce
from darsr_train.pipeline import load_pipeline, pipeline_of
from tests.support.commands import done, refused


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    data = pytest.importorskip("skimage.data")
    return np.ascontiguousarray(data.chelsea()[:296, 60:440])


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("edge", 2)


def lr_of(scene: np.ndarray, noise: float = 0, quality: int | None = None, sigma: float = 1.3) -> np.ndarray:
    x = torch.from_numpy(to_tensor(scene))
    lr = reduce(x, torch.from_numpy(gaussian(14, sigma, sigma, 0)).float(), 2)[0].permute(1, 2, 0).numpy() * 255
    lr = lr + noise * np.random.default_rng(0).standard_normal(lr.shape)
    pixels = lr.clip(0, 255).round().astype(np.uint8)
    if quality is not None:
        _, data = cv2.imencode(".png", pixels), cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return pixels


@torch.no_grad()
def gain(folder, pixels: np.ndarray, scene: np.ndarray, backbone, **options) -> tuple[float, Adapter]:
    """dB over the backbone alone, and the adapter."""
    write_image(folder / "a.png", pixels)
    adapter, _ = adapt_image(folder / "a.png", folder / "a.darsr", backbone, AdaptOptions.profile("fast", 2, **options))
    y = torch.from_numpy(to_tensor(pixels))
    results = (
        n(y).clamp(0, 1)[0].permute(1, 2, 0).numpy() for n in (pipeline_of(adapter, backbone.module), backbone.module)
    )
    figures = [psnr_y(np.uint8(r * 255 + 0.5), scene, 2) for r in results]
    return figures[0] - figures[1], adapter


def test_noise_and_blocks_are_taken_away(scene, backbone, tmp_path):
    better, adapter = gain(tmp_path, lr_of(scene, noise=5, quality=75), scene, backbone)
    assert better > 0.3
    assert adapter.facts["regime"] == "wild" and adapter.rounds == 0
    assert abs(adapter.facts["found"]["jpeg_quality"] - 75) <= 2
    assert re.search(r"noise \d+, JPEG 7\d: corrected$", adapter.facts["decision"])


def test_a_clean_blur_is_sharpened_and_made_consistent(scene, backbone, tmp_path):
    better, adapter = gain(tmp_path, lr_of(scene), scene, backbone)
    assert better > 1.5
    assert adapter.facts["regime"] == "clean" and adapter.rounds == 3


def test_denoise_and_deblock_do_less(scene, backbone, tmp_path):
    pixels = lr_of(scene, noise=6, quality=70)
    _, full = gain(tmp_path, pixels, scene, backbone)
    _, less = gain(tmp_path, pixels, scene, backbone, denoise=0.5, deblock=0.0)
    condition, milder = full.facts["condition"], less.facts["condition"]
    assert np.isclose(milder["noise"], condition["noise"] / 2) and milder["quality"] == 101
    assert less.facts["options"]["denoise"] == 0.5


@pytest.mark.parametrize("field", ["denoise", "deblock"])
def test_shares_are_from_zero_to_one(field):
    with pytest.raises(ValueError, match=f"{field} is 1.5; expected 0 to 1"):
        AdaptOptions.profile("fast", 2, **{field: 1.5})
    with pytest.raises(ValueError, match=f"{field} belongs to profile fast"):
        AdaptOptions.profile("paper", 2, **{field: 0.5})


def test_the_adapter_brings_the_modulation_and_no_more(scene, backbone, tmp_path):
    _, adapter = gain(tmp_path, lr_of(scene), scene, backbone)
    networks = modulated_of(backbone, "clean")
    assert adapter.modulation_sha256 == networks.sha256 and modulated_by(2, networks.sha256) is networks
    assert adapter.arrays["modulation.scale"].shape == (sum(networks.widths),)
    pipeline, again, _ = load_pipeline(tmp_path / "a.darsr")
    assert again.modulation_sha256 == networks.sha256
    x = torch.rand(1, 3, 20, 24)
    assert not torch.allclose(pipeline.backbone(x), backbone.module(x), atol=1e-3)


def test_a_modulation_of_other_networks_is_one_line(scene, backbone, tmp_path):
    _, adapter = gain(tmp_path, lr_of(scene), scene, backbone)
    other = Adapter(**{**vars(adapter), "modulation_sha256": "0" * 64})
    with pytest.raises(DarsrError, match="modulates the backbone of another version of darsr; adapt again"):
        pipeline_of(other, backbone.module, "a.darsr")


def test_a_jpeg_file_says_its_own_quality(scene, tmp_path):
    cv2.imwrite(str(tmp_path / "a.jpg"), lr_of(scene, noise=2)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 62])
    row = json.loads(done("adapt", tmp_path / "a.jpg", "--json").stdout)
    assert row["found"]["jpeg_quality"] == 62 and "JPEG 62" in row["decision"]


def test_adapt_says_in_one_line_what_it_found(scene, tmp_path):
    write_image(tmp_path / "a.png", lr_of(scene))
    assert re.search(r"a\.darsr  blur of 1\.\d px: corrected  \(", done("adapt", tmp_path / "a.png").stdout)
    refused(
        "adapt",
        tmp_path / "a.png",
        "--denoise",
        "2",
        "--overwrite",
        name="--denoise 2.0: expected 0 to 1; see darsr adapt -h",
    )


def test_every_shipped_network_belongs_to_the_default_backbone():
    for scale in (2, 4):
        for regime in REGIMES:
            assert modulated_of(load_backbone("edge", scale), regime) is not None


def test_the_same_image_gives_the_same_bytes(scene, backbone, tmp_path):
    write_image(tmp_path / "a.png", lr_of(scene, noise=3))
    for name in ("a", "b"):
        adapt_image(tmp_path / "a.png", tmp_path / f"{name}.darsr", backbone, AdaptOptions.profile("fast", 2))
    assert (tmp_path / "a.darsr").read_bytes() == (tmp_path / "b.darsr").read_bytes()
    assert read_image(tmp_path / "a.png").shape == (148, 190, 3)
