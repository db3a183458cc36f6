"""Blur and reduce an image by a kernel, with mirrored borders."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from darsr_deploy.degradation import reduction

_BY_FFT_FROM = 18  # side of a kernel from which the spectrum is the shorter way on a CPU


def apply_kernel(x: Tensor, kernel: Tensor, stride: int = 1) -> Tensor:
    """Correlate every channel of N x C x H x W with a (kh, kw) kernel, valid padding."""
    n, c, h, w = x.shape
    y = F.conv2d(x.reshape(n * c, 1, h, w), kernel[None, None], stride=stride)
    return y.reshape(n, c, *y.shape[-2:])


def apply_kernels_by_fft(x: Tensor, kernels: Tensor, stride: int) -> Tensor:
    """Compute :func:`apply_kernel` for several large kernels of one size at once, by FFT: faster on a CPU.

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


@functools.cache
def bicubic_table(scale: int) -> Tensor:
    """Return antialiased bicubic reduction as one kernel: 8 x 8 at scale 2, 16 x 16 at scale 4."""
    return torch.from_numpy(reduction.bicubic_table(scale))
