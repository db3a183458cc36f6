"""What the fast fit learns from, and what judges its result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage import data

from darsr_deploy.degradation import kernels
from darsr_train.adaptation import references
from darsr_train.adaptation.fit import Evidence, held_out_loss, step_loss
from darsr_train.adaptation.options import AdaptOptions
from darsr_train.backbones import load_backbone
from darsr_train.degradation.reduction import apply_kernel, apply_kernels_by_fft, bicubic_table, reduce
from darsr_train.networks.backprojection import BackProjection
from darsr_train.networks.darm import at_strength, between
from darsr_train.networks.prior import load_prior

QUICK = AdaptOptions.profile("fast", 2, steps=4)
PHOTO = torch.from_numpy(data.chelsea()[:240, 60:360].transpose(2, 0, 1)[None].astype(np.float32)) / 255
COVARIANCE = np.array([[2.5, 0.6], [0.6, 1.0]])


def in_bytes(image: torch.Tensor) -> torch.Tensor:
    return (image.clamp(0, 1) * 255).round() / 255


@pytest.mark.parametrize("scale, side, taps", [(2, 61, 20), (4, 90, 58), (2, 40, 13)])
def test_by_spectrum_or_by_convolution_is_the_same(scale, side, taps):
    torch.manual_seed(0)
    x, several = torch.rand(2, 3, side, side + 7, requires_grad=True), torch.rand(3, taps, taps)
    found = apply_kernels_by_fft(x, several, scale)
    expected = torch.stack([apply_kernel(x, kernel, scale) for kernel in several])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-1)


@pytest.mark.parametrize("shape", ["gaussian", "disk", "motion"])
def test_a_kernel_of_a_covariance_has_it(shape):
    yy, xx, xy = kernels.second_moments(kernels.from_covariance(COVARIANCE, shape, 20))
    np.testing.assert_allclose([[yy, xy], [xy, xx]], COVARIANCE, atol=0.2)


def test_kernels_near_an_estimate_scatter_about_it():
    random = np.random.default_rng(0)
    found = [kernels.random_near(random, COVARIANCE) for _ in range(200)]
    assert all(k.min() >= 0 and k.sum() == pytest.approx(1) for k in found)
    yy, xx, xy = np.mean([kernels.second_moments(k) for k in found], axis=0)
    np.testing.assert_allclose([[yy, xy], [xy, xx]], COVARIANCE, atol=0.35)


def test_a_shifted_kernel_has_moved_and_lost_nothing():
    kernel = kernels.gaussian(20, 1.5, 1.0, 0.3)
    moved, axis = kernels.shifted(kernel, 0.7, -1.3), np.arange(20) - 9.5
    assert moved.sum() == pytest.approx(1)
    assert (moved.sum(1) @ axis, moved.sum(0) @ axis) == pytest.approx(
        (0.7, -1.3), abs=1 / 32
    )  # OpenCV places by 32nds


@pytest.mark.parametrize("scale", [2, 4])
def test_references_are_the_same_every_time_and_lie_on_their_targets(scale):
    first, again = (references.degraded_references(COVARIANCE, scale, 6, seed=3) for _ in range(2))
    other = references.degraded_references(COVARIANCE, scale, 6, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first, again)) and not torch.equal(first[0], other[0])
    blurred, bicubic = first
    assert blurred.shape == bicubic.shape == (6, 3, 88, 88)
    inner = (..., slice(2, -2), slice(2, -2))
    distance = {
        shift: (blurred.roll(shift, (-2, -1)) - bicubic)[inner].square().mean()
        for shift in [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]
    }
    assert min(distance, key=distance.get) == (0, 0)


def test_the_photograph_of_demo_and_tests_is_no_reference():
    assert "chelsea" not in references._NAMES


def evidence(sides: tuple[int, int] = (120, 150)) -> Evidence:
    kernel = torch.from_numpy(kernels.from_covariance(COVARIANCE, "gaussian", 14)).float()
    x = PHOTO[..., : 2 * sides[0], : 2 * sides[1]]
    y = in_bytes(reduce(x, kernel, 2))
    return Evidence(y, y, reduce(x, bicubic_table(2), 2), kernel, COVARIANCE)


def test_a_step_is_the_mean_error_of_its_own_crops():
    pool = references.degraded_references(COVARIANCE, 2, 6, 0)
    options, prior = replace(QUICK, references=6, batch=2, crop=32), load_prior(2)
    losses = [step_loss(prior, pool, options, step).item() for step in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    assert step_loss(prior, (pool[0], pool[0] + 0.5), options, 1).item() > losses[0]
    whole = step_loss(prior, pool, replace(options, references=1, crop=500), 1).item()
    assert whole == pytest.approx((prior(pool[0][:1]) - pool[1][:1]).abs().mean().item(), rel=1e-4)


def test_the_true_correction_has_the_least_held_out_loss():
    backbone, image = load_backbone("edge", 2).module, evidence()
    losses = [held_out_loss(at_strength(load_prior(2), a), image, backbone, 2) for a in (0.0, 0.5, 1.0)]
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_strength_mixes_the_image_and_its_correction(strength):
    prior, y = load_prior(2), evidence().y
    with torch.no_grad():
        torch.testing.assert_close(at_strength(prior, strength)(y), y + strength * (prior(y) - y), rtol=0, atol=1e-5)


def test_between_two_networks_lie_their_weights():
    start, end = load_prior(2), load_prior(2, camera=True)
    for share, expected in ((0.0, start), (1.0, end)):
        for found, wanted in zip(between(start, end, share).parameters(), expected.parameters()):
            torch.testing.assert_close(found, wanted)
    middle = between(start, end, 0.5).tail.bias
    torch.testing.assert_close(middle, (start.tail.bias + end.tail.bias) / 2)


# --- Back-projection ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [2, 4])
def test_back_projection_keeps_what_is_consistent_and_mends_what_is_not(scale):
    kernel = torch.from_numpy(kernels.estimated(COVARIANCE, scale)).float()
    x = PHOTO[..., :120, :160]
    y = reduce(x, kernel, scale)
    stage = lambda rounds: BackProjection(kernel, scale, rounds)  # noqa: E731
    inner = (..., slice(24, -24), slice(24, -24))  # borders are repeated here and mirrored there
    torch.testing.assert_close(stage(1)(x, y)[inner], x[inner], rtol=0, atol=1e-5)
    wrong = x.roll(2, -1)
    errors = [(reduce(stage(r)(wrong, y), kernel, scale) - y).square().mean().item() for r in (0, 1, 3)]
    assert errors[0] > errors[1] > errors[2]
    assert torch.equal(stage(0)(wrong, y), wrong)
