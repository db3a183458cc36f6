"""Errors of images that networks are trained by."""

from __future__ import annotations

from torch import Tensor

from darsr_deploy.images.metrics import LUMA


def l1(sr: Tensor, hr: Tensor, luma: float) -> Tensor:
    """Return ``(1 - luma) * |R, G, B|_1 + luma * |Y|_1`` of N x 3 x H x W images."""
    difference = sr - hr
    return (1 - luma) * difference.abs().mean() + luma * _luma(difference).abs().mean()


def negative_psnr(sr: Tensor, hr: Tensor, luma: float = 0.0) -> Tensor:
    """Return minus the mean PSNR of the crops in units of 100 dB, of the same mixture of R, G, B and Y."""
    difference = sr - hr
    error = (1 - luma) * difference.square().mean((1, 2, 3)) + luma * _luma(difference).square().mean((1, 2))  # N
    return 0.1 * (error + 1e-6).log10().mean()


def _luma(difference: Tensor) -> Tensor:
    """Return Y (BT.601, which PSNR is measured on) of N x 3 x H x W, in the range of R, G and B."""
    weights = difference.new_tensor(LUMA)
    return (difference * weights.view(1, 3, 1, 1)).sum(1)
