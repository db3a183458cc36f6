"""Every loss of DARSR as a pure function.

Crops are N x C x H x W in [0, 1]; every result is a scalar. Section numbers are of Zhou et al., "Learning Correction
Filter via Degradation-Adaptive Regression for Blind Single Image Super-Resolution", ICCV 2023.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from ...degradation.reduction import apply_kernel, bicubic_table, pad_symmetric
from ...networks.gan import KERNEL_SIZE


def lr_front(scale: int) -> int:
    """Return the index of the first LR pixel whose 13-tap kernel lies inside the HR image: ceil(6 / s)."""
    return -(-(KERNEL_SIZE // 2) // scale)


def window(image: Tensor, like: Tensor, front: int) -> Tensor:
    """Return the part of ``image`` from row and column ``front`` on, of the height and width of ``like``."""
    return image[..., front : front + like.shape[-2], front : front + like.shape[-1]]


def gan_generator(fake_scores: Tensor) -> Tensor:
    """Return the LSGAN loss of the generator on the discriminator's patch scores."""
    return F.mse_loss(fake_scores, torch.ones_like(fake_scores))


def gan_discriminator(fake_scores: Tensor, real_scores: Tensor) -> Tensor:
    """Return the LSGAN loss of the discriminator: fake patches to 0, real ones to 1."""
    return 0.5 * (fake_scores.square().mean() + (real_scores - 1).square().mean())


def score_distance(scores: Tensor, target: Tensor) -> Tensor:
    """Return the squared distance of two batches of DSEM scores (section 3.3)."""
    return F.mse_loss(scores, target)


def edge_mask(image: Tensor) -> Tensor:
    """Return 1 - clamp(Sobel magnitude, 0, 1) per colour, unnormalised, zero padding: 1 on flat parts, 0 on edges."""
    n, c, h, w = image.shape
    sobel = image.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    gradients = F.conv2d(image.reshape(n * c, 1, h, w), torch.stack([sobel, sobel.T])[:, None], padding=1)
    return 1 - gradients.norm(dim=1).clamp(0, 1).reshape(n, c, h, w)


def masked_interpolation(sr: Tensor, enlarged: Tensor) -> Tensor:
    """Return the L1 distance to the bicubically enlarged LR image where that is flat (it takes no gradient)."""
    mask = edge_mask(enlarged)
    return (mask * (sr - enlarged)).abs().mean()


def bicubic_distance(x_down: Tensor, x: Tensor, scale: int, sum_colours: bool = False) -> Tensor:
    """Return the MSE between the generator's output and ``x`` reduced bicubically, each colour alone.

    Args:
        sum_colours: the reference program's bug: every output channel receives the sum of the three filtered
            colours, which drives the image to three times its brightness. Only for comparison with that program.
    """
    table = bicubic_table(scale).to(x)
    before = (table.shape[-1] - scale) // 2
    reduced = apply_kernel(pad_symmetric(x, before, before), table, scale)
    if sum_colours:
        reduced = reduced.sum(1, keepdim=True).expand_as(reduced)
    return F.mse_loss(x_down, window(reduced, x_down, lr_front(scale)))


def sum_to_one(kernel: Tensor) -> Tensor:
    """Return |1 - sum of the kernel|."""
    return (1 - kernel.sum()).abs()


@functools.cache
def boundary_weights() -> Tensor:
    """Return 13 x 13 weights: 0 on the inner 9 x 9, else 30 (1 - g / max g), g a Gaussian of sigma 13."""
    axis = torch.arange(KERNEL_SIZE, dtype=torch.float64) - (KERNEL_SIZE - 1) / 2
    bell = torch.exp(-0.5 * (axis / KERNEL_SIZE) ** 2)
    weights = 30 * (1 - torch.outer(bell, bell) / bell.max() ** 2)
    weights[2:-2, 2:-2] = 0
    return weights.float()


def boundaries(kernel: Tensor) -> Tensor:
    """Return the mean of |kernel * boundary_weights|, which penalises mass near the border."""
    return (kernel * boundary_weights().to(kernel)).abs().mean()


def off_centre(kernel: Tensor, scale: int) -> Tensor:
    """Return the squared distance of the centre of mass from 6 + (s - 1) / 2, averaged over both axes."""
    axis = torch.arange(KERNEL_SIZE, device=kernel.device, dtype=kernel.dtype)
    mass = torch.stack([kernel.sum(1) @ axis, kernel.sum(0) @ axis]) / kernel.sum()
    return F.mse_loss(mass, torch.full_like(mass, 6 + 0.5 * (scale - 1)))


def sparsity(kernel: Tensor) -> Tensor:
    """Return the mean of |kernel|^0.2, smoothed at 0, where the plain power has an infinite gradient."""
    return (kernel.abs() + 1e-12).pow(0.2).mean()
