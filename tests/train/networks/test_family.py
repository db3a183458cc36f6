"""The family of correction networks: its members, its file, its training, and what it is for."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage import data

from darsr_deploy.degradation import covariance as moments
from darsr_deploy.degradation import kernels
from darsr_deploy.errors import DarsrError
from darsr_deploy.files.container import read_container
from darsr_deploy.images.arrays import write_image
from darsr_train.backbones import load_backbone
from darsr_train.degradation.reduction import bicubic_table, reduce
from darsr_train.networks.backprojection import BackProjection
from darsr_train.networks.family import DarmFamily, family_path, load_family, save_family
from darsr_train.networks.prior import load_prior
from darsr_train.training import family as train_family
from darsr_train.training.family import BlurredCrops, FamilyTraining, perturb_covariance, random_covariance

COVARIANCE = np.array([[2.5, 0.6], [0.6, 1.0]])
OTHER = np.array([[0.7, 0.0], [0.0, 0.8]])
PHOTO = torch.from_numpy(data.chelsea()[:240, 60:360].transpose(2, 0, 1)[None].astype(np.float32)) / 255


@pytest.fixture
def fresh() -> DarmFamily:
    torch.manual_seed(0)
    return DarmFamily(load_prior(2), experts=3, hidden=5)


def test_a_member_is_the_common_weights_and_its_share_of_all_deltas(fresh):
    gate = fresh.gate(torch.from_numpy(moments.logarithm(COVARIANCE)).float())
    expected, offset = {}, 0
    for name, start in load_prior(2).named_parameters():
        place = slice(offset, offset + start.numel())
        flat = start.flatten() + sum(share * delta[place] for share, delta in zip(gate, fresh.deltas))
        expected[name], offset = flat.view(start.shape), place.stop
    assert offset == fresh.deltas.shape[1]
    member = fresh.member(COVARIANCE)
    for name, weight in member.named_parameters():
        torch.testing.assert_close(weight, expected[name], rtol=1e-5, atol=1e-7)


def test_a_member_computes_what_its_weights_compute(fresh):
    member, y = fresh.member(COVARIANCE), PHOTO[..., :40, :48]
    called = torch.func.functional_call(load_prior(2), fresh.weights(fresh.vector(COVARIANCE)), (y,))
    torch.testing.assert_close(member(y), called)
    assert not torch.equal(member(y), fresh.member(OTHER)(y))


def test_a_written_family_is_read_again(fresh, tmp_path):
    save_family(fresh, tmp_path / "family.safetensors", {"licence": "MIT"}, torch.float32)
    again = load_family(2, tmp_path / "family.safetensors")
    assert (again.experts, again.channels) == (fresh.experts, fresh.channels)
    assert all(torch.equal(a, b) for a, b in zip(fresh.state_dict().values(), again.state_dict().values()))
    assert not any(parameter.requires_grad for parameter in again.parameters())
    (tmp_path / "family.safetensors").write_bytes(b"x" * 500)
    with pytest.raises(DarsrError, match="install the package again"):
        load_family(2, tmp_path / "family.safetensors")


def test_the_earlier_names_of_the_weights_are_read():
    """By which the shipped files, and trainings that were interrupted, call them; also inside another module."""
    names = {name.split(".")[0] for name in read_container(family_path(2), "family", 1, "")[1]}
    assert names == {"common", "changes", "shares"}
    family = load_family(2)
    old = {name.replace("gate", "shares").replace("deltas", "changes"): w for name, w in family.state_dict().items()}
    outer = torch.nn.ModuleDict({"family": DarmFamily(load_prior(2), 8, len(family.gate[0].bias))})
    outer.load_state_dict({f"family.{name}": weight for name, weight in old.items()})
    assert all(torch.equal(w, family.state_dict()[name]) for name, w in outer["family"].state_dict().items())


def corrected_psnr(network: torch.nn.Module, covariance: np.ndarray, scale: int) -> float:
    """Of an image blurred by a Gaussian (at x4: twice), against the image reduced bicubically, in dB."""
    kernel = torch.from_numpy(kernels.estimated(covariance, scale)).float()
    y = (reduce(PHOTO, kernel, scale).clamp(0, 1) * 255).round() / 255
    with torch.no_grad():
        error = (network(y) - reduce(PHOTO, bicubic_table(scale), scale))[..., 6:-6, 6:-6]
    return -10 * error.square().mean().log10().item()


BLURS = [np.diag(d) for d in ((0.6, 0.6), (1.5, 1.5), (3.0, 1.0), (1.0, 4.5), (4.0, 4.0))]


@pytest.mark.parametrize("scale", [2, 4])
def test_the_shipped_member_for_a_blur_undoes_it_better_than_the_prior(scale):
    family, prior = load_family(scale), load_prior(scale)
    gains = [corrected_psnr(family.member(b), b, scale) - corrected_psnr(prior, b, scale) for b in BLURS]
    assert np.mean(gains) > 1.0 and min(gains) > 0, gains


@pytest.mark.parametrize("scale", [2, 4])
def test_the_shipped_member_for_a_blur_undoes_it_better_than_one_for_another(scale):
    family = load_family(scale)
    for own, other in zip(BLURS, BLURS[1:] + BLURS[:1]):
        assert corrected_psnr(family.member(own), own, scale) > corrected_psnr(family.member(other), own, scale)


def test_covariances_are_drawn_within_the_limits():
    random = np.random.default_rng(0)
    variances = np.array([np.linalg.eigvalsh(random_covariance(random, 0.3, 6.0)) for _ in range(300)])
    assert variances.min() >= 0.3 - 1e-9 and variances.max() <= 6.0 + 1e-9
    assert np.median(variances) < 2.5, "narrow blurs are as likely as wide ones"


def test_narrow_blurs_are_mistaken_for_others_more_often():
    """As they are: a photograph's own softness weighs more beside a narrow blur. Half the errors are smaller than stated."""
    for variance, stated in ((4.0, 0.07), (0.8, 0.2)):
        random, told = np.random.default_rng(0), np.diag([variance, variance])
        true = np.array([moments.logarithm(perturb_covariance(random, told)) for _ in range(2000)])
        errors = np.abs(true - moments.logarithm(told))
        assert np.median(errors[:, 0]) == pytest.approx(stated, abs=0.04)
        assert np.median(errors[:, 1]) < np.median(errors[:, 0])


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    write_image(folder / "coffee.png", data.coffee())
    return folder


