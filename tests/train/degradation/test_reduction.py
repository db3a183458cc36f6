"""The degradation GAN: one kernel equals six layers, and every pixel sits where the convention puts it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darsr_train.degradation.reduction import apply_kernel, pad_symmetric, reduce
from darsr_train.networks.gan import GENERATOR_KERNELS, KERNEL_SIZE, Discriminator, Generator, layer_by_layer

scales = pytest.mark.parametrize("scale", [2, 4])


def row_kernel(taps: dict[int, float], size: int = KERNEL_SIZE) -> Tensor:
    """A separable kernel from the taps of one axis."""
    row = torch.zeros(size)
    for index, value in taps.items():
        row[index] = value
    return torch.outer(row, row)


def ramps(height: int, width: int) -> Tensor:
    """1 x 2 x H x W: every pixel's own row and column number."""
    rows, columns = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    return torch.stack([rows, columns])[None]


@scales
def test_composed_generator_equals_layer_by_layer_in_values_and_gradients(scale):
    torch.manual_seed(scale)
    generator = Generator(scale).double()  # float64: what is compared is the algebra, not the rounding
    x = torch.rand(2, 3, 41, 36, dtype=torch.float64)
    direction = None
    results = []
    for forward in (generator, lambda crop: layer_by_layer(generator, crop)):
        generator.zero_grad()
        y = forward(x)
        direction = torch.randn_like(y) if direction is None else direction
        (y * direction).sum().backward()
        results.append((y.detach(), [w.grad.clone() for w in generator.weights]))
    (fast, fast_gradients), (slow, slow_gradients) = results
    assert fast.shape == (2, 3, (41 - 13) // scale + 1, (36 - 13) // scale + 1)
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)
    assert len(fast_gradients) == len(GENERATOR_KERNELS)
    for ours, expected in zip(fast_gradients, slow_gradients):
        assert expected.norm() > 0
        assert (ours - expected).norm() <= 1e-10 * expected.norm()


def test_composed_generator_is_close_in_float32_too():
    torch.manual_seed(0)
    generator, x = Generator(2), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        slow, fast = layer_by_layer(generator, x), generator(x)
    assert (slow - fast).abs().max() <= 2e-6 * slow.abs().max()


def test_generator_starts_with_mean_and_deviation_of_one_over_fan_in():
    torch.manual_seed(1)
    for weight, c_in, side in zip(Generator(2).weights, (1, 64, 64, 64, 64, 64), GENERATOR_KERNELS):
        fan_in = c_in * side**2
        assert weight.shape[1:] == (c_in, side, side)
        error = 5 / weight.numel() ** 0.5  # five standard errors
        assert abs(weight.mean().item() * fan_in - 1) < error
        assert abs(weight.std().item() * fan_in - 1) < error


def test_fresh_generator_keeps_brightness_roughly():
    # mean 1/n in every layer makes the composed kernel sum to about 1: otherwise the GAN starts from black or white
    torch.manual_seed(2)
    assert 0.5 < Generator(2).kernel().sum().item() < 2


def test_kernel_is_applied_as_a_correlation():
    kernel = torch.zeros(3, 3)
    kernel[0, 2] = 1
    x = torch.rand(1, 1, 5, 6)
    assert torch.equal(apply_kernel(x, kernel), x[..., :3, 2:])


# --- Alignment: LR pixel i sits at HR coordinate s * i + (s - 1) / 2 ---------------------------------------------------


