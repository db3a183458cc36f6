"""The project's own backbone: a plain stack of 3x3 convolutions, which every edge runtime runs well.

After ECBSR (Zhang, Zeng, Zhang: "Edge-oriented Convolution Block for Real-time Super Resolution on Mobile Devices",
ACM MM 2021): while training, every convolution is a sum of linear branches; for use they are merged into one. The
branches are merged in *weight space* at every training step, so a step costs what the plain network costs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Letters: N batch, C channels, H and W of the LR image, s scale.


class EdgeSR(nn.Module):
    """Plain super-resolution network: 3x3 convolutions, PReLU, pixel shuffle, nearest-neighbour skip.

    Args:
        scale: 2 or 4.
        channels: width of every hidden layer.
        blocks: number of hidden 3x3 convolutions.

    Input N x 3 x H x W RGB in [0, 1]; output N x 3 x sH x sW, not clipped.
    """

    def __init__(self, scale: int, channels: int = 32, blocks: int = 13) -> None:
        super().__init__()
        self.scale = scale
        self.hyper = {"channels": channels, "blocks": blocks}
        widths = [3] + [channels] * (blocks + 1)
        self.body = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(widths, widths[1:]))
        self.activations = nn.ModuleList(nn.PReLU(channels, init=0.1) for _ in self.body)
        self.tail = nn.Conv2d(channels, 3 * scale**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skip = x.repeat_interleave(self.scale**2, dim=1)  # N, 3ss, H, W
        for convolution, activation in zip(self.body, self.activations):
            x = activation(convolution(x))  # N, C, H, W
        return F.pixel_shuffle(self.tail(x) + skip, self.scale)  # N, 3, sH, sW


# The edge detectors of ECBSR's branches: Sobel in x and y, Laplacian.
_EDGE_FILTERS = torch.tensor(
    [
        [[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]],
        [[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]],
        [[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]],
    ]
)


class BranchedConv(nn.Module):
    """A 3x3 convolution written as the sum of a 3x3, a widening 1x1 -> 3x3, three edge and an identity branch.

    The branches inside carry no bias, so that the merged form is exact at zero-padded borders too.
    """

    def __init__(self, c_in: int, c_out: int, widen: int = 2) -> None:
        super().__init__()
        plain = nn.Conv2d(c_in, c_out, 3)
        self.weight, self.bias = plain.weight, plain.bias
        self.expand = nn.Parameter(nn.Conv2d(c_in, widen * c_in, 1, bias=False).weight.detach()[:, :, 0, 0].clone())
        self.squeeze = nn.Parameter(nn.Conv2d(widen * c_in, c_out, 3, bias=False).weight.detach().clone())
        self.mix = nn.Parameter(torch.stack([nn.Conv2d(c_in, c_out, 1).weight.detach()[:, :, 0, 0] for _ in range(3)]))
        self.edge_scale = nn.Parameter(1e-3 * torch.randn(3, c_out))
        self.register_buffer("edge_filters", _EDGE_FILTERS.clone(), persistent=False)
        self.identity = nn.Parameter(torch.zeros(c_out)) if c_in == c_out else None

    def merged(self) -> tuple[Tensor, Tensor]:
        """Return weight (c_out, c_in, 3, 3) and bias (c_out) of the one convolution that equals the sum of all branches."""
        weight = self.weight + torch.einsum("omij,mc->ocij", self.squeeze, self.expand)
        weight = weight + torch.einsum("bo,boc,bij->ocij", self.edge_scale, self.mix, self.edge_filters)
        if self.identity is not None:
            centre = torch.diag(self.identity)
            weight = weight + F.pad(centre[:, :, None, None], (1, 1, 1, 1))
        return weight, self.bias

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # sum the branches in float32, as the final merge does
            weight, bias = self.merged()
        return F.conv2d(x, weight, bias, padding=1)


def branch(model: EdgeSR) -> EdgeSR:
    """Return a trainable copy of ``model``'s architecture whose layers are :class:`BranchedConv` with fresh weights."""
    trainable = EdgeSR(model.scale, **model.hyper)
    trainable.body = nn.ModuleList(BranchedConv(c.in_channels, c.out_channels) for c in model.body)
    trainable.tail = BranchedConv(model.tail.in_channels, model.tail.out_channels)
    return trainable


@torch.no_grad()
def split(plain: EdgeSR) -> EdgeSR:
    """Return a trainable network of :class:`BranchedConv` that computes what ``plain`` does: the inverse of :func:`merge`.

    Every branch is fresh except the 3x3 one, which takes the difference.
    """
    branched = branch(plain)
    for target, source in zip([*branched.body, branched.tail], [*plain.body, plain.tail]):
        merged, _ = target.merged()
        target.weight += source.weight - merged
        target.bias.copy_(source.bias)
    branched.activations.load_state_dict(plain.activations.state_dict())
    return branched


@torch.no_grad()
def grow(small: EdgeSR, target: EdgeSR) -> EdgeSR:
    """Initialise a fresh ``target`` from a trained network that is no wider and no deeper, of the same or another scale.

    New layers go before the tail and start as the identity (Net2DeeperNet: Chen, Goodfellow, Shlens, ICLR 2016): a centre
    tap of 1, a PReLU slope of 1. New channels keep their fresh weights, but the trained ones read them with weights of
    zero, so nothing changes until they have learned. At the same scale the target computes what ``small`` computes; at
    another one the tail starts at zero, so that the network starts as its nearest-neighbour skip.

    Raises:
        ValueError: ``small`` is wider or deeper than the target.
    """
    if any(small.hyper[name] > target.hyper[name] for name in ("channels", "blocks")):
        raise ValueError(f"a network of {small.hyper} does not grow into one of {target.hyper}")
    known = len(small.body)
    for layer, source in zip(target.body, small.body):
        _widen(layer, source)
    for layer, source in zip(target.activations, small.activations):
        layer.weight[: len(source.weight)] = source.weight
    for layer, activation in zip(target.body[known:], target.activations[known:]):
        nn.init.dirac_(layer.weight)
        nn.init.zeros_(layer.bias)
        nn.init.ones_(activation.weight)
    if small.scale == target.scale:
        _widen(target.tail, small.tail)
    else:
        nn.init.zeros_(target.tail.weight)
        nn.init.zeros_(target.tail.bias)
    return target


def _widen(layer: nn.Conv2d, source: nn.Conv2d) -> None:
    """Copy the trained channels of ``source`` and let them ignore the new ones, which stay as they are."""
    c_out, c_in = source.weight.shape[:2]
    layer.weight[:c_out, :c_in] = source.weight
    layer.weight[:c_out, c_in:] = 0
    layer.bias[:c_out] = source.bias


@torch.no_grad()
def merge(branched: EdgeSR) -> EdgeSR:
    """Return the plain network that equals ``branched``; done once, offline."""
    plain = EdgeSR(branched.scale, **branched.hyper)
    for target, source in zip([*plain.body, plain.tail], [*branched.body, branched.tail]):
        weight, bias = source.merged()
        target.weight.copy_(weight)
        target.bias.copy_(bias)
    plain.activations.load_state_dict(branched.activations.state_dict())
    return plain
