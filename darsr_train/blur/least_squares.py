"""The degradation kernel between two images, in closed form: linear least squares in float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..degradation.reduction import pad_symmetric
from ..networks.gan import KERNEL_SIZE


def degradation_kernel(x: Tensor, y: Tensor, scale: int, ridge: float = 1e-3) -> Tensor:
    """Return the 13 x 13 kernel that best reduces ``x`` to ``y``: argmin |reduce(x, k) - y|^2 + ridge |k|^2.

    Args:
        x: N x C x sH x sW, an estimate of the HR image.
        y: N x C x H x W, the given LR image.
        ridge: relative to the mean energy of the image.
    """
    before = KERNEL_SIZE // 2
    padded = pad_symmetric(x.double(), before, KERNEL_SIZE - scale - before)
    gram, moments = torch.zeros(KERNEL_SIZE**2, KERNEL_SIZE**2, dtype=torch.float64), 0.0
    for plane, target in zip(padded.flatten(0, 1), y.double().flatten(0, 1)):  # one colour at a time: rows are large
        rows = F.unfold(plane[None, None], KERNEL_SIZE, stride=scale)[0]  # 169, HW
        gram += rows @ rows.T
        moments = moments + rows @ target.flatten()
    weight = ridge * gram.diagonal().mean() + 1e-12  # the second part keeps an all-black image solvable
    solution = torch.linalg.solve(gram + weight * torch.eye(len(gram), dtype=torch.float64), moments)
    return solution.reshape(KERNEL_SIZE, KERNEL_SIZE).float()
