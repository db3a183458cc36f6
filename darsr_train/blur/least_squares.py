"""What has a closed form: the correction filter for a known kernel, the kernel for a known image.

Everything here is linear least squares in float64 on one image; no iteration, no network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..degradation.reduction import bicubic_table, pad_symmetric, reduce
from ..networks.darm import TAP_OFFSETS, TAP_RADIUS
from ..networks.gan import KERNEL_SIZE


def tap_responses(x: Tensor) -> Tensor:
    """N x C x H x W -> 13 x N x C x H x W: the sums of opposite pixels that the symmetric taps multiply."""
    h, w = x.shape[-2:]
    padded = F.pad(x, (TAP_RADIUS,) * 4, mode="reflect")
    at = lambda dy, dx: padded[..., 2 + dy : 2 + dy + h, 2 + dx : 2 + dx + w]  # noqa: E731
    return torch.stack([at(dy, dx) + at(-dy, -dx) for dy, dx in TAP_OFFSETS[:12]] + [x])


def correction_taps(y: Tensor, kernel: Tensor, scale: int, ridge: float = 1e-4) -> Tensor:
    """The best symmetric 5x5 filter for an unknown-blur image, given the blur.

    Fitted on the image reduced once more: filter(y reduced by ``kernel``) against y reduced bicubically.

    Args:
        y: N x C x H x W in [0, 1], sides divisible by ``scale``.
        kernel: (k, k), sum about 1.
        ridge: pulls towards the identity, relative to the mean energy of the responses.

    Returns:
        13 taps, float32.
    """
    y = y.double()
    blurred = reduce(y, kernel.double(), scale)
    target = reduce(y, bicubic_table(scale).double(), scale)
    return _solve(tap_responses(blurred).reshape(13, -1), target.reshape(-1), ridge)


def _solve(responses: Tensor, target: Tensor, ridge: float) -> Tensor:
    identity = torch.zeros(len(responses), dtype=torch.float64)
    identity[-1] = 1
    gram = responses @ responses.T
    weight = ridge * gram.diagonal().mean() * torch.eye(len(responses), dtype=torch.float64)
    return torch.linalg.solve(gram + weight, responses @ target + weight @ identity).float()


def degradation_kernel(x: Tensor, y: Tensor, scale: int, ridge: float = 1e-3) -> Tensor:
    """The 13 x 13 kernel that best reduces ``x`` to ``y``: argmin |reduce(x, k) - y|^2 + ridge |k|^2.

    Args:
        x: N x C x sH x sW, an estimate of the HR image.
        y: N x C x H x W, the given LR image.
        ridge: relative to the mean energy of the image.
    """
    before = KERNEL_SIZE // 2
    padded = pad_symmetric(x.double(), before, KERNEL_SIZE - scale - before)
    gram, moments = torch.zeros(KERNEL_SIZE**2, KERNEL_SIZE**2, dtype=torch.float64), 0.0
    for plane, target in zip(
        padded.flatten(0, 1), y.double().flatten(0, 1)
    ):  # 169 shifted copies of one colour at a time
        rows = F.unfold(plane[None, None], KERNEL_SIZE, stride=scale)[0]  # 169, HW
        gram += rows @ rows.T
        moments = moments + rows @ target.flatten()
    weight = ridge * gram.diagonal().mean() + 1e-12  # the second part keeps an all-black image solvable
    solution = torch.linalg.solve(gram + weight * torch.eye(len(gram), dtype=torch.float64), moments)
    return solution.reshape(KERNEL_SIZE, KERNEL_SIZE).float()
