"""Rewrite strided and transposed convolutions as plain ones at the lower resolution, exactly.

A convolution that changes the resolution by s is a plain one in disguise: the s x s pixels that fall on one cell of the
lower resolution become s*s channels, its phases, and every tap of the kernel becomes a tap of one phase (Shi et al.: "Is
the deconvolution layer the same as a convolutional layer?", 2016). k6 s2 p2 and k8 s4 p2 become 3x3.

There are two ways to use it. Layer by layer, :func:`rewrite` puts a pixel shuffle after (transposed) or before (strided)
the new convolution. Or a whole part of a network stays at the lower resolution, on phases (:func:`to_phases`,
:func:`on_phases`, :func:`from_phases`), and the shuffles between its layers cancel. Phases are the outer axis of the
channels, ``channel = phase * C + c``, so that layers that treat all phases alike are grouped convolutions.

Every function returns a new module and leaves its argument unchanged. The new convolutions are frozen: training would
change taps that the old kernel does not have, which are zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import replace_layers

# Letters: k kernel size, s stride, p padding, r radius of the new kernel; O and I output and input channels, P = s*s.


def transposed_to_subpixel(layer: nn.ConvTranspose2d) -> nn.Sequential:
    """Turn N x I x H x W -> N x O x sH x sW into a convolution to O*P channels and a pixel shuffle.

    Raises:
        ValueError: as :func:`to_phases`.
    """
    return shuffled(to_phases(layer), layer.stride[0])


def strided_to_subpixel(layer: nn.Conv2d) -> nn.Sequential:
    """Turn N x I x sH x sW -> N x O x H x W into a pixel unshuffle and a convolution of I*P channels.

    The sides of the input must be multiples of s (the layer itself would drop the rest).

    Raises:
        ValueError: as :func:`from_phases`.
    """
    convolution, s = from_phases(layer), layer.stride[0]
    return nn.Sequential(nn.PixelUnshuffle(s), _by_channel(convolution, s, 1))


def rewrite(module: nn.Module, transposed: bool = True, strided: bool = False) -> nn.Module:
    """Return a copy in which the chosen kinds of layers are rewritten one by one.

    Strided layers are not rewritten by default: the unshuffle costs more than the plain convolution saves
    (docs/backbone-speed.md). Layers that do not change the size by exactly their stride, and those with groups, dilation
    or unequal axes, stay as they are.
    """

    def convert(layer: nn.Module) -> nn.Module | None:
        try:
            if transposed and type(layer) is nn.ConvTranspose2d and layer.stride != (1, 1):
                return transposed_to_subpixel(layer)
            if strided and type(layer) is nn.Conv2d and layer.stride != (1, 1):
                return strided_to_subpixel(layer)
        except ValueError:  # of a kind that cannot be rewritten
            return None
        return None

    return replace_layers(module, convert)


@torch.no_grad()
def to_phases(layer: nn.ConvTranspose2d) -> nn.Conv2d:
    """Return a transposed convolution without its shuffle: N x I x H x W -> N x P*O x H x W.

    Output pixel ``s*q + phase`` takes tap ``phase + p - s*j`` of the input at ``q + j``: one kernel for each phase.

    Raises:
        ValueError: the output is not s times as large as the input, or the layer has groups, dilation or unequal axes.
    """
    k, s, p = _alike(layer)
    if any(padding != 2 * p + s - k for padding in layer.output_padding):
        raise ValueError(f"{layer} does not enlarge by exactly its stride")
    r = max((s - 1 + p) // s, (k - 1 - p) // s)
    axis = [(phase, r + j, phase + p - s * j) for phase in range(s) for j in range(-r, r + 1)]
    axis = [(phase, new, old) for phase, new, old in axis if 0 <= old < k]
    weight = layer.weight.new_zeros(s, s, layer.out_channels, layer.in_channels, 2 * r + 1, 2 * r + 1)
    for phase_y, y, old_y in axis:
        for phase_x, x, old_x in axis:
            weight[phase_y, phase_x, :, :, y, x] = layer.weight[:, :, old_y, old_x].T
    return _convolution(weight.flatten(0, 2), None if layer.bias is None else layer.bias.repeat(s * s))


@torch.no_grad()
def from_phases(layer: nn.Conv2d) -> nn.Conv2d:
    """Return a strided convolution without its unshuffle: N x P*I x H x W -> N x O x H x W.

    Output pixel ``q`` takes tap ``s*j + phase + p`` of the input at ``s*(q + j) + phase``.

    Raises:
        ValueError: the output is not s times as small as the input, or the layer has groups, dilation, unequal axes, or
            a padding other than zeros.
    """
    k, s, p = _alike(layer)
    if not 2 * p < k <= 2 * p + s:
        raise ValueError(f"{layer} does not reduce by exactly its stride")
    r = max(-(-p // s), (k - 1 - p) // s)
    axis = [(phase, r + j, s * j + phase + p) for phase in range(s) for j in range(-r, r + 1)]
    axis = [(phase, new, old) for phase, new, old in axis if 0 <= old < k]
    weight = layer.weight.new_zeros(layer.out_channels, s, s, layer.in_channels, 2 * r + 1, 2 * r + 1)
    for phase_y, y, old_y in axis:
        for phase_x, x, old_x in axis:
            weight[:, phase_y, phase_x, :, y, x] = layer.weight[:, :, old_y, old_x]
    return _convolution(weight.flatten(1, 3), None if layer.bias is None else layer.bias.clone())


@torch.no_grad()
def on_phases(layer: nn.Conv2d, s: int) -> nn.Conv2d:
    """Return a size-preserving convolution of the higher resolution on phases: N x P*I x H x W -> N x P*O x H x W.

    A 1x1 convolution becomes one with a group for each phase. In a larger one the phases mix.

    Raises:
        ValueError: the layer has a stride, an even kernel, another padding than half of it, groups or dilation.
    """
    k, stride, p = _alike(layer)
    if stride != 1 or k != 2 * p + 1:
        raise ValueError(f"{layer} does not keep the size")
    bias = None if layer.bias is None else layer.bias.repeat(s * s)
    if k == 1:
        return _convolution(layer.weight.repeat(s * s, 1, 1, 1), bias, groups=s * s)
    r = -(-p // s)
    axis = [(phase, *divmod(phase + tap - p, s), tap) for phase in range(s) for tap in range(k)]
    weight = layer.weight.new_zeros(s, s, layer.out_channels, s, s, layer.in_channels, 2 * r + 1, 2 * r + 1)
    for out_y, y, in_y, old_y in axis:
        for out_x, x, in_x, old_x in axis:
            weight[out_y, out_x, :, in_y, in_x, :, r + y, r + x] = layer.weight[:, :, old_y, old_x]
    return _convolution(weight.flatten(0, 2).flatten(1, 3), bias)


def shuffled(layer: nn.Conv2d, s: int) -> nn.Sequential:
    """Return a convolution to phases followed by the pixel shuffle that makes an image of them."""
    return nn.Sequential(_by_channel(layer, s, 0), nn.PixelShuffle(s))


def _alike(layer: nn.Conv2d | nn.ConvTranspose2d) -> tuple[int, int, int]:
    """Return kernel size, stride and padding of a layer that treats both axes alike."""
    if layer.groups != 1 or layer.padding_mode != "zeros" or tuple(layer.dilation) != (1, 1):
        raise ValueError(f"{layer} has groups, dilation or a padding that is not zeros")
    if isinstance(layer.padding, str) or any(a != b for a, b in (layer.kernel_size, layer.stride, layer.padding)):
        raise ValueError(f"{layer} treats its axes differently")
    return layer.kernel_size[0], layer.stride[0], layer.padding[0]


def _convolution(weight: Tensor, bias: Tensor | None, groups: int = 1) -> nn.Conv2d:
    """Return a size-preserving convolution with the given odd kernel."""
    outputs, inputs, k, _ = weight.shape
    layer = nn.utils.skip_init(
        nn.Conv2d, inputs * groups, outputs, k, padding=k // 2, groups=groups, bias=bias is not None
    )
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


@torch.no_grad()
def _by_channel(layer: nn.Conv2d, s: int, axis: int) -> nn.Conv2d:
    """Make phases the inner axis of the outputs (axis 0) or inputs (axis 1), as PyTorch's pixel shuffle has them."""

    def reordered(tensor: Tensor) -> Tensor:
        return tensor.unflatten(axis, (s * s, -1)).transpose(axis, axis + 1).flatten(axis, axis + 1).contiguous()

    bias = layer.bias if layer.bias is None or axis == 1 else reordered(layer.bias)
    return _convolution(reordered(layer.weight), bias)
