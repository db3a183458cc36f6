"""Non-blind reference: one 5x5 filter for the whole image, in closed form from the true kernel.

Adaptation is measured against it. All 25 taps are free, unlike the 13 symmetric ones of an adapter's ``global`` correction:
tap noise makes true kernels slightly asymmetric, which is worth 0.1 to 0.2 dB.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..degradation.reduction import bicubic_table, reduce
from ..networks.darm import TAP_RADIUS

_RIDGE = 1e-6  # a hundred times more costs 0.7 dB


class Filter(nn.Module):
    """Correlation of every channel with one filter, borders reflected: N x C x H x W, sides of at least 3.

    Args:
        taps: 5 x 5.
    """

    def __init__(self, taps: Tensor) -> None:
        super().__init__()
        self.register_buffer("taps", taps)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        padded = F.pad(x, (TAP_RADIUS,) * 4, mode="reflect").reshape(n * c, 1, h + 4, w + 4)
        return F.conv2d(padded, self.taps[None, None]).reshape(n, c, h, w)


def fit_filter(y: Tensor, kernel: Tensor, scale: int, ridge: float = _RIDGE) -> Filter:
    """Fit the filter that best undoes a known blur, by least squares on the image reduced once more.

    ``filter(y reduced by kernel)`` is fitted to ``y`` reduced bicubically, in float64.

    Args:
        y: N x C x H x W in [0, 1], sides of at least ``3 * scale``; cropped to multiples of ``scale``.
        kernel: k x k, sum about 1; see :func:`darsr_train.degradation.reduction.reduce`.
        ridge: pulls towards the identity, relative to the mean energy of the image.
    """
    height, width = (side // scale * scale for side in y.shape[-2:])
    y = y[..., :height, :width].double()
    blurred = reduce(y, kernel.double(), scale)
    target = reduce(y, bicubic_table(scale).double(), scale).reshape(-1)
    padded = F.pad(blurred, (TAP_RADIUS,) * 4, mode="reflect").flatten(0, 1)[:, None]  # NC, 1, h + 4, w + 4
    windows = F.unfold(padded, 2 * TAP_RADIUS + 1).transpose(0, 1).reshape(25, -1)
    identity = torch.zeros(25, dtype=torch.float64)
    identity[12] = 1
    gram = windows @ windows.T
    weight = ridge * gram.diagonal().mean() + 1e-12  # the second part keeps an all-black image solvable
    taps = torch.linalg.solve(gram + weight * torch.eye(25, dtype=torch.float64), windows @ target + weight * identity)
    return Filter(taps.reshape(5, 5).float())
