"""Back-projection, the last and linear stage: add what the enlarged image does not explain of the given one.

Irani, Peleg: "Improving Resolution by Image Registration" (CVGIP 1991): ``x += up(y - reduce(x, k))``, where ``up`` is
the transposed bicubic reduction. It needs a good kernel, and an image without a camera's treatment.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..degradation.reduction import bicubic_table


class BackProjection(nn.Module):
    """Rounds of back-projection; plain convolutions with fixed weights, so that it can be exported.

    Args:
        kernel: k x k of even side, centred between its middle taps (HR pixels), sum 1.
        scale: 2 or 4.
        rounds: 0 returns the image as it is.

    Borders are repeated, the one padding that every runtime knows, where
    :func:`darsr_train.degradation.reduction.reduce` mirrors them.
    """

    def __init__(self, kernel: Tensor, scale: int, rounds: int) -> None:
        super().__init__()
        self.scale, self.rounds = scale, rounds
        table = bicubic_table(scale)
        self.register_buffer("down", kernel.expand(3, 1, *kernel.shape).contiguous())
        self.register_buffer("up", (table * scale**2).expand(3, 1, *table.shape).contiguous())

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the N x 3 x sH x sW estimate made consistent with the N x 3 x H x W given image."""
        for _ in range(self.rounds):
            x = x + self._enlarge(y - self._reduce(x))
        return x

    def _reduce(self, x: Tensor) -> Tensor:
        margin = (self.down.shape[-1] - self.scale) // 2
        return F.conv2d(F.pad(x, (margin,) * 4, mode="replicate"), self.down, stride=self.scale, groups=3)

    def _enlarge(self, y: Tensor) -> Tensor:
        s, taps = self.scale, self.up.shape[-1]
        rim = 2  # LR pixels whose taps reach into the image from outside
        padded = F.pad(y, (rim,) * 4, mode="replicate")
        enlarged = F.conv_transpose2d(padded, self.up, stride=s, padding=(taps - s) // 2 + rim * s, groups=3)
        return enlarged  # N, 3, sH, sW
