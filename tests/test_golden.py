"""One step of the reference program, reproduced: every output, loss and gradient.

The file is not part of the repository; without it (or the one that DARSR_GOLDEN names) these tests are skipped.
Tolerances: outputs 1e-5 of the largest value, losses 1e-5 relative or 1e-8, gradients 1e-3 of their norm.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from darsr_train.adaptation.published import losses
from darsr_train.adaptation.published.step import Networks, step_losses
from darsr_train.networks.darm import DARM
from darsr_train.networks.dsem import DSEM
from darsr_train.networks.gan import Discriminator, Generator, layer_by_layer
from tests.support.shared import SHARED, srfbn

FILES = (
    [Path(os.environ["DARSR_GOLDEN"])]
    if "DARSR_GOLDEN" in os.environ
    else sorted((SHARED / "golden").glob("reference_x2*.safetensors"))
)
pytestmark = pytest.mark.skipif(not FILES, reason="no golden file: set DARSR_GOLDEN or provide ../shared/golden")

DARM_NAMES = {
    "conv_du.1": "stages.0.squeeze", "conv_du.3": "stages.0.excite", "conv_du2.1": "stages.1.squeeze", "conv_du2.3": "stages.1.excite",
    "head1.0": "stages.0.first", "head1.2": "stages.0.second", "head2.0": "stages.1.first", "head2.2": "stages.1.second",
}  # fmt: skip
GENERATOR_NAMES = ["first_layer", *(f"feature_block.{i}" for i in range(4)), "final_layer"]


def group(golden: dict, prefix: str) -> dict:
    return {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}


def darm_state(tensors: dict) -> dict:
    return {
        f"{DARM_NAMES.get(k.rpartition('.')[0], k.rpartition('.')[0])}.{k.rpartition('.')[2]}": v
        for k, v in tensors.items()
    }


def generator_state(tensors: dict) -> dict:
    return {f"weights.{i}": tensors[f"{name}.weight"] for i, name in enumerate(GENERATOR_NAMES)}


def dsem_state(tensors: dict) -> dict:
    renamed = {}
    for key, value in tensors.items():
        key = re.sub(r"^body\.(\d+)", lambda m: f"body.{int(m[1]) + 1}", key)
        for theirs, ours in (("conv_first", "body.0"), ("fc_degree", "score"), ("conv1", "first"), ("conv2", "second")):
            key = key.replace(theirs, ours)
        renamed[key] = value
    return renamed


def discriminator_state(tensors: dict) -> dict:
    positions = {"first_layer": 0, "final_layer.0": 16, **{f"feature_block.{i}": i + 1 for i in range(15)}}
    state = {}
    for key, value in tensors.items():
        layer, _, end = key.rpartition(".")
        state[f"layers.{positions[layer]}.{end}"] = value
    return state


@pytest.fixture(scope="module", params=FILES, ids=lambda p: p.stem)
def golden(request) -> dict:
    return load_file(request.param)


@pytest.fixture(scope="module")
def networks(golden) -> Networks:
    generator, discriminator, dsem = Generator(2), Discriminator(), DSEM()
    darm = DARM(golden["dictionary"])
    generator.load_state_dict(generator_state(group(golden, "generator.")))
    discriminator.load_state_dict(discriminator_state(group(golden, "discriminator.")))
    dsem.load_state_dict(dsem_state(group(golden, "dsem.")))
    darm.load_state_dict(darm_state(group(golden, "darm.")) | {"dictionary": golden["dictionary"]})
    return Networks(generator, discriminator, darm, dsem.eval().requires_grad_(False), srfbn(2).module)


@pytest.fixture(scope="module")
def step(golden, networks):
    """One step's outputs and losses with the reference's fault, gradients left on the parameters."""
    crops = {"x": golden["hr"], "y": golden["lr"], "b": golden["hr_bicubic"], "u": golden["lr_up"]}
    outputs, terms = step_losses(networks, crops, sum_colours=True)
    terms["total"].backward()
    fake, real = outputs["x_d"].detach(), losses.window(golden["lr"], outputs["x_d"], losses.lr_front(2))
    terms["gan_d"] = losses.gan_discriminator(networks.discriminator(fake), networks.discriminator(real))
    return outputs, terms


OUTPUTS = {
    "adapt_lr": "y_c", "discriminator_fake": "d_fake", "fake_lr": "x_d", "kernel": "kernel", "lr_sr": "y_sr", "rec_hr_bicubic": "x_c", "rec_lr": "y_d",
    "sr_image": "x_sr", "score_adapt_lr": "q_y_c", "score_fake_lr": "q_x_d", "score_hr_bicubic": "q_b", "score_lr": "q_y", "score_rec_hr_bicubic": "q_x_c",
    "score_rec_lr": "q_y_d",
}  # fmt: skip
LOSSES = {
    "cycle_backward": "cycle_backward", "cycle_forward": "cycle_forward", "dsem_one": "dsem_one", "dsem_zero": "dsem_zero", "gan_d": "gan_d", "gan_g": "gan_g",
    "interp": "interpolation", "reg_bicubic": "bicubic", "reg_bicubic_per_channel": "bicubic_mended", "reg_boundaries": "boundaries",
    "reg_centralized": "off_centre", "reg_sparse": "sparse", "reg_sum2one": "sum_to_one", "total": "total",
}  # fmt: skip


def test_every_output_is_reproduced(golden, step):
    expected = group(golden, "out.")
    assert expected.keys() == OUTPUTS.keys()
    for name, ours in OUTPUTS.items():
        error = (step[0][ours] - expected[name]).abs().max() / expected[name].abs().max()
        assert error <= 1e-5, f"{name} needs a tolerance of {error:.2e}"


def test_every_loss_is_reproduced(golden, step, networks):
    terms = dict(step[1])
    terms["bicubic_mended"] = losses.bicubic_distance(step[0]["x_d"], golden["hr"], 2)
    expected = group(golden, "loss.")
    assert expected.keys() == LOSSES.keys()
    for name, ours in LOSSES.items():
        error = abs(terms[ours].item() - expected[name].item())
        assert error <= max(1e-5 * abs(expected[name].item()), 1e-8), (
            f"{name}: {terms[ours].item()!r}, expected {expected[name].item()!r}"
        )


def test_every_gradient_is_reproduced(golden, step, networks):
    expected = darm_state(group(golden, "grad.darm."))
    ours = {name: p.grad for name, p in networks.darm.named_parameters()}
    expected |= generator_state(group(golden, "grad.generator."))
    ours |= {name: p.grad for name, p in networks.generator.named_parameters()}
    assert expected.keys() == ours.keys()
    for name, gradient in expected.items():
        error = (ours[name] - gradient).norm() / gradient.norm()
        assert error <= 1e-3, f"gradient of {name} needs a tolerance of {error:.2e}"


def test_composed_generator_equals_layer_by_layer_with_the_reference_weights(golden, networks):
    with torch.no_grad():
        slow = layer_by_layer(networks.generator, golden["hr"])
        fast = networks.generator(golden["hr"])
    assert (slow - fast).abs().max() <= 2e-6 * slow.abs().max()
