"""SRFBN-S, the paper's backbone (Li et al.: "Feedback Network for Image Super-Resolution", CVPR 2019).

Attribute names are those of the published weight files, so that these load without a table of names. Only the last
feedback step's image is computed: the earlier ones serve training alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Kernel size, stride and padding of the transposed and strided convolutions, by scale.
_PROJECTION = {2: (6, 2, 2), 4: (8, 4, 2)}

_MEAN = (0.4488, 0.4371, 0.4040)  # DIV2K's mean colour, in [0, 1]


def _conv(c_in: int, c_out: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, kernel, stride, padding), nn.PReLU(init=0.2))


def _deconv(channels: int, scale: int) -> nn.Sequential:
    return nn.Sequential(nn.ConvTranspose2d(channels, channels, *_PROJECTION[scale]), nn.PReLU(init=0.2))


def _mean_shift(sign: float) -> nn.Conv2d:
    """Return x + sign * mean as a 1x1 convolution: in the published files training moved it away from the identity."""
    layer = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(3)[:, :, None, None])
        layer.bias.copy_(sign * 255 * torch.tensor(_MEAN))
    return layer


class FeedbackBlock(nn.Module):
    """Up- and down-projection groups with dense connections, whose output is fed back at the next step."""

    def __init__(self, channels: int, groups: int, scale: int) -> None:
        super().__init__()
        kernel, stride, padding = _PROJECTION[scale]
        self.compress_in = _conv(2 * channels, channels, 1)
        self.upBlocks = nn.ModuleList(_deconv(channels, scale) for _ in range(groups))
        self.downBlocks = nn.ModuleList(_conv(channels, channels, kernel, stride, padding) for _ in range(groups))
        self.uptranBlocks = nn.ModuleList(_conv(channels * (i + 1), channels, 1) for i in range(1, groups))
        self.downtranBlocks = nn.ModuleList(_conv(channels * (i + 1), channels, 1) for i in range(1, groups))
        self.compress_out = _conv(groups * channels, channels, 1)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        lr = [self.compress_in(torch.cat([x, hidden], 1))]  # each N, C, H, W
        hr: list[Tensor] = []  # each N, C, sH, sW
        for i in range(len(self.upBlocks)):
            below = torch.cat(lr, 1) if i else lr[0]
            hr.append(self.upBlocks[i](self.uptranBlocks[i - 1](below) if i else below))
            above = torch.cat(hr, 1) if i else hr[0]
            lr.append(self.downBlocks[i](self.downtranBlocks[i - 1](above) if i else above))
        return self.compress_out(torch.cat(lr[1:], 1))


class SRFBN(nn.Module):
    """SRFBN-S by default: 32 features, 4 feedback steps, 3 projection groups.

    Input N x 3 x H x W RGB in [0, 1]; output N x 3 x sH x sW, not clipped. (The published network works in [0, 255];
    on export that scaling and the mean shift move into its convolutions.)
    """

    def __init__(self, scale: int, channels: int = 32, steps: int = 4, groups: int = 3) -> None:
        super().__init__()
        self.scale = scale
        self.hyper = {"channels": channels, "steps": steps, "groups": groups}
        self.steps = steps
        self.sub_mean = _mean_shift(-1.0)
        self.conv_in = _conv(3, 4 * channels, 3, padding=1)
        self.feat_in = _conv(4 * channels, channels, 1)
        self.block = FeedbackBlock(channels, groups, scale)
        self.out = _deconv(channels, scale)
        self.conv_out = nn.Sequential(nn.Conv2d(channels, 3, 3, padding=1))
        self.add_mean = _mean_shift(1.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.sub_mean(255 * x)
        skip = F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)
        features = self.feat_in(self.conv_in(x))  # N, C, H, W
        hidden = features
        for _ in range(self.steps):
            hidden = self.block(features, hidden)
        return self.add_mean(self.conv_out(self.out(hidden)) + skip) / 255  # N, 3, sH, sW
