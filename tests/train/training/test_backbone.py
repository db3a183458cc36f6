"""``darsr backbone train`` as it is typed, for every architecture; SRFBN-S, whose training differs most, in detail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn
from typer.testing import CliRunner

import cli
from darsr_deploy.images.arrays import write_image
from darsr_train.backbones import SRFBN, EdgeSR, edge, load_backbone
from darsr_train.backbones.registry import ARCHITECTURES
from darsr_train.training.backbone import BackboneTraining, bicubic_pair, measure, train_backbone

TRAINING = BackboneTraining(
    architecture="srfbn-s",
    steps=6,
    batch=1,
    patch=12,
    warmup=2,
    save_every=3,
    bf16=False,
    rate=3e-3,
    average=0.8,
    channels=8,
)


def train(*arguments: object) -> str:
    """Run the command; returns what it wrote to stderr."""
    result = CliRunner().invoke(cli.app, ["backbone", "train", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert (result.exit_code == 0) == (not result.stderr), result.stderr
    return result.stderr


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name, image in (("a", data.astronaut()[:100, 150:270]), ("b", data.coffee()[100:200, 150:270])):
        write_image(folder / f"{name}.png", np.ascontiguousarray(image))
    return folder


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_trains_and_is_used_by_its_file(arch, scale, photos, tmp_path):
    out = tmp_path / f"mine-x{scale}.safetensors"
    brief = ("--scale", scale, "--steps", 2, "--batch", 1, "--patch", 12, "--device", "cpu", "--threads", 1)
    assert not train(photos, "-o", out, "--arch", arch, *brief, "--validate", photos, "--licence", "CC0-1.0")
    backbone = load_backbone(str(out), scale)
    assert (backbone.architecture, backbone.name, backbone.facts["licence"]) == (arch, f"mine-x{scale}", "CC0-1.0")
    assert backbone.facts["data"] == f"{photos.name}: 2 images"
    assert f"--arch {arch} --scale {scale} --steps 2" in backbone.facts["command"]
    # and goes on from there, where it is told to
    further = tmp_path / "further.safetensors"
    assert not train(photos, "-o", further, "--arch", arch, *brief, "--start", out, "--rate", 1e-9)
    assert load_backbone(str(further), scale).facts["command"].endswith(f"--start mine-x{scale}.safetensors")
    for name, tensor in load_backbone(str(further), scale).module.state_dict().items():
        torch.testing.assert_close(tensor, backbone.module.state_dict()[name], rtol=0, atol=1e-5)
    assert "error: " in train(photos, "-o", further, "--arch", arch, *brief)  # nothing is overwritten unasked


def test_srfbn_learns_and_its_slopes_with_it(photos, tmp_path):
    options = replace(TRAINING, steps=40, batch=2, save_every=40)
    torch.manual_seed(options.seed)
    untrained = SRFBN(2, channels=8)  # what the training starts from
    network = train_backbone(photos, tmp_path / "a.safetensors", options)
    pairs = [bicubic_pair(np.ascontiguousarray(data.chelsea()[100:160, 140:200]), 2)]
    assert measure(network, pairs, 2) > measure(untrained, pairs, 2) + 0.05  # dB
    before = dict(untrained.named_modules())
    slopes = {name: m.weight for name, m in network.named_modules() if isinstance(m, nn.PReLU)}
    assert len(slopes) == 15
    assert not any(torch.equal(slope, before[name].weight) for name, slope in slopes.items())
    assert not network.training and not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
def test_an_interrupted_srfbn_ends_with_the_same_weights(bf16, photos, tmp_path):
    options = replace(TRAINING, bf16=bf16)

    class Killed(Exception):
        """What stops the run in its middle."""

    def kill(entry: dict) -> None:
        if entry["step"] == 4:
            raise Killed

    whole = train_backbone(photos, tmp_path / "whole.safetensors", options)
    with pytest.raises(Killed):
        train_backbone(photos, tmp_path / "cut.safetensors", options, report=kill)
    resumed = train_backbone(photos, tmp_path / "cut.safetensors", options, resume=True)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_every_option_that_shapes_the_weights_is_typed_and_noted(photos, tmp_path):
    out = tmp_path / "wide.safetensors"
    options = "--channels 6 --blocks 2 --steps 1 --batch 1 --patch 12 --rate 0.002 --objective psnr --luma 0.5"
    assert not train(
        photos, "-o", out, *options.split(), "--candidates", 1, "--seed", 3, "--no-bf16", "--device", "cpu"
    )
    backbone = load_backbone(str(out), 2)
    assert backbone.module.hyper == {"channels": 6, "blocks": 2}
    assert backbone.facts["command"] == (
        f"darsr backbone train {photos.name} --arch edge --scale 2 {options} --candidates 1 --seed 3 --no-bf16"
    )
    assert "--objective mse: expected one of l1, psnr" in train(photos, "-o", tmp_path / "a", "--objective", "mse")


@pytest.mark.parametrize("channels, blocks", [(4, 2), (4, 5), (7, 2), (7, 5)])
def test_a_grown_network_computes_what_the_small_one_did_and_all_of_it_learns(channels, blocks):
    torch.manual_seed(0)
    small, x = EdgeSR(2, channels=4, blocks=2), torch.rand(2, 3, 9, 11)
    for activation in small.activations:
        nn.init.uniform_(activation.weight, 0.05, 0.4)
    grown = edge.grow(small, EdgeSR(2, channels=channels, blocks=blocks))
    torch.testing.assert_close(grown(x), small(x), rtol=0, atol=1e-6)
    torch.testing.assert_close(edge.merge(edge.split(grown))(x), small(x), rtol=0, atol=1e-6)
    before = {name: p.detach().clone() for name, p in grown.named_parameters()}
    optimiser = torch.optim.Adam(grown.parameters(), 1e-2)
    for _ in range(3):  # what is fresh is heard from the second step on, once its readers are no longer zero
        optimiser.zero_grad()
        (grown(x) - 0.5).square().mean().backward()
        optimiser.step()
    for name, parameter in grown.named_parameters():
        if "activations" in name:  # a channel that is positive everywhere has a slope that does not matter
            continue
        assert (parameter != before[name]).float().mean() > 0.9, name


def test_another_scale_starts_as_the_nearest_neighbour_and_a_larger_network_does_not_grow_backwards():
    torch.manual_seed(0)
    small, x = EdgeSR(2, channels=4, blocks=2), torch.rand(1, 3, 6, 7)
    grown = edge.grow(small, EdgeSR(4, channels=5, blocks=3))
    torch.testing.assert_close(grown(x), x.repeat_interleave(4, 2).repeat_interleave(4, 3))
    for smaller in (EdgeSR(2, channels=3, blocks=2), EdgeSR(2, channels=4, blocks=1)):
        with pytest.raises(ValueError, match="does not grow into"):
            edge.grow(small, smaller)
