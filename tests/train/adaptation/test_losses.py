"""Every loss: zero where nothing is wrong, and driven the right way where something is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from darsr_deploy.images.resample import imresize
from darsr_train.adaptation.published import losses
from darsr_train.degradation import reduction
from darsr_train.degradation.reduction import reduce
from darsr_train.networks.gan import KERNEL_SIZE

scales = pytest.mark.parametrize("scale", [2, 4])


def proper(x: Tensor, scale: int) -> Tensor:
    """``x`` reduced bicubically, cut to the size of a 13-tap generator's output; far enough from the border of ``x``."""
    size = (x.shape[-1] - KERNEL_SIZE) // scale + 1
    return losses.window(
        reduce(x, reduction.bicubic_table(scale), scale), torch.empty(size, size), losses.lr_front(scale)
    )


# --- Cropping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale, front", [(2, 3), (4, 2)])
def test_the_window_starts_where_the_whole_kernel_lies_inside(scale, front):
    assert losses.lr_front(scale) == front
    assert scale * front >= KERNEL_SIZE // 2 > scale * (front - 1)
    x = torch.arange(9.0).repeat(1, 1, 8, 1)
    assert torch.equal(losses.window(x, torch.empty(1, 1, 4, 4), front)[0, 0, 0], torch.arange(front, front + 4.0))


# --- Adversarial terms ------------------------------------------------------------------------------------------------


def test_adversarial_terms_are_zero_at_their_optimum_only():
    ones, zeros, half = torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), 0.5)
    assert losses.gan_generator(ones) == 0
    assert losses.gan_generator(zeros) == 1
    assert losses.gan_discriminator(zeros, ones) == 0
    assert losses.gan_discriminator(ones, zeros) == 1
    assert losses.gan_discriminator(half, half) == 0.25  # one half of 0.25 + 0.25: all a fooled discriminator can do
    assert losses.score_distance(half[:, 0, 0, 0], half[:, 0, 0, 0]) == 0
    assert losses.score_distance(ones[:, 0, 0, 0], half[:, 0, 0, 0]) == 0.25


# --- Masked interpolation ---------------------------------------------------------------------------------------------


def test_edge_mask_is_one_on_flat_parts_and_zero_on_edges():
    image = torch.full((1, 3, 12, 12), 0.2)
    image[..., 6:] = 0.9  # Sobel magnitude 4 * 0.7
    mask = losses.edge_mask(image)
    inner = mask[..., 1:-1, 1:-1]  # outside, zero padding makes an edge of its own
    expected = torch.ones(1, 3, 10, 10)
    expected[..., 4:6] = 0
    torch.testing.assert_close(inner, expected, rtol=0, atol=1e-6)
    assert mask.min() >= 0 and mask.max() <= 1


def test_edge_mask_is_the_unnormalised_sobel_magnitude_of_each_colour():
    image = torch.zeros(1, 3, 9, 9)
    image[:, 0] = 0.05 * torch.arange(9.0)  # slope a: Sobel gives 8 a
    image[:, 1] = 0.03 * torch.arange(9.0)[:, None] + 0.04 * torch.arange(9.0)  # slopes 3-4-5
    inner = losses.edge_mask(image)[0, :, 1:-1, 1:-1]
    torch.testing.assert_close(inner[0], torch.full((7, 7), 1 - 0.4))
    torch.testing.assert_close(inner[1], torch.full((7, 7), 1 - 0.4))
    torch.testing.assert_close(inner[2], torch.ones(7, 7))


def test_masked_interpolation_ignores_edges_only():
    enlarged = torch.full((1, 3, 12, 12), 0.2)
    enlarged[..., 6:] = 0.9
    assert losses.masked_interpolation(enlarged, enlarged) == 0
    on_edge, on_flat = enlarged.clone(), enlarged.clone()
    on_edge[..., 3:9, 5:7] += 0.3
    on_flat[..., 3:9, 2:4] += 0.3
    assert losses.masked_interpolation(on_edge, enlarged).item() < 1e-6
    assert losses.masked_interpolation(on_flat, enlarged).item() == pytest.approx(0.3 * 12 / 144, rel=1e-5)


# --- The bicubic term -------------------------------------------------------------------------------------------------


@scales
def test_bicubic_table_is_imresize_away_from_borders(scale):
    table = reduction.bicubic_table(scale)
    assert table.shape == (4 * scale, 4 * scale)
    assert table.sum().item() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(table, table.flip(0, 1))
    image = np.random.default_rng(0).random((64, 80, 3))
    expected = imresize(image, 64 // scale, 80 // scale)
    found = reduce(torch.from_numpy(image.transpose(2, 0, 1)[None]), table.double(), scale)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found[2:-2, 2:-2], expected[2:-2, 2:-2], rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [2, 4])
def test_bicubic_distance_of_a_constant_image_is_zero(scale):
    size = (128 - KERNEL_SIZE) // scale + 1
    assert (
        losses.bicubic_distance(torch.full((1, 3, size, size), 0.6), torch.full((1, 3, 128, 128), 0.6), scale).item()
        < 1e-10
    )


