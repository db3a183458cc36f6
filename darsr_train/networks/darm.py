"""DARM: pixel-wise coefficients of fixed 5x5 filters, and the filtering itself (DARSR, section 3.1)."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darsr_deploy.bundle.weights import TAP_OFFSETS

TAP_RADIUS = 2  # the filters are 5 x 5

# The point-symmetric 5x5 kernels have 13 dimensions: twelve pairs of opposite pixels and the centre. Tap i < 12 is the
# pixel at offset TAP_OFFSETS[i] = (dy, dx) *and* the one at its negative; tap 12 is the centre.


def symmetric_basis() -> Tensor:
    """Return the 13 basis kernels, 13 x 5 x 5: ones at TAP_OFFSETS[i] and at its negative."""
    basis = torch.zeros(13, 5, 5)
    for i, (dy, dx) in enumerate(TAP_OFFSETS):
        basis[i, 2 + dy, 2 + dx] = 1
        basis[i, 2 - dy, 2 - dx] = 1
    return basis


def filter_with_dictionary(x: Tensor, coefficients: Tensor, dictionary: Tensor) -> Tensor:
    """Filter with every dictionary entry, multiply by the coefficients and sum: the paper's form.

    Args:
        x: N x C x H x W.
        coefficients: N x F x H x W, shared by the colour channels.
        dictionary: F x 5 x 5 (correlation).
    """
    n, c, h, w = x.shape
    padded = F.pad(x, (TAP_RADIUS,) * 4, mode="reflect").reshape(n * c, 1, h + 4, w + 4)
    responses = F.conv2d(padded, dictionary[:, None]).reshape(n, c, -1, h, w)  # N, C, F, H, W
    return (responses * coefficients[:, None]).sum(2)


def filter_with_taps(x: Tensor, coefficients: Tensor) -> Tensor:
    """Filter with coefficients of the 13-dimensional symmetric basis: 13 multiplications a pixel and colour.

    Shifted sums, :func:`shifted_sums`; on CUDA, where no gradient is wanted and Triton is installed, one kernel
    (:mod:`.triton_filter`).

    Args:
        x: N x C x H x W, sides of at least 3.
        coefficients: N x 13 x H x W.
    """
    wanted = torch.is_grad_enabled() and (x.requires_grad or coefficients.requires_grad)
    if x.is_cuda and x.shape[1] == 3 and not wanted and not torch.compiler.is_compiling():
        fused = _fused_filter()
        if fused is not None:
            return fused(x, coefficients)
    return shifted_sums(x, coefficients)


@functools.cache
def _fused_filter() -> Callable[[Tensor, Tensor], Tensor] | None:
    """Return the fused kernel, or None where Triton is not installed."""
    try:
        from .triton_filter import fused_filter
    except ImportError:
        return None
    return fused_filter


def shifted_sums(x: Tensor, coefficients: Tensor) -> Tensor:
    """Compute :func:`filter_with_taps` plainly: on any device, differentiable."""
    h, w = x.shape[-2:]
    padded = F.pad(x, (TAP_RADIUS,) * 4, mode="reflect")

    def shifted(dy: int, dx: int) -> Tensor:
        return padded[..., 2 + dy : 2 + dy + h, 2 + dx : 2 + dx + w]

    result = coefficients[:, 12:13] * x
    for i, (dy, dx) in enumerate(TAP_OFFSETS[:12]):
        result = result + coefficients[:, i : i + 1] * (shifted(dy, dx) + shifted(-dy, -dx))
    return result


def _conv(c_in: int, c_out: int) -> nn.Conv2d:
    layer = nn.Conv2d(c_in, c_out, 3, padding=1)
    nn.init.kaiming_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class AttentionStage(nn.Module):
    """conv, ReLU, conv, ReLU, times channel attention (global average pool, 1x1, ReLU, 1x1, sigmoid)."""

    def __init__(self, channels: int, squeezed: int = 8) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = _conv(channels, channels)
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, channels, 1)
        for layer in (self.squeeze, self.excite):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).relu()).relu()
        pooled = x.mean((2, 3), keepdim=True)  # N, C, 1, 1
        return x * self.excite(self.squeeze(pooled).relu()).sigmoid()


class DARM(nn.Module):
    """Degradation-adaptive regression module: LR image -> corrected LR image that looks bicubically downscaled.

    Args:
        dictionary: F x 5 x 5 filters; None for the 13 taps of the symmetric basis (see
            ``export.folding.fold.fold_dictionary``).
        channels: width; 128 in the paper, where DARM has 681,304 parameters with 72 filters.

    Input and output N x 3 x H x W in [0, 1] (the output is not clipped), sides of at least 3.
    """

    def __init__(self, dictionary: Tensor | None = None, channels: int = 128) -> None:
        super().__init__()
        self.channels = channels
        self.head = _conv(3, channels)
        self.stages = nn.Sequential(AttentionStage(channels), AttentionStage(channels))
        self.tail = _conv(channels, 13 if dictionary is None else len(dictionary))
        self.register_buffer("dictionary", dictionary)

    def coefficients(self, x: Tensor) -> Tensor:
        """Return N x F x H x W coefficients of the filters for N x 3 x H x W."""
        features = self.stages(self.head(x))
        with torch.autocast(x.device.type, enabled=False):  # a coefficient rounded to bfloat16 is off by a grey level
            return self.tail(features.float())

    def forward(self, x: Tensor) -> Tensor:
        coefficients = self.coefficients(x)
        if self.dictionary is None:
            return filter_with_taps(x, coefficients)
        return filter_with_dictionary(x, coefficients, self.dictionary)


def correct_by_taps(darm: DARM, x: Tensor) -> Tensor:
    """Compute ``darm(x)`` with the dictionary folded into the 13 taps that it spans: same values and gradients, sooner.

    The fold is of the tail's weights, so that the 72 of the paper are what is learned.

    Args:
        darm: its dictionary, if it has one, holds point-symmetric filters alone.
    """
    if darm.dictionary is None:
        return darm(x)
    taps = torch.stack([darm.dictionary[:, 2 + dy, 2 + dx] for dy, dx in TAP_OFFSETS], 1)  # F, 13
    weight = torch.einsum("fcij,ft->tcij", darm.tail.weight, taps)
    features = darm.stages(darm.head(x))
    return shifted_sums(x, F.conv2d(features, weight, darm.tail.bias @ taps, padding=1))


@torch.no_grad()
def at_strength(darm: DARM, strength: float) -> DARM:
    """Return a copy whose correction is ``y + strength * (DARM(y) - y)``, by scaling the tail's weights.

    Raises:
        ValueError: a DARM with a dictionary, whose coefficients say nothing of the identity.
    """
    if darm.dictionary is not None:
        raise ValueError("only a DARM of 13 taps has a strength")
    scaled = copy.deepcopy(darm)
    scaled.tail.weight.mul_(strength)
    scaled.tail.bias.mul_(strength)
    scaled.tail.bias[12] += 1 - strength
    return scaled


@torch.no_grad()
def between(start: DARM, end: DARM, share: float) -> DARM:
    """Return the network whose weights lie between those of two: ``start`` at share 0, ``end`` at 1.

    Between a pre-trained network and its fine-tuned copy, networks keep most of both (Wortsman et al., "Robust
    fine-tuning of zero-shot models", CVPR 2022).
    """
    mixed = copy.deepcopy(end)
    for weight, other in zip(mixed.parameters(), start.parameters()):
        weight.lerp_(other, 1 - share)
    return mixed
