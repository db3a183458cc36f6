"""SRFBN's feedback block with all features at the LR resolution, for export."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from darsr_train.backbones.srfbn import FeedbackBlock

from .subpixel import from_phases, on_phases, to_phases

# Letters: N batch, C channels, P = s*s phases, H and W of the LR image.


class _Gather(nn.Module):
    """A 1x1 convolution and activation over several HR features, each given as phases.

    One convolution per feature, summed: concatenating would mean interleaving the phases.
    """

    def __init__(self, layer: nn.Sequential, scale: int) -> None:
        super().__init__()
        convolution, self.activation = layer
        self.parts = nn.ModuleList()
        for weight in convolution.weight.split(convolution.out_channels, dim=1):  # features are as wide as the output
            part = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=not self.parts)  # the bias counts once
            part.weight.data = weight.detach()
            if part.bias is not None:
                part.bias.data = convolution.bias.detach()
            self.parts.append(on_phases(part, scale))

    def forward(self, features: list[Tensor]) -> Tensor:
        total = self.parts[0](features[0])
        for part, feature in zip(self.parts[1:], features[1:]):
            total = total + part(feature)
        return self.activation(total)


class FeedbackOnPhases(nn.Module):
    """Equal to a :class:`FeedbackBlock`: N x C x H x W twice -> N x C x H x W.

    Up-projections end in phases and down-projections start from them, so nothing is shuffled in between.
    """

    def __init__(self, block: FeedbackBlock, scale: int) -> None:
        super().__init__()
        block = copy.deepcopy(block)
        self.compress_in, self.compress_out, self.before_up = block.compress_in, block.compress_out, block.uptranBlocks
        self.up = nn.ModuleList(nn.Sequential(to_phases(layer), activation) for layer, activation in block.upBlocks)
        self.before_down = nn.ModuleList(_Gather(layer, scale) for layer in block.downtranBlocks)
        self.down = nn.ModuleList(
            nn.Sequential(from_phases(layer), activation) for layer, activation in block.downBlocks
        )

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        lr = [self.compress_in(torch.cat([x, hidden], 1))]  # each N, C, H, W
        hr: list[Tensor] = []  # each N, P*C, H, W
        for i in range(len(self.up)):
            hr.append(self.up[i](self.before_up[i - 1](torch.cat(lr, 1)) if i else lr[0]))
            lr.append(self.down[i](self.before_down[i - 1](hr) if i else hr[0]))
        return self.compress_out(torch.cat(lr[1:], 1))
