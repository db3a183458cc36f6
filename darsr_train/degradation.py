"""The degradation GAN: a deep linear generator (HR -> LR of the unknown kind) and a patch discriminator.

Zhou et al. (DARSR, ICCV 2023), section 3.2; the two networks are KernelGAN's (Bell-Kligler et al., NeurIPS 2019).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

GENERATOR_KERNELS = (7, 5, 3, 1, 1, 1)  # sides of the six layers; the third one carries the stride
_BY_FFT_FROM = 18  # side of a kernel from which the spectrum is the shorter way on a CPU
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
        """The composed kernel, 13 x 13 (correlation, not flipped)."""
        *front, last = self.weights
        composed = last  # 1, C, 1, 1: seen from the output, what is applied to the last hidden layer
        for weight in reversed(front):
            # sum over the shared channels of full convolutions: exactly what a transposed convolution computes
            composed = F.conv_transpose2d(composed, weight)
        return composed[0, 0]

    def forward(self, x: Tensor) -> Tensor:
        """N x 3 x H x W -> N x 3 x ((H - 13) // s + 1) x ((W - 13) // s + 1), valid padding."""
        return apply_kernel(x, self.kernel(), self.scale)


def layer_by_layer(generator: Generator, x: Tensor) -> Tensor:
    """The obvious form of :class:`Generator`, kept to prove the composed one equal to it."""
    n, c, h, w = x.shape
    features = x.reshape(n * c, 1, h, w)
    for weight, side in zip(generator.weights, GENERATOR_KERNELS):
        features = F.conv2d(features, weight, stride=generator.scale if side == 3 else 1)
    return features.reshape(n, c, *features.shape[-2:])


def apply_kernel(x: Tensor, kernel: Tensor, stride: int = 1) -> Tensor:
    """Correlate every channel of N x C x H x W with a (kh, kw) kernel, valid padding."""
    n, c, h, w = x.shape
    y = F.conv2d(x.reshape(n * c, 1, h, w), kernel[None, None], stride=stride)
    return y.reshape(n, c, *y.shape[-2:])


def apply_kernels_by_fft(x: Tensor, kernels: Tensor, stride: int) -> Tensor:
    """What :func:`apply_kernel` computes, for several large kernels of one size at once: 3 to 10 times faster on a CPU.

    Every one of the stride's phases is correlated at the low resolution and the phases are summed as spectra.

    Args:
        x: N x C x H x W.
        kernels: M x kh x kw.

    Returns:
        M x N x C x ((H - kh) // stride + 1) x ((W - kw) // stride + 1); differs by rounding (about 1e-6) only.
    """
    n, c, h, w = x.shape
    rows, columns = ((side - k) // stride + 1 for side, k in zip((h, w), kernels.shape[-2:]))
    # Multiples of 16 low-resolution samples: fast lengths, and the stride divides them.
    low = tuple(-(-side // (16 * stride)) * 16 for side in (h, w))
    phases = F.pixel_unshuffle(F.pad(x.reshape(n * c, 1, h, w), _up_to(low, stride, h, w)), stride)  # NC, ss, h', w'
    taps = F.pixel_unshuffle(F.pad(kernels[:, None], _up_to(low, stride, *kernels.shape[-2:])), stride)  # M, ss, h', w'
    spectrum = torch.einsum("bphw,mphw->mbhw", torch.fft.rfft2(phases), torch.fft.rfft2(taps).conj())
    return torch.fft.irfft2(spectrum, s=low)[..., :rows, :columns].reshape(-1, n, c, rows, columns)


def _up_to(low: tuple[int, int], stride: int, height: int, width: int) -> tuple[int, int, int, int]:
    return (0, low[1] * stride - width, 0, low[0] * stride - height)


def reduce(x: Tensor, kernel: Tensor, scale: int) -> Tensor:
    """Blur and subsample so that output pixel i sits at input coordinate ``scale * i + (scale - 1) / 2``.

    The centre of a k-tap kernel is its middle: tap (k - 1) / 2 for odd k, shifted by half a pixel to the right where
    the scale is even (so a 13-tap kernel is padded by 6 before and 5 after at x2, by 6 and 3 at x4). Even kernels are
    centred between their two middle taps. Borders are mirrored with the border sample repeated.

    Args:
        x: N x C x H x W, H and W divisible by ``scale``.

    Returns:
        N x C x H/s x W/s.
    """
    k = kernel.shape[-1]
    before = k // 2 if k % 2 else (k - scale) // 2
    padded = pad_symmetric(x, before, k - scale - before)
    if k >= _BY_FFT_FROM:
        return apply_kernels_by_fft(padded, kernel[None], scale)[0]
    return apply_kernel(padded, kernel, scale)


def pad_symmetric(x: Tensor, before: int, after: int) -> Tensor:
    """Mirror the last two axes at their borders, the border sample repeated (numpy's ``symmetric``)."""
    for axis in (-2, -1):
        n = x.shape[axis]
        folded = torch.arange(-before, n + after, device=x.device) % (2 * n)
        x = x.index_select(axis, torch.where(folded < n, folded, 2 * n - 1 - folded))
    return x


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