@pytest.mark.parametrize("size", [2, 4, 8])
def test_even_box_is_average_pooling(size):
    x = torch.rand(2, 3, 24, 16)
    torch.testing.assert_close(reduce(x, torch.full((2, 2), 0.25), 2), F.avg_pool2d(x, 2), rtol=0, atol=1e-6)
    wide = row_kernel({size // 2 - 1: 0.5, size // 2: 0.5}, size)  # the same box inside a larger even kernel
    torch.testing.assert_close(reduce(x, wide, 2), F.avg_pool2d(x, 2), rtol=0, atol=1e-6)


@scales
def test_delta_kernels_pick_the_pixel_that_the_convention_names(scale):
    x = torch.rand(1, 3, 32, 40)
    for shift in range(3):  # tap 6 is the first pixel of a block, the next tap the next pixel
        picked = reduce(x, row_kernel({6 + shift % scale: 1.0}), scale)
        assert torch.equal(picked, x[..., shift % scale :: scale, shift % scale :: scale])


@scales
def test_thirteen_taps_centred_between_two_are_aligned_with_their_block(scale):
    x = torch.rand(1, 3, 32, 40)
    first = scale // 2 - 1  # the two middle pixels of a block; their middle is (s - 1) / 2
    expected = (
        F.avg_pool2d(x, scale) if scale == 2 else F.avg_pool2d(x[..., first : 32 - first, first : 40 - first], 2, scale)
    )
    found = reduce(x, row_kernel({6 + first: 0.5, 7 + first: 0.5}), scale)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@scales
@pytest.mark.parametrize("size", [2, 4, 8, 16, 20, 58])
def test_symmetric_even_kernels_keep_a_ramp(scale, size):
    row = torch.hann_window(size + 2, periodic=False, dtype=torch.float64)[1:-1]
    kernel = torch.outer(row, row) / row.sum() ** 2
    x = ramps(96, 128).double()
    found = reduce(x, kernel, scale)
    margin = size // 2 // scale + 1  # LR pixels whose kernel reaches over the border
    inner = (..., slice(margin, 96 // scale - margin), slice(margin, 128 // scale - margin))
    expected = F.avg_pool2d(x, scale)  # of a ramp: exactly its value at s * i + (s - 1) / 2
    assert found[inner].numel() > 0
    torch.testing.assert_close(found[inner], expected[inner], rtol=0, atol=1e-9)


@scales
def test_thirteen_taps_with_their_centre_of_mass_in_the_middle_keep_a_ramp(scale):
    centre = 6 + 0.5 * (scale - 1)
    row = torch.tensor([max(0.0, 3 - abs(i - centre)) for i in range(KERNEL_SIZE)], dtype=torch.float64)
    kernel = torch.outer(row, row) / row.sum() ** 2
    x = ramps(64, 64).double()
    inner = (..., slice(4, -4), slice(4, -4))
    torch.testing.assert_close(reduce(x, kernel, scale)[inner], F.avg_pool2d(x, scale)[inner], rtol=0, atol=1e-9)


@pytest.mark.parametrize("scale, after", [(2, 5), (4, 3)])
def test_thirteen_taps_are_padded_by_six_and(scale, after):
    x, kernel = torch.rand(1, 3, 24, 32), torch.rand(KERNEL_SIZE, KERNEL_SIZE)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (6, after), (6, after)), mode="symmetric")
    torch.testing.assert_close(reduce(x, kernel, scale), apply_kernel(torch.from_numpy(padded), kernel, scale))


@scales
def test_flipping_image_and_kernel_flips_the_result(scale):
    # the grid of LR pixels is symmetric in the image: what a half-pixel error anywhere would break
    x, kernel = torch.rand(1, 3, 32, 24), torch.rand(20, 20)
    flipped = reduce(x.flip(-1), kernel.flip(-1), scale).flip(-1)
    torch.testing.assert_close(flipped, reduce(x, kernel, scale), rtol=1e-5, atol=1e-5)


@scales
def test_reduce_keeps_constants_up_to_the_border(scale):
    kernel = torch.rand(KERNEL_SIZE, KERNEL_SIZE)
    found = reduce(torch.full((1, 3, 16, 16), 0.7), kernel / kernel.sum(), scale)
    torch.testing.assert_close(found, torch.full((1, 3, 16 // scale, 16 // scale), 0.7))


@pytest.mark.parametrize("before, after", [(0, 0), (6, 5), (6, 3), (0, 9), (23, 31), (40, 2)])
@pytest.mark.parametrize("height, width", [(1, 7), (5, 4), (12, 20)])
def test_padding_is_numpys_symmetric_for_pads_larger_than_the_image_too(before, after, height, width):
    x = torch.rand(2, 3, height, width)
    pad = (before, after)
    assert np.array_equal(
        pad_symmetric(x, before, after).numpy(), np.pad(x.numpy(), ((0, 0), (0, 0), pad, pad), mode="symmetric")
    )


# --- Discriminator ---------------------------------------------------------------------------------------------------


def test_discriminator_scores_patches_of_seven_pixels():
    torch.manual_seed(3)
    discriminator = Discriminator()
    scores = discriminator(torch.rand(2, 3, 20, 17))
    assert scores.shape == (2, 1, 14, 11)
    assert scores.min() > 0 and scores.max() < 1
    discriminator.eval()  # batch statistics would spread a change over the whole batch
    x = torch.rand(1, 3, 20, 20)
    changed = x.clone()
    changed[..., 10, 10] += 0.5
    moved = (discriminator(changed) != discriminator(x))[0, 0]
    assert moved[4:11, 4:11].any()
    moved[4:11, 4:11] = False
    assert not moved.any()


def test_every_convolution_of_the_discriminator_is_spectrally_normalised():
    torch.manual_seed(4)
    discriminator = Discriminator()
    convolutions = [m for m in discriminator.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.kernel_size, c.in_channels, c.out_channels) for c in convolutions] == [((7, 7), 3, 64)] + [
        ((1, 1), 64, 64)
    ] * 5 + [((1, 1), 64, 1)]
    for _ in range(100):  # one power iteration a call
        discriminator(torch.rand(1, 3, 8, 8))
    for convolution in convolutions:
        assert torch.linalg.matrix_norm(convolution.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)
        assert torch.linalg.matrix_norm(convolution.weight_orig.flatten(1), 2).item() != pytest.approx(1, abs=0.02)
        assert not convolution.bias.any()


def test_only_training_mode_moves_the_power_iteration():
    torch.manual_seed(5)
    discriminator, x = Discriminator(), torch.rand(1, 3, 9, 9)
    vector = discriminator.layers[0].weight_u
    before = vector.clone()
    discriminator.eval()(x)
    assert torch.equal(vector, before)
    discriminator.train()(x)
    assert not torch.equal(discriminator.layers[0].weight_u, before)
