"""What decides the speed of the backbones, measured alone: the operators that :mod:`export.folding.subpixel` rewrites, the activations."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darsr_train.backbones import EdgeSR

from ..folding.layers import replace_layers
from ..folding.subpixel import from_phases, strided_to_subpixel, to_phases, transposed_to_subpixel
from .timing import Setting, as_onnx, in_ort, in_torch

_PROJECTION = {2: (6, 2, 2), 4: (8, 4, 2)}  # kernel size, stride, padding of SRFBN's, by scale
_CHANNELS = 32


def random_edge(scale: int, blocks: int) -> EdgeSR:
    """The default network with random weights and, as in a trained one, a slope of its own for every channel."""
    network = EdgeSR(scale, _CHANNELS, blocks)
    for activation in network.activations:
        nn.init.uniform_(activation.weight, 0.0, 0.5)
    return network.eval().requires_grad_(False)


class _SpaceToDepth(nn.Module):
    """ONNX's operator itself, which PyTorch's pixel unshuffle does not become. For export only."""

    def __init__(self, s: int) -> None:
        super().__init__()
        self.s = s

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        shape = (n, c * self.s**2, h // self.s, w // self.s)
        return torch.onnx.ops.symbolic("SpaceToDepth", (x,), {"blocksize": self.s}, dtype=x.dtype, shape=shape)


def operators(setting: Setting) -> dict[str, dict[str, Callable[[], object]]]:
    """One transposed and one strided convolution of SRFBN-S at this scale, as it is and rewritten."""
    s, threads = setting.scale, setting.threads
    small, large = setting.image(_CHANNELS), setting.image(_CHANNELS, s)
    up = nn.ConvTranspose2d(_CHANNELS, _CHANNELS, *_PROJECTION[s]).requires_grad_(False)
    down = nn.Conv2d(_CHANNELS, _CHANNELS, *_PROJECTION[s]).requires_grad_(False)
    return {
        f"transposed, x{s}": {
            "ORT, as it is": in_ort(up, small, threads),
            "ORT, convolution and depth-to-space": in_ort(transposed_to_subpixel(up), small, threads),
            "ORT, convolution to phases": in_ort(to_phases(up), small, threads),
            "PyTorch, as it is": in_torch(up, small),
            "PyTorch, convolution and pixel shuffle": in_torch(transposed_to_subpixel(up), small),
        },
        f"strided, x{s}": {
            "ORT, as it is": in_ort(down, large, threads),
            "ORT, space-to-depth and convolution": in_ort(
                nn.Sequential(_SpaceToDepth(s), from_phases(down)), large, threads
            ),
            "ORT, pixel unshuffle as exported, and convolution": in_ort(strided_to_subpixel(down), large, threads),
            "ORT, convolution from phases": in_ort(from_phases(down), setting.image(_CHANNELS * s * s), threads),
            "PyTorch, as it is": in_torch(down, large),
            "PyTorch, pixel unshuffle and convolution": in_torch(strided_to_subpixel(down), large),
        },
    }


class MaxMin(nn.Module):
    """PReLU as ``max(x, 0) + a min(x, 0)``."""

    def __init__(self, slopes: Tensor) -> None:
        super().__init__()
        self.slopes = nn.Parameter(slopes[:, None, None], requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=0) + self.slopes * x.clamp(max=0)


class Depthwise(nn.Module):
    """PReLU as ``relu((1 - a) x) + a x`` for slopes of at most 1, both factors as depthwise convolutions."""

    def __init__(self, slopes: Tensor) -> None:
        super().__init__()
        self.slopes = nn.ParameterList(
            nn.Parameter(factor[:, None, None, None], requires_grad=False) for factor in (1 - slopes, slopes)
        )

    def forward(self, x: Tensor) -> Tensor:
        bent, straight = (F.conv2d(x, factor, groups=x.shape[1]) for factor in self.slopes)
        return F.relu(bent) + straight


def activations(setting: Setting) -> dict[str, dict[str, Callable[[], object]]]:
    """The default network with its activations computed in other ways, and with other options of ONNX Runtime."""
    x, threads = setting.image(), setting.threads
    blocks = setting.blocks[0]
    edge = random_edge(setting.scale, blocks)
    model = as_onnx(edge, x)

    def with_activations(make: Callable[[Tensor], nn.Module]) -> nn.Module:
        return replace_layers(edge, lambda layer: make(layer.weight) if isinstance(layer, nn.PReLU) else None)

    return {
        f"edge-x{setting.scale}, {blocks} blocks, in ORT": {
            "PReLU, a slope for each channel": in_ort(model, x, threads),
            "max(x, 0) + a min(x, 0), equal": in_ort(with_activations(MaxMin), x, threads),
            "relu((1 - a) x) + a x depthwise, equal": in_ort(with_activations(Depthwise), x, threads),
            "LeakyReLU: one slope for each layer": in_ort(with_activations(lambda _: nn.LeakyReLU(0.1)), x, threads),
            "ReLU": in_ort(with_activations(lambda _: nn.ReLU()), x, threads),
            "PReLU, graph level extended (no NCHWc layout)": in_ort(model, x, threads, level="EXTENDED"),
            "PReLU, threads do not spin": in_ort(model, x, threads, spinning=False),
        }
    }