def test_bicubic_distance_of_a_properly_reduced_image_is_zero_in_colour():
    torch.manual_seed(0)
    x = torch.rand(2, 3, 64, 64)
    right = proper(x, 2)
    assert losses.bicubic_distance(right, x, 2).item() < 1e-12
    assert losses.bicubic_distance(right[:, [1, 2, 0]], x, 2).item() > 1e-3, "the colours must not be mixed"
    shifted = losses.window(reduce(x, reduction.bicubic_table(2), 2).roll(1, -1), right, losses.lr_front(2))
    assert losses.bicubic_distance(shifted, x, 2).item() > 1e-3, "one LR pixel beside is not zero"


def test_the_references_fault_sums_the_colours_and_triples_the_brightness():
    torch.manual_seed(1)
    x = torch.rand(1, 1, 64, 64).expand(1, 3, 64, 64)  # gray
    right = proper(x, 2).clone().requires_grad_(True)
    mended = losses.bicubic_distance(right, x, 2)
    faulty = losses.bicubic_distance(right, x, 2, sum_colours=True)
    assert mended.item() < 1e-12
    assert faulty.item() == pytest.approx(4 * right.square().mean().item(), rel=1e-4)  # (3v - v)^2
    (gradient,) = torch.autograd.grad(faulty, right)
    assert (gradient <= 1e-9).all() and gradient.mean() < 0, "descending it brightens the image"
    assert losses.bicubic_distance(3 * right, x, 2, sum_colours=True).item() < 1e-10, (
        "its optimum is three times too bright"
    )


# --- The kernel's regularisation --------------------------------------------------------------------------------------


def test_sum_to_one():
    kernel = torch.rand(KERNEL_SIZE, KERNEL_SIZE)
    assert losses.sum_to_one(kernel / kernel.sum()).item() < 1e-6
    assert losses.sum_to_one(1.5 * kernel / kernel.sum()).item() == pytest.approx(0.5, abs=1e-6)


def test_boundaries_punish_mass_outside_the_inner_nine():
    weights = losses.boundary_weights()
    assert not weights[2:-2, 2:-2].any()
    outside = weights.clone()
    outside[2:-2, 2:-2] = 1
    assert (outside > 0).all()
    assert weights[0, 0] == weights.max() and (weights[0, :6].diff() < 0).all()
    torch.testing.assert_close(weights, weights.T)
    torch.testing.assert_close(weights, weights.flip(0, 1))
    inside = F.pad(torch.rand(9, 9) - 0.5, (2,) * 4)
    assert losses.boundaries(inside) == 0
    corner = torch.zeros(KERNEL_SIZE, KERNEL_SIZE)
    corner[0, -1] = -0.5
    assert losses.boundaries(corner).item() == pytest.approx(0.5 * weights[0, -1].item() / KERNEL_SIZE**2)


def test_boundary_weight_of_the_corner_by_hand():
    # 6 px off on both axes: 30 (1 - exp(-2 * 36 / (2 * 169)))
    assert losses.boundary_weights()[0, 0].item() == pytest.approx(30 * (1 - np.exp(-36 / 169)), rel=1e-6)


def centred(scale: int, dy: float = 0, dx: float = 0) -> Tensor:
    centre = 6 + 0.5 * (scale - 1)
    axes = [torch.tensor([max(0.0, 2.5 - abs(i - centre - d)) for i in range(KERNEL_SIZE)]) for d in (dy, dx)]
    return torch.outer(*axes) / torch.outer(*axes).sum()


@scales
def test_off_centre_is_the_squared_shift(scale):
    assert losses.off_centre(centred(scale), scale).item() < 1e-10
    assert losses.off_centre(3 * centred(scale), scale).item() < 1e-10, "the centre of mass does not depend on the sum"
    assert losses.off_centre(centred(scale, dy=1), scale).item() == pytest.approx(0.5, abs=1e-5)  # mean over both axes
    assert losses.off_centre(centred(scale, dy=-1, dx=1), scale).item() == pytest.approx(1, abs=1e-5)
    kernel = centred(scale, dx=1).requires_grad_(True)
    losses.off_centre(kernel, scale).backward()
    assert (kernel.grad.sum(0).diff() > 0).all(), "descending it moves mass to the left"


def test_sparsity_has_finite_gradients_at_exact_zeros():
    kernel = torch.zeros(KERNEL_SIZE, KERNEL_SIZE)
    kernel[6, 6], kernel[5, 6] = 0.75, -0.25
    kernel.requires_grad_(True)
    value = losses.sparsity(kernel)
    value.backward()
    assert torch.isfinite(kernel.grad).all()
    assert kernel.grad[6, 6] > 0 > kernel.grad[5, 6]
    smooth = (KERNEL_SIZE**2 - 2) * 1e-12**0.2
    assert value.item() == pytest.approx((0.75**0.2 + 0.25**0.2 + smooth) / KERNEL_SIZE**2, rel=1e-4)


def test_sparsity_prefers_few_taps_of_the_same_sum():
    spread = torch.full((KERNEL_SIZE, KERNEL_SIZE), 1 / KERNEL_SIZE**2)
    assert losses.sparsity(centred(2)) < losses.sparsity(spread)
