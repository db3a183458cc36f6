"""Least squares: the kernel that turns one image into another."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage import data
from torch import Tensor

from darsr_deploy.blind import least_squares
from darsr_deploy.degradation import kernels
from darsr_train.degradation.reduction import pad_symmetric, reduce
from darsr_train.networks.gan import KERNEL_SIZE
from tests.deploy.degradation.test_kernels import moments

scales = pytest.mark.parametrize("scale", [2, 4])


def picture(pixels: np.ndarray) -> Tensor:
    """uint8 H x W or H x W x 3 -> 1 x C x H x W in [0, 1]."""
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    return torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32)) / 255


PHOTO = picture(data.astronaut()[:256, 100:356])
TEXTURE = picture(data.gravel()[:256, :256])


def degradation_kernel(x: Tensor, y: Tensor, scale: int, ridge: float = 1e-3) -> Tensor:
    return torch.from_numpy(least_squares.degradation_kernel(x.numpy(), y.numpy(), scale, ridge))


def in_bytes(x: Tensor) -> Tensor:
    return (x.clamp(0, 1) * 255).round() / 255


@scales
@pytest.mark.parametrize(
    "image", [TEXTURE, torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))], ids=["gravel", "noise"]
)
def test_a_random_kernel_is_recovered_from_its_own_pair(scale, image):
    true = torch.rand(KERNEL_SIZE, KERNEL_SIZE, generator=torch.Generator().manual_seed(1))
    true /= true.sum()
    found = degradation_kernel(image, reduce(image, true, scale), scale, ridge=1e-9)
    assert ((found - true).norm() / true.norm()).item() < 1e-2


def test_the_kernel_is_recovered_with_the_default_ridge_and_8_bits():
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(2))
    true = torch.from_numpy(kernels.gaussian(14, 1.5, 0.9, 0.3))[:13, :13].float()
    found = degradation_kernel(in_bytes(image), in_bytes(reduce(image, true, 2)), 2)
    assert ((found - true).norm() / true.norm()).item() < 3e-2


@pytest.mark.parametrize("scale", [2, 4])
def test_a_shifted_kernel_is_recovered_where_it_is(scale):
    # found and applied by the same convention: a half-pixel error between the two would move the peak
    true = torch.zeros(KERNEL_SIZE, KERNEL_SIZE)
    true[4, 9] = 1
    found = degradation_kernel(TEXTURE, reduce(TEXTURE, true, scale), scale, ridge=1e-6)
    assert divmod(int(found.argmax()), KERNEL_SIZE) == (4, 9)
    assert found.max().item() == pytest.approx(1, abs=0.05)


def test_more_ridge_makes_smaller_kernels():
    y = reduce(PHOTO, torch.from_numpy(kernels.gaussian(14, 1.5, 1.5, 0.0)).float(), 2)
    norms = [degradation_kernel(PHOTO, y, 2, ridge).norm().item() for ridge in (1e-6, 1e-3, 1.0)]
    assert norms[0] > norms[1] > norms[2]


def four_orientations(image: Tensor) -> Tensor:
    """What the reference program makes of its crops: as they are, mirrored, transposed, both."""
    mirrored = image.flip(-1)
    return torch.cat([image, mirrored, image.transpose(-1, -2), mirrored.transpose(-1, -2)])


@pytest.mark.parametrize("angle", [0.3, 0.8, 2.2])
def test_orientation_of_an_elongated_kernel_is_recovered_unless_crops_are_turned(angle):
    """Fault 4 of the reference program: with flips and transposes one kernel can fit only their mixture."""
    kernel = torch.from_numpy(kernels.gaussian(20, 3.0, 0.6, angle)).float()  # 5 : 1
    y = in_bytes(reduce(PHOTO, kernel, 2))
    longer, shorter, found = moments(degradation_kernel(PHOTO, y, 2).clamp(min=0).numpy())
    assert math.sin(found - angle) == pytest.approx(0, abs=0.1)
    assert longer > 2 * shorter
    # the same images, both sides turned alike, as a step's batch would hold them
    longer, shorter, _ = moments(
        degradation_kernel(four_orientations(PHOTO), four_orientations(y), 2).clamp(min=0).numpy()
    )
    assert longer < 1.2 * shorter


def by_torch(x: Tensor, y: Tensor, scale: int, ridge: float = 1e-3) -> Tensor:
    """The equations as PyTorch writes them: windows as columns."""
    before = KERNEL_SIZE // 2
    rows = F.unfold(
        pad_symmetric(x.double(), before, KERNEL_SIZE - scale - before).transpose(0, 1), KERNEL_SIZE, stride=scale
    )
    rows = rows.transpose(0, 1).flatten(1)  # 169, CHW
    gram = rows @ rows.T
    weight = ridge * gram.diagonal().mean() + 1e-12
    solution = torch.linalg.solve(gram + weight * torch.eye(len(gram)), rows @ y.double().flatten())
    return solution.reshape(KERNEL_SIZE, KERNEL_SIZE).float()


@scales
def test_the_kernel_is_the_one_that_the_plain_equations_give(scale):
    photo = PHOTO[..., :200, :248]
    y = in_bytes(reduce(photo, torch.from_numpy(kernels.gaussian(14, 1.5, 0.9, 0.3)).float(), scale))
    torch.testing.assert_close(degradation_kernel(photo, y, scale), by_torch(photo, y, scale), atol=1e-6, rtol=1e-5)
