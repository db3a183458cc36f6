"""The dictionary of 72 fixed 5x5 filters that DARM mixes, by formula."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gaussian(sigma: float, ratio: float, degrees: float, side: int = 5) -> Tensor:
    """Return an anisotropic Gaussian, side x side, sum 1; ``ratio`` = minor / major sigma, turned by ``degrees``."""
    axis = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    angle = math.radians(degrees)
    along = x * math.cos(angle) + y * math.sin(angle)
    across = -x * math.sin(angle) + y * math.cos(angle)
    kernel = torch.exp(-0.5 * ((along / sigma) ** 2 + (across / (ratio * sigma)) ** 2))
    return kernel / kernel.sum()


def gaussian_parameters() -> list[tuple[float, float, float]]:
    """Return (sigma, ratio, degrees) of the 51 smoothing filters, in the dictionary's order."""
    coarse = [0.0, *range(150, 0, -30)]
    fine = [0.0, *range(165, 0, -15)]
    wide = [(2.0, 1.0, 0.0)] + [(2.0, r, a) for r in (0.8, 0.6, 0.4) for a in coarse] + [(2.0, 0.2, a) for a in fine]
    narrow = [(1.2, 1.0, 0.0)] + [(1.2, r, a) for r in (0.8, 0.6, 0.4) for a in coarse]
    return [*wide, *narrow, (0.4, 1.0, 0.0)]


def correction_dictionary() -> Tensor:
    """Return 72 x 5 x 5 point-symmetric filters of sum 1, float32, spanning all 13 dimensions of such kernels.

    The first 51 blur (DARSR's Gaussians). The other 21 sharpen: twice the identity less a Gaussian, the exact
    first-order inverse of that blur, for the seven orientations of the three elongated families.
    """
    identity = torch.zeros(5, 5, dtype=torch.float64)
    identity[2, 2] = 1
    blurs = [gaussian(*p) for p in gaussian_parameters()]
    sharpened = [(2.0, 1.0, 0.0), (1.2, 1.0, 0.0), (0.8, 1.0, 0.0)]
    sharpened += [(2.0, r, a) for r in (0.4, 0.2) for a in (0.0, *range(150, 0, -30))]
    sharpened += [(1.2, 0.4, a) for a in (0.0, *range(150, 0, -30))]
    return torch.stack(blurs + [2 * identity - gaussian(*p) for p in sharpened]).float()
