"""The degradation GAN: a deep linear generator (HR -> LR of the unknown kind) and a patch discriminator.

Zhou et al. (DARSR, ICCV 2023), section 3.2; the two networks are KernelGAN's (Bell-Kligler et al., NeurIPS 2019).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from ..degradation.reduction import apply_kernel

GENERATOR_KERNELS = (7, 5, 3, 1, 1, 1)  # sides of the six layers; the third one carries the stride
KERNEL_SIZE = 13  # 7 + 5 + 3 + 1 + 1 + 1 - 5: side of the one kernel that equals them all


class Generator(nn.Module):
    """A deep linear network on every colour channel alone, always applied as the one kernel that it equals.

    All layers are convolutions without bias or activation, so their composition is a single 13 x 13 correlation of
    stride ``scale``. Composing the weights first gives the same values and gradients as layer by layer
    (:func:`layer_by_layer`) at about a thousandth of the arithmetic. The depth still matters: it is the optimiser's
    path through the over-parameterised weights that makes a deep linear generator converge where a single kernel
    does not.
    """

    def __init__(self, scale: int, channels: int = 64) -> None:
        super().__init__()
        self.scale = scale
        widths = [1] + [channels] * 5 + [1]
        self.weights = nn.ParameterList(
            torch.empty(c_out, c_in, k, k) for c_in, c_out, k in zip(widths, widths[1:], GENERATOR_KERNELS)
        )
        for weight in self.weights:
            fan_in = weight[0].numel()
            nn.init.normal_(weight, 1 / fan_in, 1 / fan_in)

    def kernel(self) -> Tensor:
        """Return the composed kernel, 13 x 13 (correlation, not flipped)."""
        *front, last = self.weights
        composed = last  # 1, C, 1, 1: seen from the output, what is applied to the last hidden layer
        for weight in reversed(front):
            # sum over the shared channels of full convolutions: exactly what a transposed convolution computes
            composed = F.conv_transpose2d(composed, weight)
        return composed[0, 0]

    def forward(self, x: Tensor) -> Tensor:
        """Map N x 3 x H x W to N x 3 x ((H - 13) // s + 1) x ((W - 13) // s + 1), valid padding."""
        return apply_kernel(x, self.kernel(), self.scale)


def layer_by_layer(generator: Generator, x: Tensor) -> Tensor:
    """Compute :class:`Generator` layer by layer, which tests prove the composed form equal to."""
    n, c, h, w = x.shape
    features = x.reshape(n * c, 1, h, w)
    for weight, side in zip(generator.weights, GENERATOR_KERNELS):
        features = F.conv2d(features, weight, stride=generator.scale if side == 3 else 1)
    return features.reshape(n, c, *features.shape[-2:])


class Discriminator(nn.Module):
    """Patch discriminator with a receptive field of 7 x 7: N x 3 x H x W -> N x 1 x (H-6) x (W-6) in (0, 1)."""

    def __init__(self, channels: int = 64, blocks: int = 5) -> None:
        super().__init__()
        layers: list[nn.Module] = [spectral_norm(nn.Conv2d(3, channels, 7))]
        for _ in range(blocks):
            norm = nn.BatchNorm2d(channels)
            nn.init.normal_(norm.weight, 1.0, 0.02)
            layers += [spectral_norm(nn.Conv2d(channels, channels, 1)), norm, nn.ReLU()]
        layers += [spectral_norm(nn.Conv2d(channels, 1, 1)), nn.Sigmoid()]
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.zeros_(layer.bias)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
