"""Networks that are told the degradation: what is folded computes what was trained."""

from __future__ import annotations

import numpy as np
import torch

from darsr_deploy.degradation.condition import Condition, neutral
from darsr_train.backbones import load_backbone
from darsr_train.blind.modulation import Modulated, extend, load_modulated, save_modulated
from darsr_train.networks.family import load_family

DIRTY = Condition(np.diag([1.5, 0.8]), noise=6, quality=70)


def fresh(scale: int = 2) -> Modulated:
    torch.manual_seed(0)
    return Modulated(extend(load_family(scale), 10), load_backbone("edge", scale).module).requires_grad_(False)


def disturbed() -> Modulated:
    """With modulations and a gate that do something, as after training."""
    model = fresh()
    for parameter in (*model.modulator.parameters(), *model.family.gate.parameters()):
        parameter += 0.05 * torch.randn_like(parameter)
    return model


def test_starts_as_the_networks_that_it_was_made_of():
    model, family, backbone = fresh(), load_family(2), load_backbone("edge", 2).module
    x = torch.rand(1, 3, 20, 24)
    assert torch.equal(model.member(DIRTY)(x), backbone(x))
    before, after = family.member(DIRTY.covariance)(x), model.correction(DIRTY)(x)
    assert torch.allclose(before, after, atol=1e-6), (before - after).abs().max()


def test_member_is_the_modulated_network_folded():
    model, x = disturbed(), torch.rand(2, 3, 20, 24)
    for condition in (DIRTY, neutral()):
        whole, folded = model.enlarge(x, model.vector(condition)), model.member(condition)(x)
        assert torch.allclose(whole, folded, atol=1e-5), (whole - folded).abs().max()


def test_conditions_make_a_difference():
    model, x = disturbed(), torch.rand(1, 3, 20, 24)
    assert not torch.allclose(model.member(DIRTY)(x), model.member(neutral())(x), atol=1e-3)
    assert not torch.allclose(model.correction(DIRTY)(x), model.correction(neutral())(x), atol=1e-3)


def test_saved_and_loaded_is_the_same(tmp_path):
    model, x = disturbed(), torch.rand(1, 3, 20, 24)
    save_modulated(model, tmp_path / "m.safetensors", {"licence": "MIT"}, torch.float32)
    again = load_modulated(tmp_path / "m.safetensors")
    assert torch.equal(model.member(DIRTY)(x), again.member(DIRTY)(x))
    assert torch.equal(model.correction(DIRTY)(x), again.correction(DIRTY)(x))