SMALL = FamilyTraining(steps=30, batch=4, patch=32, blurs=2, sets=2, hidden=4, warmup=2, rate=1e-3, bf16=False)


@pytest.mark.parametrize("scale", [2, 4])
def test_the_crops_of_a_step_share_a_blur_and_are_always_the_same(photographs, scale):
    crops = BlurredCrops(sorted(photographs.iterdir()), replace(SMALL, scale=scale))
    covariance, degraded, targets, hr = crops.group(3, 1)
    again = crops.group(3, 1)
    assert degraded.shape == targets.shape == (2, 3, 32, 32) and hr.shape == (2, 3, 32 * scale, 32 * scale)
    assert np.array_equal(covariance, again[0]) and torch.equal(degraded, again[1]) and torch.equal(targets, again[2])
    assert not np.array_equal(covariance, crops.group(3, 0)[0])
    # in place: what a shift of one pixel would leave is much larger
    assert (degraded - targets).abs().mean() < 0.7 * (degraded.roll(1, -1) - targets).abs().mean()


def test_training_learns_and_leaves_its_start_alone(photographs, tmp_path):
    start, losses = load_prior(2), []
    before = copy.deepcopy(start.state_dict())
    out = tmp_path / "family.safetensors"
    family = train_family.train_family(photographs, out, SMALL, start, report=lambda e: losses.append(e["loss"]))
    assert len(losses) == SMALL.steps and np.isfinite(losses).all()
    assert not torch.equal(family.common, torch.nn.utils.parameters_to_vector(start.parameters()))
    assert all(torch.equal(before[name], tensor) for name, tensor in start.state_dict().items())


def test_the_error_of_the_final_image_is_that_of_what_is_shipped(photographs, fresh):
    """Behind the network for the blur that was told: the package's backbone, and back-projection by the kernel of that blur."""
    group = BlurredCrops(sorted(photographs.iterdir()), SMALL).group(1, 0)
    member, backbone = fresh.member(group.covariance).requires_grad_(False), load_backbone("edge", 2).module
    kernel = torch.from_numpy(kernels.from_covariance(group.covariance, "gaussian", 14)).float()
    sr = BackProjection(kernel, 2, 3)(backbone(member(group.degraded)), group.degraded)
    figures = [-10 * (error.square().mean() + 1e-6).log10().item() for error in sr - group.hr]
    of_final, of_mixture = (train_family._enlarged_error(replace(SMALL, enlarged=share), "cpu") for share in (1.0, 0.5))
    corrected = member(group.degraded)
    assert of_final(corrected, group).item() == pytest.approx(-np.mean(figures) / 100, abs=1e-5)
    assert of_mixture(group.targets, group).item() < of_mixture(corrected, group).item()


def test_training_by_the_final_image_goes_on_from_a_family(photographs, fresh, tmp_path):
    before = copy.deepcopy(fresh.state_dict())
    options, losses = replace(SMALL, enlarged=0.5, steps=3), []
    out = tmp_path / "family.safetensors"
    trained = train_family.train_family(photographs, out, options, fresh, report=lambda e: losses.append(e["loss"]))
    assert len(losses) == 3 and max(losses) < 0, "minus PSNR"
    assert all(torch.equal(before[name], tensor) for name, tensor in fresh.state_dict().items())
    changed = [name for name, tensor in trained.state_dict().items() if not torch.equal(before[name], tensor)]
    assert changed == list(before), "no gradient reaches the others"


def test_the_command_writes_a_family_that_loads(photographs, tmp_path, monkeypatch):
    out = tmp_path / "family.safetensors"
    options = f"--out {out} --steps 2 --batch 2 --patch 32 --sets 2 --licence MIT".split()
    monkeypatch.setattr("sys.argv", ["train_family", str(photographs), *options])
    train_family.main()
    facts, _ = read_container(out, "family", 1, "")[:2]
    assert facts["licence"] == "MIT" and "--steps 2 --batch 2 --patch 32 --sets 2" in facts["command"]
    assert load_family(2, out).experts == 2
    longer = tmp_path / "longer.safetensors"
    options = f"--out {longer} --family {out} --steps 1 --batch 2 --patch 32 --enlarged 0.5".split()
    monkeypatch.setattr("sys.argv", ["train_family", str(photographs), *options])
    train_family.main()
    facts, _ = read_container(longer, "family", 1, "")[:2]
    assert "--family family.safetensors" in facts["command"] and "--enlarged 0.5" in facts["command"]
    assert load_family(2, longer).experts == 2


def test_the_package_has_the_family_that_the_fast_profile_needs():
    assert family_path(2).is_file() and family_path(2).stat().st_size < 1_000_000


@pytest.mark.parametrize("blurs", [0, 9])
def test_a_step_has_a_crop_of_every_blur(blurs):
    with pytest.raises(ValueError, match=f"blurs is {blurs}; expected 1 to the batch of 8"):
        FamilyTraining(batch=8, blurs=blurs)
